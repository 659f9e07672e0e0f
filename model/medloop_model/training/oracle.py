"""The oracle: the same network trained offline on everything, to measure an adaptation against."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from medloop_model.checkpoint import ModelPackage
from medloop_model.training.discriminant import place_head
from medloop_model.training.export import export_package, network_from
from medloop_model.training.head import expand_head
from medloop_model.training.images import augment, draw_balanced, to_labels, to_pixels, usual_bounds
from medloop_model.training.pretraining import Images, Labels, fit, label_loss
from medloop_model.training.transplant import transplant


@dataclass(frozen=True)
class OracleSettings:
    """How the oracle is trained: `steps` of `batch_size` images under AdamW, all parameters moving.

    Its augmentation is as strong as a streaming learner's. On slides it knows what such a learner knows: each
    old image is transplanted `transplants` times, and `discriminant_images` of each domain place the head.
    """

    steps: int = 250
    batch_size: int = 64
    learning_rate: float = 1e-3
    augmentation: float = 0.5
    transplants: int = 4
    discriminant_images: int = 128
    shrinkage: float = 0.3
    seed: int = 0
    threads: int = 1


def train_oracle(
    package: ModelPackage,
    old: tuple[Images, Labels],
    new: tuple[Images, Labels],
    classes: tuple[str, ...],
    settings: OracleSettings,
) -> ModelPackage:
    """Train the deployed model offline on labelled images, with equal shares of both domains in a batch.

    Args:
        package: the deployed model with its latent weights.
        old: images and labels of the old domain; empty where old labels no longer hold.
        new: images and labels of the new domain, as many as there are.
        classes: the model's classes, then new ones.
        settings: how.

    Returns:
        A package without Fisher information.

    Raises:
        ShapeError: images, labels or classes don't fit the model.
    """
    torch.set_num_threads(settings.threads)
    network = expand_head(network_from(package), classes)
    bounds = usual_bounds(network.architecture)
    domains = [
        (to_pixels(images, network.architecture), to_labels(labels, network.architecture))
        for images, labels in (old, new)
        if len(labels)
    ]
    generator = torch.Generator().manual_seed(settings.seed)
    if on_slides := bounds.stained and len(domains) > 1:
        (old_BHWC, labels_B), (new_BHWC, _) = domains
        repeated_BHWC = old_BHWC.repeat(settings.transplants, 1, 1, 1)
        domains.append(
            (transplant(repeated_BHWC, new_BHWC, generator), labels_B.repeat(settings.transplants))
        )
    fit(
        network,
        domains,
        label_loss(network),
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        warm_up=0.08,
        seed=settings.seed,
        augmentation=settings.augmentation,
        bounds=bounds,
    )
    if on_slides:
        drawn = [
            (pixels_BHWC[batch], labels_B[batch])
            for pixels_BHWC, labels_B in domains
            for batch in [draw_balanced(labels_B, settings.discriminant_images, generator)]
        ]
        varied = [(augment(x, generator, settings.augmentation, bounds), y) for x, y in drawn]
        place_head(network, varied, settings.shrinkage)
    return export_package(network, {"oracle": True, "seed": settings.seed, "steps": settings.steps})
