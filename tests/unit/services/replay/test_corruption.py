from __future__ import annotations

import numpy as np
import pytest
from medloop_services.replay.corruption import CORRUPTIONS, FAULTS, SEVERITIES, corrupt
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.phantom import draw_exposures
from medloop_services.replay.split import Pixels

every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


@pytest.fixture(scope="module")
def grey() -> Pixels:
    exposures = draw_exposures(0, 16, np.random.default_rng(0))
    pixels: Pixels = np.rint(255 * (0.15 + 0.7 * exposures)).astype(np.uint8)
    return pixels


@every_corruption
def test_grey_and_colour_keep_their_shape(name: str, grey: Pixels) -> None:
    colour = np.repeat(grey[..., None], 3, axis=3)
    for images in (grey, colour):
        changed = corrupt(images, name, 3, 0)
        assert changed.shape == images.shape
        assert changed.dtype == np.uint8
        assert not np.array_equal(changed, images)


@every_corruption
def test_a_corruption_depends_on_its_seed_alone(name: str, grey: Pixels) -> None:
    assert np.array_equal(corrupt(grey, name, 3, 7), corrupt(grey, name, 3, 7))


@every_corruption
def test_a_higher_severity_changes_more(name: str, grey: Pixels) -> None:
    differences = [
        np.abs(corrupt(grey, name, severity, 0).astype(float) - grey).mean() for severity in SEVERITIES
    ]
    assert differences == sorted(differences)
    assert differences[-1] > 1.5 * differences[0]


def test_noise_follows_the_seed(grey: Pixels) -> None:
    assert not np.array_equal(corrupt(grey, "gaussian-noise", 3, 0), corrupt(grey, "gaussian-noise", 3, 1))


def test_the_noise_has_the_deviation_it_says() -> None:
    flat = np.full((64, 28, 28), 128, np.uint8)
    noise = corrupt(flat, "gaussian-noise", 2, 0).astype(float) / 255 - 128 / 255
    assert noise.std() == pytest.approx(0.06, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.002)


def test_the_new_scanner_is_the_formula_it_says() -> None:
    flat = np.full((256, 28, 28), 200, np.uint8)
    expected = ((200 / 255) ** 1.7 - 0.35) * 0.5 + 0.35 + 0.1
    changed = corrupt(flat, "scanner", 3, 0).astype(float) / 255
    assert changed.mean() == pytest.approx(expected, abs=0.002)
    assert changed.std() == pytest.approx(0.08, rel=0.03)


def test_contrast_keeps_each_images_mean(grey: Pixels) -> None:
    changed = corrupt(grey, "contrast-down", 3, 0)
    assert changed.mean(axis=(1, 2)) == pytest.approx(grey.mean(axis=(1, 2)), abs=0.5)
    assert (changed.std(axis=(1, 2)) / grey.std(axis=(1, 2))) == pytest.approx(np.full(16, 0.5), abs=0.02)


def test_blur_grows_with_the_image() -> None:
    line = np.zeros((1, 56, 56), np.uint8)
    line[0, :, 28] = 255
    spread = corrupt(line, "gaussian-blur", 3, 0)[0].astype(float)
    distance = (np.arange(56) - 28) ** 2
    assert np.sqrt((spread[28] * distance).sum() / spread[28].sum()) == pytest.approx(2.0, rel=0.02)


def test_unknown_names_and_severities_are_refused(grey: Pixels) -> None:
    with pytest.raises(DatasetError, match="choose one of brightness-up"):
        corrupt(grey, "earthquake", 3, 0)
    with pytest.raises(DatasetError, match="between 1 and 5"):
        corrupt(grey, "jpeg", 6, 0)


def test_a_broken_device_shows_black_negatives_or_one_frame() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    assert not corrupt(images, "black", 1, 0).any()
    assert np.array_equal(corrupt(images, "inverted", 1, 0), 255 - images)
    assert np.array_equal(corrupt(images, "frozen", 1, 0), np.stack([images[0]] * 3))
    assert not FAULTS.keys() & CORRUPTIONS.keys(), "a fault is no mild change"
