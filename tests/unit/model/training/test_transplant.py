from __future__ import annotations

import torch
from medloop_model.training.transplant import transplant

SIDE = 32


def cells(count: int, cell: float, background: float, radius: float = 0.5) -> torch.Tensor:
    """A round nucleus in the middle, with a dark bar across it that tells it from others."""
    place = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    inside = torch.hypot(place[:, None], place[None]) < radius
    image = torch.where(inside, cell, background)
    image[SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 4 : -SIDE // 4] = cell / 2
    return image[None, ..., None].repeat(count, 1, 1, 3)


def test_the_surroundings_are_the_new_ones_and_the_middle_is_the_old_cell() -> None:
    draw = torch.Generator().manual_seed(0)
    old = cells(16, 0.4, 0.9)
    new = 0.5 + 0.1 * torch.rand(1, SIDE, SIDE, 3, generator=draw)
    made = transplant(old, new, draw)
    corner = slice(0, 5)
    assert torch.equal(made[:, corner, corner], new[:, corner, corner].expand(16, -1, -1, -1))
    bar = made[:, SIDE // 2, SIDE // 2]
    beside = made[:, SIDE // 2 - 4, SIDE // 2]
    assert (bar < beside - 0.01).all()


def test_the_cell_takes_the_stain_that_was_there() -> None:
    draw = torch.Generator().manual_seed(0)
    new = cells(1, 0.6, 0.8) * torch.tensor([0.9, 0.5, 0.7])
    made = transplant(cells(64, 0.4, 0.9), new, draw)
    middle = slice(SIDE // 2 - 5, SIDE // 2 + 5)
    found, wanted = (x[:, middle, middle].mean(dim=(0, 1, 2)) for x in (made, new))
    torch.testing.assert_close(found, wanted, rtol=0.15, atol=0.0)


def test_cells_get_smaller_by_different_shares() -> None:
    old = cells(64, 0.2, 0.9)
    made = transplant(old, cells(1, 0.2, 0.9, radius=0.3), torch.Generator().manual_seed(0))

    def dark(pixels: torch.Tensor) -> torch.Tensor:
        return (pixels[..., 0] < 0.5).sum(dim=(1, 2)).float()

    share = (dark(made) / dark(old)).sqrt()
    assert share.min() > 0.5
    assert share.max() < 1.0
    assert share.std() > 0.03


def test_one_seed_gives_the_same_images_within_bounds_and_none_gives_none() -> None:
    pixels = torch.rand(5, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1))
    first, second = (transplant(pixels, pixels, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, transplant(pixels, pixels, torch.Generator().manual_seed(8)))
    assert len(transplant(pixels[:0], pixels[:0], torch.Generator())) == 0
