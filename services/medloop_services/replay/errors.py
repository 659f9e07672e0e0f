"""What can be wrong with what is replayed."""

from __future__ import annotations

from medloop_schemas import MedloopError


class DatasetError(MedloopError):
    """A file of labelled images can't be used; the text names the file, the array and what to do."""

    code = "dataset"


class RecordingError(MedloopError):
    """A recording can't be read or written; the text names the file and what to do."""

    code = "recording"
