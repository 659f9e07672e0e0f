from __future__ import annotations

import numpy as np
import pytest
from medloop_kernels import BackendUnavailable, available, cpu, describe, pack, select
from medloop_kernels.cpu import _ternary


def test_the_best_instruction_set_of_this_processor_is_the_default(monkeypatch):
    monkeypatch.delenv("MEDLOOP_KERNELS", raising=False)
    backend = select()
    assert (backend.name, backend.variant) == ("cpu", cpu.variant_names()[0])


@pytest.mark.parametrize(
    ("value", "variant"), [("reference", "numpy"), ("cpu:generic", "generic"), ("", cpu.variant_names()[0])]
)
def test_the_environment_overrides_the_choice(monkeypatch, value, variant):
    monkeypatch.setenv("MEDLOOP_KERNELS", value)
    assert select().variant == variant


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tensorrt", "TensorRT is not installed .* install JetPack 7.2 or newer"),
        ("gpu", "choose one of reference, cpu"),
        ("cpu:mmx", "cannot run 'mmx' here"),
        ("reference:avx2", "no instruction sets"),
    ],
)
def test_what_cannot_run_says_so_and_nothing_steps_in(monkeypatch, name, sentence):
    with pytest.raises(BackendUnavailable, match=sentence):
        select(name)
    monkeypatch.setenv("MEDLOOP_KERNELS", name)
    with pytest.raises(BackendUnavailable, match=sentence):
        select()


def test_a_missing_extension_says_so_and_nothing_steps_in(monkeypatch):
    monkeypatch.setattr(cpu, "_MISSING", ImportError("no module"))
    with pytest.raises(BackendUnavailable, match="MEDLOOP_KERNELS=reference"):
        cpu.implementation(None)
    assert cpu.variant_names() == []


def test_the_description_names_every_back_end_and_the_choice(monkeypatch):
    monkeypatch.setenv("MEDLOOP_KERNELS", "reference")
    rows = {row.name: row for row in describe()}
    assert list(rows) == ["reference", "cpu", "cuda", "tensorrt"]
    assert [name for name, row in rows.items() if row.chosen] == ["reference"]
    assert "MEDLOOP_KERNELS=reference" in rows["reference"].reason
    assert [name for name, row in rows.items() if row.available] == ["reference", "cpu"]


def test_every_available_back_end_can_be_chosen_by_name():
    for backend in available():
        name = backend.name if backend.name == "reference" else f"{backend.name}:{backend.variant}"
        assert select(name).variant == backend.variant


def test_the_extension_keeps_its_memory_when_called_past_the_checks():
    variant = _ternary.variants()[0]
    codes = np.zeros((4, 96), dtype=np.int8)
    packed = pack(np.zeros((16, 96), dtype=np.int8))
    with pytest.raises(ValueError, match="do not fit"):
        variant.ternary_matmul(codes, packed, np.zeros((3, 16), dtype=np.int32))
    with pytest.raises(TypeError):
        variant.ternary_matmul(codes.astype(np.float32), packed, np.zeros((4, 16), dtype=np.int32))
    with pytest.raises(TypeError):
        variant.ternary_matmul(codes, packed, np.zeros((16, 4), dtype=np.int32).T)
