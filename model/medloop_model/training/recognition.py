"""Which images come from one scanner: one that is repaired, or moved back, is no new one.

A scanner is told by what it does to every image, whoever is on it: how light images are, how much light
varies over an image, and how its power is spread over spatial frequencies. Two sets of images come from one
scanner if, within a class, none of these differs in its mean by much of what patients differ by.

Shape suffixes: B batch · H, W rows, columns · F frequencies along a row · C channels · T traits
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from medloop_model.training.memory import Memory

FARTHEST = 0.5
"""Between the means of one scanner's images, in standard deviations (Cohen's d)."""

BANDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
"""Edges of the bands of spatial frequency, in cycles a pixel; the spectrum's corners lie at 0.7."""

_FAINTEST = 1e-3
"""Added before a logarithm is taken of a deviation or a power: a quarter of a grey level."""


def recognised(memory: Memory) -> Memory:
    """The same examples; those of a domain that looks like an earlier one bear the earlier one's name."""
    known: dict[str, str] = {}
    for name in dict.fromkeys(memory.domains):
        known[name] = _first_alike(memory.of_domain(name), memory, known.values()) or name
    return replace(memory, domains=tuple(known[name] for name in memory.domains))


def returned(new: Memory, old: Memory) -> Memory:
    """New examples under the name of the old domain that they look like; none if they look like none."""
    name = _first_alike(new, old, old.domains)
    return new.at(new.labels[:0]) if name is None else replace(new, domains=(name,) * len(new))


def _first_alike(new: Memory, old: Memory, names: Iterable[str]) -> str | None:
    alike = (name for name in dict.fromkeys(names) if is_same_scanner(old.of_domain(name), new))
    return next(alike, None)


def is_same_scanner(one: Memory, other: Memory) -> bool:
    """Whether two sets of images may come from one scanner; without a class in common nothing says so.

    The difference of a trait's means, taken within each class and averaged, is compared with the trait's
    standard deviation: it may be `FARTHEST` of them, and two standard errors.
    """
    differences, variances, errors = [], [], []
    for label in sorted({*one.labels.tolist()} & {*other.labels.tolist()}):
        mine_BT, theirs_BT = (traits(each.at(each.labels == label).pixels) for each in (one, other))
        if min(len(mine_BT), len(theirs_BT)) < 2:
            continue
        differences.append(mine_BT.mean(dim=0) - theirs_BT.mean(dim=0))
        variances.append((mine_BT.var(dim=0) + theirs_BT.var(dim=0)) / 2)
        errors.append(1 / len(mine_BT) + 1 / len(theirs_BT))
    if not differences:
        return False
    spread_T = torch.stack(variances).mean(dim=0).sqrt().clamp(min=1e-6)
    distance_T = torch.stack(differences).mean(dim=0).abs() / spread_T
    error = sum(errors) ** 0.5 / len(errors)
    return bool((distance_T <= FARTHEST + 2 * error).all())


def traits(pixels_BHWC: Tensor) -> Tensor:
    """What a scanner leaves on each image (B, T): per channel its mean, and logarithms of the rest.

    Of the bands both the power and the ratio of neighbours are taken. Ratios vary less from patient to
    patient, and so tell fine blur; power tells noise.

    Args:
        pixels_BHWC: float32 in [0, 1].
    """
    mean_BC = pixels_BHWC.mean(dim=(1, 2))
    deviation_BC = pixels_BHWC.flatten(1, 2).std(dim=1, correction=0)
    bands = _band_powers(pixels_BHWC - mean_BC[:, None, None])
    logs = [(each + _FAINTEST).log() for each in (deviation_BC, *bands)]
    ratios = [finer - coarser for coarser, finer in pairwise(logs[1:])]
    return torch.cat([mean_BC, *logs, *ratios], dim=1)


def _band_powers(centred_BHWC: Tensor) -> list[Tensor]:
    """Mean power of each band, (B, C); none in a band that so small an image lacks."""
    height, width = centred_BHWC.shape[1:3]
    power_BHFC = torch.fft.rfft2(centred_BHWC, dim=(1, 2)).abs().square()
    frequency_HF = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    inside = [(frequency_HF > low) & (frequency_HF <= high) for low, high in pairwise(BANDS)]
    return [power_BHFC[:, band_HF].sum(dim=1) / band_HF.sum().clamp(min=1) for band_HF in inside]
