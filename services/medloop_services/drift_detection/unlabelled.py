"""Which of the images without a label are offered to be labelled: a random sample of each predicted class.

Each image's place is drawn by a hash of its id, so that a replay draws the same; whoever reads the sample may
take the first few of any part of a class, and has them at random from that part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from medloop_schemas import UnlabelledImage

RECENT = 256
"""Images without a label that are drawn from, the latest."""

A_CLASS = 12
"""Images offered of each predicted class, at most."""


class Waiting(Protocol):
    """An image that waits for its label."""

    @property
    def sequence(self) -> int:
        """Its place in its device's stream."""

    @property
    def predicted_class(self) -> int:
        """The model's answer."""


def drawn(waiting: Mapping[str, Waiting]) -> tuple[UnlabelledImage, ...]:
    """Return the sample, in the order in which it was drawn.

    Args:
        waiting: image id → image.
    """
    recent = sorted(waiting.items(), key=lambda item: item[1].sequence)[-RECENT:]
    counts: dict[int, int] = {}
    sample: list[UnlabelledImage] = []
    for image_id, image in sorted(recent, key=lambda item: _place(item[0])):
        counts[image.predicted_class] = counts.get(image.predicted_class, 0) + 1
        if counts[image.predicted_class] <= A_CLASS:
            sample.append(
                UnlabelledImage(
                    image_id=image_id, sequence=image.sequence, predicted_class=image.predicted_class
                )
            )
    return tuple(sample)


def _place(image_id: str) -> bytes:
    return hashlib.blake2b(image_id.encode(), digest_size=8).digest()
