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
        InvalidEvent: the bytes are not what the frame says they are.
        TransientError: the store of a referenced frame is away.
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


def pixels_on_arrival(frame: Frame, files: FileStore) -> NDArray[np.uint8]:
    """As `pixels_of`, for who meets a frame first: nothing is waited for but the artifact store.

    Whoever writes an event chooses its url, and nobody else's images are to wait for that host. Later on the
    frame is known to have been there.

    Raises:
        InvalidEvent: also, the frame is not in the artifact store and can't be had now.
        TransientError: it is in the artifact store, and that is away.
    """
    try:
        return pixels_of(frame, files)
    except StoreAway as away:
        if files.holds(str(frame.url)):
            raise
        raise InvalidEvent("reference", "frame.url", f"{away}; replay this when it can be had") from away


def _fetched(frame: Frame, files: FileStore) -> bytes:
    size = frame.height * frame.width * frame.channels
    artifact = Artifact(url=str(frame.url), sha256=str(frame.sha256), size=size)
    return files.fetch(artifact).read_bytes()
