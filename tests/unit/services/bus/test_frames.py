from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from medloop_schemas import Frame, InvalidEvent
from medloop_services.bus.artifacts import ArtifactStore, StoreAway
from medloop_services.bus.frames import frame_of, pixels_of, pixels_on_arrival


@pytest.fixture
def files(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), cache=tmp_path / "cache")


def test_inline_pixels_keep_their_order(files: ArtifactStore) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(pixels_of(Frame.inline(grey.tobytes(), height=2, width=3), files), grey)
    frame = Frame.inline(colour.tobytes(), height=2, width=3, channels=3)
    assert np.array_equal(pixels_of(frame, files), colour)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
def test_a_frame_of_pixels_holds_just_these(files: ArtifactStore, shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(pixels_of(frame_of(pixels), files), pixels)


def referenced(path: Path, content: bytes, claimed: bytes) -> Frame:
    path.write_bytes(content)
    return Frame(height=2, width=3, url=path.as_uri(), sha256=hashlib.sha256(claimed).hexdigest())


def test_a_reference_is_fetched(files: ArtifactStore, tmp_path: Path) -> None:
    frame = referenced(tmp_path / "frame.raw", b"abcdef", b"abcdef")
    assert pixels_of(frame, files).tobytes() == b"abcdef"


def test_a_reference_with_other_bytes_is_refused(files: ArtifactStore, tmp_path: Path) -> None:
    frame = referenced(tmp_path / "frame.raw", b"abcdef", b"ABCDEF")
    with pytest.raises(InvalidEvent, match=r"frame\.raw"):
        pixels_of(frame, files)


def test_a_reference_of_another_size_is_refused(files: ArtifactStore, tmp_path: Path) -> None:
    frame = referenced(tmp_path / "frame.raw", b"abcde", b"abcde")
    with pytest.raises(InvalidEvent) as refused:
        pixels_of(frame, files)
    assert refused.value.code == "size"


def test_padded_base64_can_be_short_of_a_byte(files: ArtifactStore) -> None:
    frame = Frame(height=1, width=2, data="YQ==")  # one byte, where two are claimed
    with pytest.raises(InvalidEvent) as refused:
        pixels_of(frame, files)
    assert refused.value.code == "size"


def test_on_arrival_only_the_stores_own_frames_are_waited_for(files: ArtifactStore, tmp_path: Path) -> None:
    """Whoever writes an event chooses its url: one image must not hold up all others."""
    digest = hashlib.sha256(b"abcdef").hexdigest()
    elsewhere = Frame(height=2, width=3, url=f"file://{tmp_path}/no/such/folder/frame.raw", sha256=digest)
    with pytest.raises(InvalidEvent, match="replay this when it can be had") as refused:
        pixels_on_arrival(elsewhere, files)
    assert (refused.value.code, refused.value.field) == ("reference", "frame.url")
    own = Frame(height=2, width=3, url=f"file://{tmp_path}/store/no/such/folder/frame.raw", sha256=digest)
    for frame, pixels in ((own, pixels_on_arrival), (own, pixels_of), (elsewhere, pixels_of)):
        with pytest.raises(StoreAway):
            pixels(frame, files)
