from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from medloop_model.training.memory import Memory


def memory(labels: list[int], name: str = "image", grey: int = 0) -> Memory:
    count = len(labels)
    return Memory(
        ids=tuple(f"{name}-{number}" for number in range(count)),
        domains=("home",) * count,
        images=torch.full((count, 8, 8, 1), grey, dtype=torch.uint8),
        labels=torch.tensor(labels, dtype=torch.int64),
        answers=torch.zeros(count, 0),
        embeddings=torch.arange(count * 2.0).view(count, 2),
    )


def test_batches_are_balanced_and_repeatable() -> None:
    filled = memory([0] * 30 + [1] * 3)
    drawn = filled.draw(600, torch.Generator().manual_seed(0))
    assert drawn.images.shape == (600, 8, 8, 1)
    assert drawn.labels.float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert drawn.ids == filled.draw(600, torch.Generator().manual_seed(0)).ids
    assert all(filled.label_of[image_id] == label for image_id, label in drawn.label_of.items())


def test_of_each_class_every_domain_is_drawn_as_often() -> None:
    home, rare = memory([0] * 40 + [1] * 40), memory([0] * 5, "rare")
    both = home.joined(replace(rare, domains=("away",) * 5))
    drawn = both.draw(4000, torch.Generator().manual_seed(0))
    shares = Counter(zip(drawn.domains, drawn.labels.tolist(), strict=True))
    assert shares == pytest.approx({("home", 0): 1000, ("away", 0): 1000, ("home", 1): 2000}, rel=0.1)


def test_an_empty_memory_gives_nothing() -> None:
    drawn = memory([]).draw(8, torch.Generator())
    assert len(drawn) == 0
    assert drawn.pixels.shape == (0, 8, 8, 1)
    assert len(memory([0, 1]).draw(0, torch.Generator())) == 0
    assert len(memory([]).latest_domain()) == 0


def test_images_are_kept_as_bytes_and_shown_from_0_to_1() -> None:
    filled = memory([0], grey=255)
    assert filled.images.dtype == torch.uint8
    assert filled.pixels.dtype == torch.float32
    assert (filled.pixels == 1).all()


def test_a_corrected_label_takes_the_place_of_the_first_and_nothing_else_changes() -> None:
    filled = memory([0, 0, 1])
    corrected = filled.relabelled({"image-1": 2, "unknown": 0})
    assert corrected.label_of == {"image-0": 0, "image-1": 2, "image-2": 1}
    assert corrected.ids == filled.ids
    assert filled.label_of["image-1"] == 0, "what was there is not changed in place"


def test_a_full_memory_lets_go_of_its_largest_class() -> None:
    filled = memory([0] * 6 + [1] * 2)
    one = 8 * 8 + 8 + 2 * 4  # image, label, embedding
    assert filled.example_bytes == one
    assert filled.within(8 * one) is filled
    assert filled.within(5 * one - 1).label_of == {"image-4": 0, "image-5": 0, "image-6": 1, "image-7": 1}


def test_the_latest_domain_is_the_last_ones() -> None:
    elsewhere = replace(memory([1, 0], "new"), domains=("elsewhere",) * 2)
    assert memory([0, 1]).joined(elsewhere).latest_domain().ids == ("new-0", "new-1")


def test_what_is_joined_later_is_younger() -> None:
    both = memory([0], "old").joined(memory([1, 1], "new"))
    assert both.ids == ("old-0", "new-0", "new-1")
    assert both.of({"new-1", "old-0"}).ids == ("old-0", "new-1")


def test_a_memory_of_texts_and_pixels_survives_as_tensors() -> None:
    filled = memory([2, 0], name="é")
    again = Memory.from_tensors(filled.to_tensors())
    assert again.ids == filled.ids
    assert again.domains == filled.domains
    assert torch.equal(again.images, filled.images)
    assert again.label_of == filled.label_of
