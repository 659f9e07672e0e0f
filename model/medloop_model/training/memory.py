"""Labelled images kept for rehearsal, each under its id, within a bound in bytes.

Shapes: B examples · H, W rows, columns · C channels · D embedding · N classes of the base model
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from medloop_model.training.eviction import kept

_TENSORS = ("images", "labels", "answers", "embeddings")


@dataclass(frozen=True, eq=False)
class Memory:
    """Examples, oldest first: all that are remembered, or some drawn from them. Never changed in place.

    Args:
        ids: of the images, each once; drawn ones may repeat.
        domains: what each image comes from.
        images: uint8 (B, H, W, C).
        labels: int64 (B,).
        answers: the base model's logits, float32 (B, N); N is 0 where nothing asks for them.
        embeddings: the frozen backbone's, float32 (B, D); D is 0 where the backbone moves.
    """

    ids: tuple[str, ...]
    domains: tuple[str, ...]
    images: Tensor
    labels: Tensor
    answers: Tensor
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def label_of(self) -> Mapping[str, int]:
        """Each image's label."""
        return dict(zip(self.ids, self.labels.tolist(), strict=True))

    @property
    def pixels(self) -> Tensor:
        """The images as the network takes them: float32 (B, H, W, C) in [0, 1]."""
        return self.images.float() / 255

    def draw(self, count: int, generator: torch.Generator) -> Memory:
        """`count` examples with replacement; none if there are none.

        Every class present is equally likely, and within a class every domain that shows it, however many
        examples of it are left.
        """
        if not len(self) or not count:
            return self.at(self.labels[:0])
        return self.at(torch.multinomial(self._evenness, count, replacement=True, generator=generator))

    @cached_property
    def _evenness(self) -> Tensor:
        """How likely each example is to be drawn, in shares of its class."""
        seen_together = Counter(zip(self.labels.tolist(), self.domains, strict=True))
        domains_with = Counter(label for label, _ in seen_together)
        return torch.tensor(
            [
                1 / (domains_with[label] * seen_together[label, domain])
                for label, domain in zip(self.labels.tolist(), self.domains, strict=True)
            ],
            dtype=torch.float64,
        )

    def at(self, places_B: Tensor) -> Memory:
        """The examples at some places, int64, or where a mask of bools is True."""
        if places_B.dtype == torch.bool:
            places_B = places_B.nonzero()[:, 0]
        chosen = places_B.tolist()
        return Memory(
            tuple(self.ids[place] for place in chosen),
            tuple(self.domains[place] for place in chosen),
            *(getattr(self, name)[places_B] for name in _TENSORS),
        )

    def joined(self, later: Memory) -> Memory:
        """Own examples, then others."""
        return Memory(
            self.ids + later.ids,
            self.domains + later.domains,
            *(torch.cat([getattr(self, name), getattr(later, name)]) for name in _TENSORS),
        )

    def relabelled(self, labels: Mapping[str, int]) -> Memory:
        """The same images, with other labels for some ids; ids that aren't here are passed over."""
        told = [labels.get(image_id, label) for image_id, label in self.label_of.items()]
        return replace(self, labels=torch.tensor(told, dtype=torch.int64))

    def latest_domain(self) -> Memory:
        """The examples of the domain that the last one comes from."""
        return self.of_domain(self.domains[-1] if self.domains else "")

    def of_domain(self, name: str) -> Memory:
        """The examples that come from one domain."""
        return self.at(torch.tensor([domain == name for domain in self.domains], dtype=torch.bool))

    def of(self, ids: Collection[str]) -> Memory:
        """The examples of some images."""
        return self.at(torch.tensor([image_id in ids for image_id in self.ids], dtype=torch.bool))

    def within(self, most_bytes: int) -> Memory:
        """What stays of it when its tensors may take no more than `most_bytes`; `eviction.kept` chooses."""
        capacity = most_bytes // self.example_bytes
        if len(self) <= capacity:
            return self
        return self.at(torch.tensor(kept(self.domains, self.labels.tolist(), capacity), dtype=torch.int64))

    @property
    def example_bytes(self) -> int:
        """Bytes of one example's tensors."""
        tensors: list[Tensor] = [getattr(self, name) for name in _TENSORS]
        return sum(math.prod(tensor.shape[1:]) * tensor.element_size() for tensor in tensors)

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, the texts as UTF-8 of a JSON list."""
        texts = {"ids": _text_tensor(self.ids), "domains": _text_tensor(self.domains)}
        return texts | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Memory:
        """Inverse of `to_tensors`.

        Raises:
            KeyError, ValueError: a tensor is missing, or holds something else.
        """
        return cls(_texts(tensors["ids"]), _texts(tensors["domains"]), *(tensors[name] for name in _TENSORS))


def _text_tensor(texts: tuple[str, ...]) -> Tensor:
    return torch.tensor(list(json.dumps(texts).encode()), dtype=torch.uint8)


def _texts(tensor: Tensor) -> tuple[str, ...]:
    return tuple(json.loads(bytes(tensor.tolist())))
