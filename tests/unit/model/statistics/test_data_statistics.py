from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medloop_model.statistics import data_statistics
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def smooth_images(count: int = 12, side: int = 32) -> Images:
    """Blobs on a gradient, different in each image."""
    rows, columns = np.mgrid[:side, :side] / side
    generator = np.random.default_rng(0)
    centres = generator.uniform(0.3, 0.7, (count, 2))
    blobs = [np.exp(-8 * ((rows - y) ** 2 + (columns - x) ** 2)) for y, x in centres]
    images: Images = (40 + 150 * np.stack(blobs) + 20 * rows).astype(np.uint8)
    return images


def with_noise(images: Images, deviation: float) -> Images:
    noise = np.random.default_rng(1).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def test_a_flat_image_has_tone_and_nothing_else() -> None:
    statistics = data_statistics(np.full((1, 16, 16), 51, np.uint8))
    for name in ("intensity", "tone_p05", "tone_p50", "tone_p95"):
        assert statistics[name][0] == pytest.approx(0.2)
    for name in ("contrast", "noise", "sharpness", "blockiness", "clipped", "histogram_entropy"):
        assert statistics[name][0] == pytest.approx(0, abs=1e-6), name


@pytest.mark.parametrize("deviation", [5.0, 10.0, 20.0])
def test_noise_is_measured_in_units_of_its_standard_deviation(deviation: float) -> None:
    level = data_statistics(with_noise(smooth_images(side=64), deviation))["noise"]
    assert level.mean() == pytest.approx(deviation / 255, rel=0.1)


def test_blur_lowers_and_noise_raises_sharpness() -> None:
    images = with_noise(smooth_images(), 4)
    blurred = ((images[:, :-1].astype(int) + images[:, 1:]) // 2).astype(np.uint8)
    sharpness = data_statistics(images)["sharpness"]
    assert (data_statistics(blurred)["sharpness"] < sharpness).all()
    assert (data_statistics(with_noise(images, 20))["sharpness"] > sharpness).all()


def test_blocks_of_eight_pixels_are_seen_and_blocks_of_seven_are_not() -> None:
    def mosaic(block: int) -> Images:
        tiles = np.random.default_rng(2).integers(60, 200, (5, 8, 8))
        return np.kron(tiles, np.ones((block, block))).astype(np.uint8)[:, :56, :56]

    assert (data_statistics(mosaic(8))["blockiness"] > 0.1).all()
    assert (data_statistics(mosaic(7))["blockiness"] < 0.02).all()


def test_quantiles_and_moments_agree_with_numpy() -> None:
    images = with_noise(smooth_images(), 10)
    statistics = data_statistics(images)
    flat = images.reshape(len(images), -1) / 255
    np.testing.assert_allclose(statistics["intensity"], flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(statistics["contrast"], flat.std(1), rtol=1e-4)
    np.testing.assert_allclose(statistics["tone_p95"], np.quantile(flat, 0.95, axis=1), atol=0.01)


def test_histogram_entropy_of_two_equally_frequent_levels_is_log_two() -> None:
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, :4] = 200
    assert data_statistics(image)["histogram_entropy"][0] == pytest.approx(np.log(2), rel=1e-5)


def test_colour_images_have_colour_shares_and_grey_ones_measured_as_colour_agree() -> None:
    grey = with_noise(smooth_images(), 5)
    colour = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    of_grey, of_colour = data_statistics(grey), data_statistics(colour)
    assert set(of_colour) - set(of_grey) == {"red_share", "blue_share"}
    np.testing.assert_allclose(of_colour["red_share"], 1 / 3, rtol=1e-4)
    np.testing.assert_allclose(of_colour["intensity"], of_grey["intensity"], rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(3, 20), st.integers(3, 20))))
def test_any_image_gives_finite_numbers_that_do_not_depend_on_its_neighbours(images: Images) -> None:
    together = data_statistics(images)
    alone = data_statistics(images[:1])
    for name, values in together.items():
        assert values.shape == (len(images),)
        assert values.dtype == np.float32
        assert np.isfinite(values).all(), name
        assert values[0] == pytest.approx(alone[name][0], abs=1e-6), name


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 9), (1, 9, 9, 2), (1, 1, 9, 9, 1)])
def test_other_shapes_are_refused_with_the_shape_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"can't be measured"):
        data_statistics(np.zeros(shape, np.uint8))
