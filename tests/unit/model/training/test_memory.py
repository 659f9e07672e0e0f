from __future__ import annotations

import numpy as np
import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.errors import ShapeError
from medloop_model.training.memory import RehearsalMemory

TINY = Architecture(8, 1, 4, 8, 1, 2, 2, ("a", "b", "c"))


def memory(labels: list[int], grey: int) -> RehearsalMemory:
    filled = RehearsalMemory(TINY)
    filled.add(np.full((len(labels), 8, 8), grey, np.uint8), np.array(labels))
    return filled


def test_batches_are_balanced_and_repeatable() -> None:
    kept = memory([0] * 30 + [1] * 3, 0)
    pixels, labels = kept.draw(600, torch.Generator().manual_seed(0))
    assert pixels.shape == (600, 8, 8, 1)
    assert labels.float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert torch.equal(labels, kept.draw(600, torch.Generator().manual_seed(0))[1])


def test_an_empty_memory_gives_nothing() -> None:
    pixels, labels = RehearsalMemory(TINY).draw(8, torch.Generator())
    assert pixels.shape == (0, 8, 8, 1)
    assert len(labels) == 0


def test_classes_in_doubt_come_from_the_other_memory() -> None:
    merged = memory([0, 1, 2], 0).merged(memory([0, 1, 1], 255), torch.tensor([True, False, True]))
    assert merged.labels_B.tolist() == [0, 2, 1, 1]
    assert merged.pixels_BHWC[:, 0, 0, 0].tolist() == [0, 0, 1, 1]


def test_a_label_outside_the_classes_is_refused_and_nothing_kept() -> None:
    kept = memory([0], 0)
    with pytest.raises(ShapeError):
        kept.add(np.zeros((1, 8, 8), np.uint8), np.array([3]))
    assert len(kept) == 1
