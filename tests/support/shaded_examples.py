"""Labelled examples that a tiny network can tell apart: a class is a shade."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from medloop_schemas import ExampleLabelled, Frame

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = "ward/scanner-1"
CLASSES = ("normal", "opacity")


def example(sequence: int, new_class_from: int | None = None) -> ExampleLabelled:
    """The example of a sequence number; from a number on, one in three is a nodule."""
    names = (*CLASSES, "nodule")
    index = sequence % (2 if new_class_from is None or sequence < new_class_from else 3)
    pixels = np.random.default_rng(sequence).integers(0, 80, (8, 8), np.uint8) + np.uint8(80 * index)
    return ExampleLabelled(
        time=EPOCH,
        image_id=f"image-{sequence}",
        device_id=DEVICE,
        site_id="ward",
        study_id=f"study-{sequence}",
        image_sequence=sequence,
        label_sequence=sequence,
        revision=1,
        class_index=index,
        class_name=names[index],
        predicted_class=0,
        model_version="ward-0",
        frame=Frame.inline(pixels.tobytes(), height=8, width=8),
    )
