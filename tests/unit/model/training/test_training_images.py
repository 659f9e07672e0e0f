from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from medloop_model.architecture import ward
from medloop_model.errors import ShapeError
from medloop_model.training.images import (
    PATIENT,
    SLIDE,
    augment,
    draw_balanced,
    to_images,
    to_labels,
    to_pixels,
    usual_bounds,
)

GREY, COLOUR = ward(28, 1, ("a", "b")), ward(28, 3, ("a", "b"))


def test_grey_images_may_come_with_or_without_their_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    pixels = to_pixels(images, GREY)
    assert pixels.shape == (3, 28, 28, 1)
    assert torch.equal(pixels, to_pixels(images[..., None], GREY))
    np.testing.assert_allclose(pixels[..., 0], images / 255, rtol=1e-6)


def test_images_come_back_from_pixels_and_what_lies_between_is_rounded() -> None:
    images = np.arange(256, dtype=np.uint8).repeat(49).reshape(16, 28, 28, 1)
    pixels = to_pixels(images, GREY)
    assert np.array_equal(to_images(pixels), images)
    assert np.array_equal(to_images((pixels + 0.4 / 255).clamp(0, 1)), images)


@pytest.mark.parametrize(
    ("shape", "dtype", "architecture"),
    [
        ((2, 28, 27), np.uint8, GREY),
        ((2, 28, 28), np.float32, GREY),
        ((2, 28, 28), np.uint8, COLOUR),
        ((2, 28, 28, 3), np.uint8, GREY),
        ((28, 28), np.uint8, GREY),
    ],
)
def test_other_images_are_refused(shape: tuple[int, ...], dtype: type, architecture: object) -> None:
    with pytest.raises(ShapeError, match="takes uint8"):
        to_pixels(np.zeros(shape, dtype), architecture)  # type: ignore[arg-type]


def test_labels_outside_the_classes_are_refused() -> None:
    assert to_labels(np.array([[0], [1]], dtype=np.uint8), GREY).tolist() == [0, 1]
    with pytest.raises(ShapeError, match="from 0 to 2"):
        to_labels(np.array([0, 2]), GREY)


def test_balanced_batches_hold_a_rare_class_as_often_as_a_common_one() -> None:
    labels = torch.tensor([0] * 95 + [1] * 5)
    drawn = labels[draw_balanced(labels, 4000, torch.Generator().manual_seed(0))]
    assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_augmentation_of_strength_zero_changes_nothing_and_of_one_stays_in_range() -> None:
    pixels = torch.rand(4, 28, 28, 3, generator=torch.Generator().manual_seed(0))
    still = augment(pixels, torch.Generator().manual_seed(1), strength=0.0)
    torch.testing.assert_close(still, pixels, rtol=0, atol=1e-5)
    moved = augment(pixels, torch.Generator().manual_seed(1))
    assert moved.shape == pixels.shape
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not torch.allclose(moved, pixels, atol=0.05)
    assert torch.equal(moved, augment(pixels, torch.Generator().manual_seed(1)))


def test_a_slide_is_mirrored_and_stained_channel_by_channel() -> None:
    pixels = torch.full((64, 8, 8, 3), 0.5)
    pixels[:, :, :4] = 0.25
    only_mirrored = replace(PATIENT, turn=0.0, zoom=0.0, shift=0.0, intensity=0.0, mirrored=True)
    moved = augment(pixels, torch.Generator().manual_seed(0), bounds=only_mirrored)
    turned_over = moved[:, 0, 0, 0] > 0.4
    assert 16 < int(turned_over.sum()) < 48
    torch.testing.assert_close(moved[~turned_over], pixels[~turned_over])
    torch.testing.assert_close(moved[turned_over], pixels[turned_over].flip(2))
    stained = augment(pixels, torch.Generator().manual_seed(0), bounds=SLIDE)
    exposed = augment(pixels, torch.Generator().manual_seed(0), bounds=PATIENT)
    assert (stained.std(dim=3) > 0.01).any()
    assert exposed.std(dim=3).max() < 1e-6


def test_colour_images_are_taken_for_slides() -> None:
    assert usual_bounds(COLOUR) is SLIDE
    assert usual_bounds(GREY) is PATIENT
