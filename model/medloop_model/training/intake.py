"""What a batch becomes on its way in: each image once, with its last label and what is asked of it only once.

Shape suffixes: B batch · H, W rows, columns · C channels · D embedding · N classes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medloop_model.architecture import Architecture
from medloop_model.engine import Engine
from medloop_model.fitting import fitting_images
from medloop_model.training.batch import Batch
from medloop_model.training.images import to_labels
from medloop_model.training.memory import Memory


@dataclass(frozen=True, eq=False)
class Intake:
    """Makes examples of batches.

    Args:
        base: the model that is adapted, packed.
        architecture: of the network that learns, which may have more classes.
        embeds: whether embeddings are kept, since the backbone stays as it is.
        answers: whether the base's logits are kept, since old labels are judged by them.
    """

    base: Engine
    architecture: Architecture
    embeds: bool
    answers: bool

    def examples(self, batch: Batch) -> Memory:
        """A batch's images, without augmentation.

        Raises:
            ShapeError: images or labels don't fit the architecture.
        """
        images_BHWC = fitting_images(batch.images, self.architecture)
        labels_B = to_labels(batch.labels, self.architecture)
        embeddings_BD, answers_BN = self._recalled(images_BHWC)
        last = {image_id: place for place, image_id in enumerate(batch.ids)}
        return Memory(
            ids=batch.ids,
            domains=batch.domains or ("",) * len(batch),
            images=torch.from_numpy(images_BHWC),
            labels=labels_B,
            answers=answers_BN,
            embeddings=embeddings_BD,
        ).at(torch.tensor(sorted(last.values()), dtype=torch.int64))

    def nothing(self) -> Memory:
        """No example."""
        side, channels = self.architecture.image_size, self.architecture.channels
        return self.examples(Batch(np.zeros((0, side, side, channels), np.uint8), np.zeros(0, np.int64), ()))

    def _recalled(self, images_BHWC: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Embeddings and answers; of width 0 where they aren't kept."""
        unasked_B0 = torch.zeros(len(images_BHWC), 0)
        if not (self.embeds or self.answers):
            return unasked_B0, unasked_B0
        output = self.base(images_BHWC)
        return (
            torch.from_numpy(output.embedding) if self.embeds else unasked_B0,
            torch.from_numpy(output.logits) if self.answers else unasked_B0,
        )
