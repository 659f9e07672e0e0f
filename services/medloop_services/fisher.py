"""`medloop fisher`: how much each weight of a model matters on representative images, as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from medloop_model.checkpoint import load_package
from medloop_model.fisher_file import FisherOrigin, save_fisher
from medloop_model.training.ewc import fisher_diagonal, normalise_fisher
from medloop_model.training.export import network_from
from medloop_model.training.images import to_pixels

from medloop_services.replay.split import Pixels, Split


def representative_images(images: Split, count: int, seed: int) -> Pixels:
    """Return images drawn without replacement, all of them if there are fewer; labels are not looked at."""
    return images.images[np.random.default_rng(seed).permutation(len(images))[:count]]


def measure_fisher(
    model: Path,
    images: Pixels,
    origin: FisherOrigin,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Measure a package's Fisher information and write it to a file.

    Args:
        model: the package; the file will hold for it alone.
        images: what it should stay good at; (N, H, W) or (N, H, W, 3) uint8.
        origin: goes into the file.
        out: the file.
        progress: told about images done and images in all.

    Returns:
        The file's SHA-256 in hex: the same for the same package, images and origin on one processor type.

    Raises:
        ShapeError: the images don't fit the model, or there are none.
        ModelError: the package can't be used.
    """
    torch.set_num_threads(1)  # another number may round differently
    package = load_package(model, parts=("latent",), expected_sha256=origin.base_sha256)
    pixels_BHWC = to_pixels(images, package.architecture)
    generator = torch.Generator().manual_seed(origin.seed)
    fisher = normalise_fisher(fisher_diagonal(network_from(package), pixels_BHWC, generator, progress))
    return save_fisher(package, {name: tensor.numpy() for name, tensor in fisher.items()}, origin, out)
