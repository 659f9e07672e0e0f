"""A change of acquisition is measured as it was made, on images that other tests don't share."""

import pytest
import torch
from medloop_model.training.restyle import AcquisitionChange, is_faithful
from torch import Tensor
from torch.nn import functional

SIDE = 28


def _smooth_images(count: int, seed: int, channels: int = 1) -> Tensor:
    """Soft shapes that fill the grey scale: noise of a few pixels' size."""
    generator = torch.Generator().manual_seed(seed)
    coarse_BCHW = torch.rand(count, channels, 6, 6, generator=generator)
    return functional.interpolate(coarse_BCHW, size=SIDE, mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_same_scanner_stay_as_they_are(channels: int) -> None:
    images = _smooth_images(200, 0, channels)
    change = AcquisitionChange.between(images, images)
    difference = change.applied(images, _generator()) - images
    assert difference.square().mean().sqrt() < 0.01


def test_a_tone_curve_is_found_between_the_rare_greys() -> None:
    change = AcquisitionChange.between(_smooth_images(300, 0), _smooth_images(300, 1) ** 1.7)
    middle = slice(6, 27)
    expected = change.old_greys[middle] ** 1.7
    assert torch.allclose(change.new_greys[middle], expected, atol=0.04)


def test_noise_is_measured_as_strong_as_it_is() -> None:
    old, new = _smooth_images(300, 0), _smooth_images(300, 1)
    noisy = new + 0.06 * torch.randn(new.shape, generator=_generator())
    change = AcquisitionChange.between(old, noisy)
    fine = change.noise[SIDE // 4 : SIDE // 2, SIDE // 4 :] / SIDE
    assert fine.mean().item() == pytest.approx(0.06, rel=0.15)


def test_noise_is_drawn_anew_for_every_image() -> None:
    old, new = _smooth_images(100, 0), _smooth_images(100, 1)
    noisy = new + 0.1 * torch.randn(new.shape, generator=_generator())
    shown = AcquisitionChange.between(old, noisy).applied(old[:1].repeat(2, 1, 1, 1), _generator())
    assert not torch.allclose(shown[0], shown[1], atol=0.05)


def test_blur_is_a_gain_below_one_at_fine_detail() -> None:
    generator = _generator()
    old, sharp = (torch.rand(300, SIDE, SIDE, 1, generator=generator) for _ in range(2))
    kernel = torch.tensor([0.25, 0.5, 0.25])
    blurred = functional.conv2d(
        functional.pad(sharp.permute(0, 3, 1, 2), (1, 1, 0, 0), mode="circular"), kernel.view(1, 1, 1, 3)
    ).permute(0, 2, 3, 1)
    along_rows = AcquisitionChange.between(old, blurred).gain.mean(dim=(0, 2))
    frequency = torch.arange(SIDE // 2 + 1) / SIDE
    transfer = (1 + torch.cos(2 * torch.pi * frequency)) / 2  # of (¼, ½, ¼): cos²(π f)
    tone = along_rows[1] / transfer[1]  # less contrast is a tone curve's matter as well
    assert torch.allclose(along_rows[2:-2] / tone, transfer[2:-2], atol=0.12)


def test_more_light_on_one_side_is_found() -> None:
    old, new = _smooth_images(400, 0) * 0.6, _smooth_images(400, 1) * 0.6
    slope = torch.linspace(-0.15, 0.15, SIDE)[None, None, :, None]
    field = AcquisitionChange.between(old, new + 0.2 + slope).field[:, :, 0].mean(dim=0)
    assert field[-4:].mean() - field[:4].mean() > 0.15


def test_the_same_seed_gives_the_same_images() -> None:
    old, new = _smooth_images(20, 0), _smooth_images(20, 1) ** 0.5
    change = AcquisitionChange.between(old, new)
    first, second = (change.applied(old, _generator()) for _ in range(2))
    assert torch.equal(first, second)


def test_one_image_of_each_is_enough_to_say_something() -> None:
    shown = AcquisitionChange.between(_smooth_images(1, 0), _smooth_images(1, 1)).applied(
        _smooth_images(2, 2), _generator()
    )
    assert shown.shape == (2, SIDE, SIDE, 1)
    assert 0 <= shown.min() <= shown.max() <= 1


def _answers(margins: list[float], label: int) -> tuple[Tensor, Tensor]:
    logits = torch.zeros(len(margins), 2)
    logits[:, label] = torch.tensor(margins)
    return logits, torch.full((len(margins),), label)


@pytest.mark.parametrize(
    ("new_margins", "faithful"),
    [
        ([1.0, 2.0, 3.0, 4.0], True),
        ([2.0, 3.0, 4.0, 5.0], True),
        ([-9.0, -8.0, -7.0, -6.0], False),
        ([-9.0], True),  # one image is none to judge by
    ],
)
def test_restyled_images_are_distrusted_where_a_model_answers_them_otherwise(
    new_margins: list[float], faithful: bool
) -> None:
    shown = _answers([1.0, 2.0, 3.0, 4.0], label=1)
    assert is_faithful(*shown, *_answers(new_margins, label=1)) is faithful
