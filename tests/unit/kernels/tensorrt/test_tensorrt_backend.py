"""A machine without TensorRT is told what brings it, and nothing steps in."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from medloop_kernels import BackendUnavailable, select

JETPACK = r"on a Jetson Orin install JetPack 7\.2 or newer"


def test_a_machine_without_tensorrt_is_told_which_jetpack_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailable, match=rf"TensorRT is not installed .*{JETPACK}"):
        select("tensorrt")


def test_a_tensorrt_without_the_plugins_interface_is_too_old(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.2"))
    with pytest.raises(BackendUnavailable, match=rf"TensorRT 8\.6\.2 is too old, 10 is needed: {JETPACK}"):
        select("tensorrt")


def test_the_gpu_and_not_the_user_names_the_architecture():
    with pytest.raises(BackendUnavailable, match="choose plain `tensorrt`"):
        select("tensorrt:sm_87")


def test_a_description_needs_no_library():
    program = (
        "import sys; sys.modules['tensorrt'] = None; sys.modules['cuda'] = None; "
        "import medloop_kernels.tensorrt.description"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
