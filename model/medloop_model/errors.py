"""What can be wrong with a model or with what is fed to it.

ModelError                  has a stable `code`; its text says what to do
├── CorruptCheckpoint       the file is cut short, of another format, or lacks a tensor
├── PickledCheckpoint       the file would run code when loaded: refused unread
├── DigestMismatch          the file isn't the one that was released
├── UnsupportedArchitecture a network that can't be built
├── TeacherMismatch         a teacher of another task than its student
├── FisherOfAnotherBase     Fisher information that was measured on another model
├── UnfitFisher             Fisher information of other tensors, or that is no number
├── ShapeError              images, labels or classes that don't fit the network
├── StudyOnBothSides        a model would be judged by what it was trained on
└── CorruptHistory          the file of past hyperparameter searches can't be read
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


class FisherOfAnotherBase(ModelError):
    """Fisher information that was measured on another model than the one that is to be adapted.

    Args:
        source: the file's path or url.
        expected: SHA-256 of the package that is to be adapted, in hex.
        found: SHA-256 of the package that it was measured on, in hex, or what stands in its place.
    """

    code = "fisher-of-another-base"

    def __init__(self, source: Path | str, expected: str, found: str) -> None:
        super().__init__(
            f"{source}: measured on the model with sha256 {found}, not on {expected}; measure it on that one"
        )
        self.source = source
        self.expected = expected
        self.found = found


class UnfitFisher(ModelError):
    """Fisher information that doesn't fit its model: names, shapes or values."""

    code = "unfit-fisher"


class ShapeError(ModelError):
    """Images, labels or classes that don't fit the network."""

    code = "shape"


class StudyOnBothSides(ModelError):
    """Studies that were trained on and would also judge.

    Args:
        study: one of them.
        count: how many there are.
    """

    code = "study-on-both-sides"

    def __init__(self, study: str, count: int) -> None:
        super().__init__(
            f"{count} studies, {study} among them, would judge a model that was trained on them; "
            "divide examples by study before training (validation.hold_out)"
        )
        self.study = study
        self.count = count


class CorruptHistory(ModelError):
    """A file of past hyperparameter searches that can't be read.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    code = "corrupt-history"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: no list of past searches ({reason}); remove the file")
        self.path = path
