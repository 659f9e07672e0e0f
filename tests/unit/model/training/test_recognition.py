from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from medloop_model.training.memory import Memory
from medloop_model.training.recognition import is_same_scanner, recognised, returned, traits

SIDE = 16


def memory(domain: str, pixels_BHWC: torch.Tensor, first_label: int = 0) -> Memory:
    count = len(pixels_BHWC)
    return Memory(
        ids=tuple(f"{domain}-{number}" for number in range(count)),
        domains=(domain,) * count,
        images=(pixels_BHWC.clamp(0, 1) * 255).round().to(torch.uint8),
        labels=first_label + torch.arange(count) % 2,
        answers=torch.zeros(count, 0),
        embeddings=torch.zeros(count, 0),
    )


def patients(seed: int, count: int = 40) -> torch.Tensor:
    """Images that differ in brightness, contrast and pattern, and by class."""
    draw = torch.Generator().manual_seed(seed)
    light, contrast = torch.rand(2, count, 1, 1, 1, generator=draw)
    pattern = torch.randn(count, SIDE, SIDE, 1, generator=draw)
    a_class = (torch.arange(count) % 2).view(-1, 1, 1, 1)
    return 0.3 + 0.1 * light + 0.1 * a_class + (0.05 + 0.05 * contrast) * pattern


def soft(pixels_BHWC: torch.Tensor) -> torch.Tensor:
    return (pixels_BHWC + pixels_BHWC.roll(1, dims=1) + pixels_BHWC.roll(1, dims=2)) / 3


def noisy(pixels_BHWC: torch.Tensor) -> torch.Tensor:
    return pixels_BHWC + 0.1 * torch.randn(pixels_BHWC.shape, generator=torch.Generator().manual_seed(9))


CHANGES = {
    "brighter": lambda x: x + 0.2,
    "flatter": lambda x: 0.35 + 0.4 * (x - 0.35),
    "soft": soft,
    "noisy": noisy,
}


@pytest.mark.parametrize(("count", "least"), [(12, 40), (24, 48), (60, 50)])
def test_other_patients_on_one_scanner_are_recognised(count: int, least: int) -> None:
    """A dozen images may mislead, seldom; these are fifty pairs drawn once and for all."""
    pairs = [(patients(seed, count), patients(50 + seed, count)) for seed in range(50)]
    assert sum(is_same_scanner(memory("home", one), memory("again", other)) for one, other in pairs) >= least


@pytest.mark.parametrize("change", CHANGES)
def test_another_scanner_is_told_though_it_shows_the_same_patients(change: str) -> None:
    home, there = memory("home", patients(0)), memory("there", CHANGES[change](patients(0)))
    assert not is_same_scanner(home, there)
    assert not is_same_scanner(there, home)


def test_other_shares_of_the_classes_make_no_other_scanner() -> None:
    home, ill = memory("home", patients(0)), memory("ill", patients(1))
    mostly_ill = ill.at(torch.cat([torch.arange(1, 40, 2), torch.arange(0, 8, 2)]))
    assert is_same_scanner(home, mostly_ill)


def test_of_other_classes_nothing_says_that_the_scanner_is_known() -> None:
    assert not is_same_scanner(memory("home", patients(0)), memory("other", patients(0), first_label=2))
    nobody = memory("nobody", patients(0)[:0])
    assert not is_same_scanner(memory("home", patients(0)), nobody)


def test_a_scanner_that_came_back_has_one_name() -> None:
    visits = [
        memory("home", patients(0)),
        memory("soft", soft(patients(1))),
        memory("home again", patients(2)),
        memory("soft again", soft(patients(3))),
        memory("noisy", noisy(patients(4))),
    ]
    every = visits[0]
    for visit in visits[1:]:
        every = every.joined(visit)
    named = recognised(every)
    assert named.ids == every.ids
    assert list(dict.fromkeys(named.domains)) == ["home", "soft", "noisy"]
    assert [named.domains[40 * visit] for visit in range(5)] == ["home", "soft", "home", "soft", "noisy"]


def test_new_images_are_named_as_the_scanner_that_they_come_back_to() -> None:
    old = memory("home", patients(0)).joined(memory("soft", soft(patients(1))))
    new = memory("", patients(2)[:16])
    assert returned(new, old).domains == ("home",) * 16
    assert returned(new, old).ids == new.ids
    assert returned(memory("", soft(patients(2))[:16]), old).domains == ("soft",) * 16
    assert len(returned(memory("", noisy(patients(2))[:16]), old)) == 0
    assert len(returned(new, new.at(new.labels[:0]))) == 0


def test_nothing_is_recognised_in_nothing() -> None:
    assert len(recognised(memory("home", patients(0)[:0]))) == 0


def test_traits_are_those_of_a_wave_of_one_frequency() -> None:
    along = torch.arange(SIDE) * 2 * math.pi / SIDE
    wave = 0.5 + 0.2 * torch.cos(4 * along).expand(1, SIDE, SIDE)[..., None]  # 4 / 16 of a cycle a pixel
    mean, deviation, *bands = traits(wave)[0].tolist()
    powers = bands[:6]
    assert mean == pytest.approx(0.5)
    assert deviation == pytest.approx(math.log(0.2 / math.sqrt(2) + 1e-3), abs=1e-4)
    # A cosine of amplitude a has |FFT| = a·N/2 at its frequency; the band has 27 frequencies of a real FFT.
    assert powers.index(max(powers)) == 2
    assert bands[6:] == pytest.approx([b - a for a, b in pairwise(powers)], abs=1e-5)
