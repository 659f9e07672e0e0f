"""What can be wrong with a model or with what is fed to it.

ModelError                  has a stable `code`; its text says what to do
├── CorruptCheckpoint       the file is cut short, of another format, or lacks a tensor
├── PickledCheckpoint       the file would run code when loaded: refused unread
├── DigestMismatch          the file isn't the one that was released
├── UnsupportedArchitecture a network that can't be built
└── ShapeError              images, labels or classes that don't fit the network
"""

from __future__ import annotations

from pathlib import Path


class ModelError(Exception):
    """Base of every error this package raises on purpose; `code` is stable and machine-readable."""

    code = "model"


class CorruptCheckpoint(ModelError):
    """A checkpoint that can't be read.

    Args:
        path: the file.
        reason: what is wrong with it, as the end of a sentence.
    """

    code = "corrupt-checkpoint"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; fetch or export the file again")
        self.path = path
        self.reason = reason


class PickledCheckpoint(ModelError):
    """A pickle or a zip of pickles (`.pth`, `.pt`, `.pkl`): loading one can run any code.

    Args:
        path: the file.
    """

    code = "pickled-checkpoint"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: pickled checkpoints are never loaded; export the model as safetensors")
        self.path = path


class DigestMismatch(ModelError):
    """A file whose content isn't what was asked for.

    Args:
        path: the file.
        expected: SHA-256 that was asked for, in hex.
        found: SHA-256 of the file, in hex.
    """

    code = "digest-mismatch"

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(f"{path}: sha256 is {found}, expected {expected}; fetch the file again")
        self.path = path
        self.expected = expected
        self.found = found


class UnsupportedArchitecture(ModelError):
    """A network whose measures don't fit together."""

    code = "unsupported-architecture"


class TeacherMismatch(ModelError):
    """A teacher that a student can't follow.

    Args:
        path: the teacher's file.
        reason: what is different, as the end of a sentence.
    """

    code = "teacher-mismatch"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: the teacher {reason}; give one of the same task, or set alpha to 1")
        self.path = path
        self.reason = reason


class ShapeError(ModelError):
    """Images, labels or classes that don't fit the network."""

    code = "shape"
