"""What a batch becomes on its way in: each image once, with its last label and what is asked of it only once.

Shape suffixes: B batch · H, W rows, columns · C channels · D embedding · N classes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medloop_model.architecture import Architecture
from medloop_model.network import BiTMedViT
from medloop_model.training.batch import Batch
from medloop_model.training.images import to_labels, to_pixels
from medloop_model.training.memory import Memory

_RUN_AT_ONCE = 64  # images; so many fit beside anything


@dataclass(frozen=True, eq=False)
class Intake:
    """Makes examples of batches.

    Args:
        base: the model that is adapted.
        architecture: of the network that learns, which may have more classes.
        embeds: whether embeddings are kept, since the backbone stays as it is.
        answers: whether the base's logits are kept, since old labels are judged by them.
    """

    base: BiTMedViT
    architecture: Architecture
    embeds: bool
    answers: bool

    def examples(self, batch: Batch) -> Memory:
        """A batch's images, without augmentation.

        Raises:
            ShapeError: images or labels don't fit the architecture.
        """
        pixels_BHWC = to_pixels(batch.images, self.architecture)
        labels_B = to_labels(batch.labels, self.architecture)
        embeddings_BD, answers_BN = self._recalled(pixels_BHWC)
        last = {image_id: place for place, image_id in enumerate(batch.ids)}
        return Memory(
            ids=batch.ids,
            domains=batch.domains or ("",) * len(batch),
            images=torch.from_numpy(np.ascontiguousarray(batch.images)).view_as(pixels_BHWC),
            labels=labels_B,
            answers=answers_BN,
            embeddings=embeddings_BD,
        ).at(torch.tensor(sorted(last.values()), dtype=torch.int64))

    def nothing(self) -> Memory:
        """No example."""
        side, channels = self.architecture.image_size, self.architecture.channels
        return self.examples(Batch(np.zeros((0, side, side, channels), np.uint8), np.zeros(0, np.int64), ()))

    @torch.no_grad()
    def _recalled(self, pixels_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and answers; of width 0 where they aren't kept."""
        unasked_B0 = pixels_BHWC.new_zeros(len(pixels_BHWC), 0)
        parts = torch.split(pixels_BHWC, _RUN_AT_ONCE)
        return (
            torch.cat([self.base.embed(part) for part in parts]) if self.embeds else unasked_B0,
            torch.cat([self.base(part) for part in parts]) if self.answers else unasked_B0,
        )
