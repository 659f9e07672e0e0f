"""What is missing for a GPU is one error that names it, and compiled kernels are never stale."""

from __future__ import annotations

import shutil
import sys

import pytest
from medloop_kernels import BackendUnavailable, select
from medloop_kernels.cuda import build, images
from medloop_kernels.cuda.driver import open_driver

# Where a GPU is, the suite of every back end runs on it instead.
without_gpu = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")


@without_gpu
def test_a_machine_without_a_driver_is_told_so_and_falls_back_to_nothing():
    with pytest.raises(BackendUnavailable, match=r"no GPU can be used .*install NVIDIA's driver"):
        select("cuda")


def test_without_a_binding_both_extras_are_named(monkeypatch):
    for module in ("cuda.bindings", "pycuda"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailable, match=r"medloop-kernels\[cuda-bindings\].*\[cuda\] for pycuda"):
        open_driver()


def test_the_gpu_and_not_the_user_names_the_architecture():
    with pytest.raises(BackendUnavailable, match="choose plain `cuda`"):
        select("cuda:sm_87")


def test_kernels_that_were_not_compiled_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "COMPILED", tmp_path)
    with pytest.raises(BackendUnavailable, match=r"not compiled for sm_87.*make cuda"):
        images.load_image("quantize", "sm_87")


def test_a_cubin_is_preferred_and_ptx_is_for_later_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "COMPILED", tmp_path)
    images.image_file("quantize", images.PTX).write_bytes(b"ptx")
    images.image_file("quantize", "sm_87").write_bytes(b"cubin")
    assert images.load_image("quantize", "sm_87") == b"cubin"
    assert images.load_image("quantize", "sm_120") == b"ptx\0"


def test_a_changed_source_changes_every_name(monkeypatch, tmp_path):
    for source in images.SOURCES.glob("*.cu*"):
        shutil.copy(source, tmp_path)
    before = images.source_hash()
    monkeypatch.setattr(images, "SOURCES", tmp_path)
    assert images.source_hash() == before
    with (tmp_path / "device.cuh").open("a") as header:
        header.write("// changed")
    assert images.source_hash() != before


def test_a_compiler_that_fails_leaves_no_image(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "COMPILED", tmp_path)
    monkeypatch.setattr(images, "COMPILED", tmp_path)
    stale = tmp_path / "quantize.sm_80.000000000000.cubin"
    stale.touch()
    assert build.main(["--nvcc", "false"]) == 1
    assert list(tmp_path.iterdir()) == []
