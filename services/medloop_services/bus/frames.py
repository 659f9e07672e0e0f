"""Frames and arrays: inline pixels are decoded, referenced ones fetched and checked against their digest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from medloop_schemas import Artifact, Frame, InvalidEvent
from numpy.typing import NDArray

from medloop_services.bus.artifacts import StoreAway


class FileStore(Protocol):
    """Where referenced frames lie; `ArtifactStore` is one."""

    def fetch(self, artifact: Artifact) -> Path:
        """Return a local file with exactly the artifact's bytes, or raise InvalidEvent or TransientError."""

    def holds(self, url: str) -> bool:
        """Return whether a url is one of the store's own."""


def frame_of(pixels: NDArray[np.uint8]) -> Frame:
    """Return an inline frame of pixels: uint8 (H, W) or (H, W, 3)."""
    channels: Literal[1, 3] = 1 if pixels.ndim == 2 else 3
    return Frame.inline(pixels.tobytes(), height=pixels.shape[0], width=pixels.shape[1], channels=channels)


def pixels_of(frame: Frame, files: FileStore) -> NDArray[np.uint8]:
    """Return a frame's pixels.

    Args:
        frame: inline or by reference.
        files: fetches what a frame refers to.

    Returns:
        uint8 (H, W) for one channel, (H, W, 3) for three; read-only.

    Raises:
        InvalidEvent: the bytes are not what the frame says they are, or lie elsewhere and can't be had now.
        TransientError: the frame is in the store, and that is away.
    """
    content = frame.pixels() if frame.data is not None else _fetched(frame, files)
    shape = (
        (frame.height, frame.width) if frame.channels == 1 else (frame.height, frame.width, frame.channels)
    )
    expected = frame.height * frame.width * frame.channels
    if len(content) != expected:
        raise InvalidEvent(
            "size", "frame", f"{len(content)} bytes are not {shape} = {expected} bytes of pixels"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _fetched(frame: Frame, files: FileStore) -> bytes:
    size = frame.height * frame.width * frame.channels
    artifact = Artifact(url=str(frame.url), sha256=str(frame.sha256), size=size)
    try:
        return files.fetch(artifact).read_bytes()
    except StoreAway as away:
        if files.holds(artifact.url):
            raise
        # Whoever writes an event chooses its url: nobody else's images wait for that host.
        raise InvalidEvent("reference", "frame.url", f"{away}; replay this when it can be had") from away
