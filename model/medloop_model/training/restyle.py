"""Old images as the new scanner would show them: labels of the old domain that teach the new one.

A dozen images tell how a scanner's images differ, long before they tell what the classes look like on it.
Three things are measured, each on what the ones before explain already: the tone curve, by matching the
quantiles of smoothed images, which know neither noise nor fine blur (Gonzalez & Woods, Digital Image
Processing, §3.3); the light field, by the difference of the mean images; and the power spectrum, where less
power is blur, a gain below 1, and more power is noise, of that spectrum and a random phase. Exchanging
spectra between domains follows Yang & Soatto, Fourier Domain Adaptation (arXiv 2004.05498).

A change that is none of these (black for white, another organ) would make them teach wrong things: then a
model answers restyled images otherwise than it answers new ones of the same class, and `is_faithful` says so.

Shape suffixes: B batch · H, W rows, columns · C channels · F frequencies along a row · K knots · N classes
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

KNOTS = 33
"""Of the tone curve, at even steps of the old images' quantiles."""
STEEPEST = 8.0
"""Slope of the tone curve: where old greys are rare, two knots nearly coincide."""
SMOOTHING = 1.2 / 28
"""Standard deviation of what the tone curve is measured on, in sides of the image."""
FIELD_SMOOTHING = 4 / 28
"""And of the light field, which is no patient's outline."""
FIELD_DOUBT = 16
"""Images whose mean says as little of the light field as having none: it is shrunk so."""

FARTHEST = 1.0
"""Of the answers to restyled images from those to new ones, in standard deviations."""


@dataclass(frozen=True)
class AcquisitionChange:
    """How the new images differ from the old ones, whatever they show.

    Args:
        old_greys, new_greys: the tone curve (K, C): old greys, increasing, and the new ones they become.
        field: light added, by place (H, W, C).
        gain: amplitude kept, by spatial frequency (H, F, C) of a real FFT.
        noise: amplitude of the noise that comes on top, likewise.
    """

    old_greys: Tensor
    new_greys: Tensor
    field: Tensor
    gain: Tensor
    noise: Tensor

    @classmethod
    def between(cls, old_BHWC: Tensor, new_BHWC: Tensor) -> AcquisitionChange:
        """Measure the change between two sets of images that show the same classes equally often.

        Args:
            old_BHWC, new_BHWC: float32 in [0, 1], at least one of each; a dozen say something.
        """
        old_KC, new_KC = _tone_curve(old_BHWC, new_BHWC)
        toned_BHWC = _toned(old_BHWC, old_KC, new_KC)
        trust = len(new_BHWC) / (len(new_BHWC) + FIELD_DOUBT)
        difference_1HWC = (new_BHWC.mean(dim=0) - toned_BHWC.mean(dim=0))[None]
        old_power_HFC, new_power_HFC = _power(toned_BHWC), _power(new_BHWC)
        return cls(
            old_greys=old_KC,
            new_greys=new_KC,
            field=trust * _smoothed(difference_1HWC, FIELD_SMOOTHING)[0],
            gain=(new_power_HFC / old_power_HFC.clamp(min=1e-9)).clamp(max=1).sqrt(),
            noise=(new_power_HFC - old_power_HFC).clamp(min=0).sqrt(),
        )

    def applied(self, pixels_BHWC: Tensor, generator: torch.Generator) -> Tensor:
        """Old images as the new scanner would show them, in [0, 1]; each draws its own noise."""
        height, width = pixels_BHWC.shape[1:3]
        lit_BHWC = _toned(pixels_BHWC, self.old_greys, self.new_greys) + self.field
        mean_B11C = lit_BHWC.mean(dim=(1, 2), keepdim=True)
        spectrum_BHFC = torch.fft.rfft2(lit_BHWC - mean_B11C, dim=(1, 2)) * self.gain
        white_BHWC = torch.randn(pixels_BHWC.shape, generator=generator)
        # White noise of deviation 1 has power H·W at every frequency.
        noise_BHFC = torch.fft.rfft2(white_BHWC, dim=(1, 2)) * self.noise / (height * width) ** 0.5
        shown_BHWC = torch.fft.irfft2(spectrum_BHFC + noise_BHFC, s=(height, width), dim=(1, 2)) + mean_B11C
        limited_BHWC: Tensor = shown_BHWC.clamp(0, 1)
        return limited_BHWC


def is_faithful(shown_BN: Tensor, shown_labels_B: Tensor, new_BN: Tensor, new_labels_B: Tensor) -> bool:
    """Whether a model answers restyled images as it answers new ones of the same class.

    A class's margin is its logit less the log-sum-exp of the others'. Its mean over restyled images may lie
    `FARTHEST` standard deviations (Cohen's d) from that over new ones, and two standard errors more.

    Args:
        shown_BN, shown_labels_B: a model's logits of restyled images, and their classes, int64.
        new_BN, new_labels_B: of new ones.

    Returns:
        True too where no class has two of each.
    """
    for label in range(shown_BN.shape[1]):
        shown_B, new_B = (
            _margin(logits_BN[labels_B == label], label)
            for logits_BN, labels_B in ((shown_BN, shown_labels_B), (new_BN, new_labels_B))
        )
        if min(len(shown_B), len(new_B)) < 2:
            continue
        spread = ((shown_B.var() + new_B.var()) / 2).sqrt().clamp(min=1e-6)
        error = (1 / len(shown_B) + 1 / len(new_B)) ** 0.5
        if (shown_B.mean() - new_B.mean()).abs() > (FARTHEST + 2 * error) * spread:
            return False
    return True


def _margin(logits_BN: Tensor, label: int) -> Tensor:
    others = [place for place in range(logits_BN.shape[1]) if place != label]
    return logits_BN[:, label] - logits_BN[:, others].logsumexp(dim=1)


def _tone_curve(old_BHWC: Tensor, new_BHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles of smoothed old images and of smoothed new ones, a column a channel."""
    share_K = torch.linspace(0, 1, KNOTS)
    old_KC, new_KC = (
        torch.quantile(_smoothed(pixels_BHWC, SMOOTHING).flatten(0, 2), share_K, dim=0)
        for pixels_BHWC in (old_BHWC, new_BHWC)
    )
    return old_KC + torch.arange(KNOTS)[:, None] * 1e-5, new_KC  # strictly increasing


def _toned(pixels_BHWC: Tensor, old_KC: Tensor, new_KC: Tensor) -> Tensor:
    """The tone curve, linear between its knots and beyond the outer ones."""
    shown = []
    for pixels_BHW, old_K, new_K in zip(
        pixels_BHWC.unbind(dim=3), old_KC.unbind(dim=1), new_KC.unbind(dim=1), strict=True
    ):
        slope_K = (new_K.diff() / old_K.diff().clamp(min=1e-4)).clamp(0, STEEPEST)
        left_BHW = (torch.searchsorted(old_K.contiguous(), pixels_BHW.contiguous()) - 1).clamp(0, KNOTS - 2)
        shown.append(new_K[left_BHW] + (pixels_BHW - old_K[left_BHW]) * slope_K[left_BHW])
    return torch.stack(shown, dim=3)


def _power(pixels_BHWC: Tensor) -> Tensor:
    """Mean power by spatial frequency, (H, F, C), each value the mean of itself and its neighbours."""
    centred_BHWC = pixels_BHWC - pixels_BHWC.mean(dim=(1, 2), keepdim=True)
    power_CHF = torch.fft.rfft2(centred_BHWC, dim=(1, 2)).abs().square().mean(dim=0).permute(2, 0, 1)
    in_order_CHF = torch.fft.fftshift(power_CHF, dim=1)
    padded_CHF = functional.pad(in_order_CHF[None], (1, 1, 1, 1), mode="replicate")[0]
    mean_CHF: Tensor = torch.fft.ifftshift(functional.avg_pool2d(padded_CHF, 3, 1), dim=1)
    return mean_CHF.permute(1, 2, 0)


def _smoothed(pixels_BHWC: Tensor, spread: float) -> Tensor:
    """Blurred with a Gaussian of a standard deviation in sides of the image; the border is mirrored."""
    side = pixels_BHWC.shape[1]
    reach = min(round(3 * spread * side), side - 1)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / (spread * side)) ** 2)
    weight /= weight.sum()
    channels = pixels_BHWC.shape[3]
    padded_BCHW = functional.pad(pixels_BHWC.permute(0, 3, 1, 2), (reach,) * 4, mode="reflect")
    along_BCHW = functional.conv2d(padded_BCHW, weight.expand(channels, 1, 1, -1), groups=channels)
    both_BCHW = functional.conv2d(along_BCHW, weight[:, None].expand(channels, 1, -1, 1), groups=channels)
    return both_BCHW.permute(0, 2, 3, 1)
