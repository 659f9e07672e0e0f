"""The models that ship with medloop: `pneumonia` (real chest X-rays) and `phantom` (drawn radiographs)."""

from __future__ import annotations

from pathlib import Path

NAMES = ("pneumonia", "phantom")


def path(name: str) -> Path:
    """The shipped package of this name; its teacher lies beside it (`teacher_path`).

    Raises:
        ValueError: no such model ships.
    """
    return _folder(name) / "model.safetensors"


def teacher_path(name: str) -> Path:
    """The full-precision teacher of the shipped package of this name.

    Raises:
        ValueError: no such model ships.
    """
    return _folder(name) / "teacher.safetensors"


def _folder(name: str) -> Path:
    if name not in NAMES:
        raise ValueError(f"no pretrained model {name!r} ships; choose one of {', '.join(NAMES)}")
    return Path(__file__).parent / name
