"""Serving: images in, predictions out, each by the version that its device is released for.

Shapes: B images of one version, k classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from medloop_model.engine import EngineOutput
from medloop_model.statistics import moved_by_one_pixel, softmax
from medloop_schemas import (
    BlockActivation,
    Event,
    Frame,
    ImageAcquired,
    InvalidEvent,
    PredictionMade,
    ReleaseChanged,
    ServingStage,
)
from numpy.typing import NDArray

from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.inference.account import Account
from medloop_services.inference.models import Model, ModelShelf
from medloop_services.inference.withholding import WITHHELD, Withholding

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Assignment:
    """An image, ready for the model that serves it; `place` is its position in the batch."""

    place: int
    image: ImageAcquired
    pixels: Pixels
    release: ReleaseChanged
    stage: ServingStage
    model: Model
    withheld: bool


@dataclass(frozen=True, slots=True)
class Server:
    """The map from images to predictions.

    Attributes:
        catalog: who is served by what.
        shelf: the models.
        pixels_of: decodes or fetches a frame.
        batch_images: images in one forward pass, at most.
        account: told what serves each image.
        withholding: whose predictions are made to be measured, and not to be acted on.
    """

    catalog: ReleaseCatalog
    shelf: ModelShelf
    pixels_of: Callable[[Frame], Pixels]
    batch_images: int
    account: Account = field(default_factory=Account)
    withholding: Withholding = field(default_factory=Withholding)

    def predict(self, events: Sequence[Event]) -> list[Sequence[Event] | InvalidEvent]:
        """Return, for each image, its prediction or why it can't be served.

        Raises:
            TransientError: a store is away, or no model can be loaded.
        """
        results: list[Sequence[Event] | InvalidEvent] = [()] * len(events)
        batches: dict[str, list[Assignment]] = {}
        for place, event in enumerate(events):
            try:
                assigned = self._assign(place, event)
            except InvalidEvent as reason:
                results[place] = reason
            else:
                batches.setdefault(assigned.release.version, []).append(assigned)
        for batch in batches.values():
            for start in range(0, len(batch), self.batch_images):
                for assigned, prediction in _served(batch[start : start + self.batch_images]):
                    results[assigned.place] = (prediction,)
        return results

    def _assign(self, place: int, event: Event) -> Assignment:
        if not isinstance(event, ImageAcquired):
            raise InvalidEvent("type", "", f"inference serves images, not {type(event).__name__}")
        released = self.catalog.serving(event.site_id, event.device_id)
        if released is None:
            raise InvalidEvent(
                "site",
                "site_id",
                f"no model is released at site {event.site_id!r}: add it to MEDLOOP_PUBLISHER_SITES",
            )
        wanted, stage = released
        chosen = self.shelf.serving(wanted)
        release, model = chosen.release, chosen.model
        pixels = self.pixels_of(event.frame)
        if pixels.shape != model.image_shape:
            raise InvalidEvent(
                "shape",
                "frame",
                f"an image of shape {pixels.shape} does not fit the model's {model.image_shape}",
            )
        self.account.served(event, wanted, stage, chosen)
        if self.catalog.canary(event.site_id) is None:
            self.account.without_canary(event.site_id)
        served_as = stage if release is wanted else ServingStage.STABLE
        withheld = self.withholding.withholds(event.site_id, event.device_id)
        if withheld:
            WITHHELD.labels(event.device_id).inc()
        return Assignment(place, event, pixels, release, served_as, model, withheld)


def _served(batch: Sequence[Assignment]) -> Iterator[tuple[Assignment, PredictionMade]]:
    model = batch[0].model
    images = np.stack([assigned.pixels for assigned in batch])
    output = model.run(images)
    moved = softmax(model.run(moved_by_one_pixel(images)).logits)
    probabilities = softmax(output.logits)
    for row, assigned in enumerate(batch):
        yield assigned, _prediction(assigned, output, probabilities, moved, row)


def _prediction(
    assigned: Assignment,
    output: EngineOutput,
    probabilities_BK: NDArray[np.float32],
    moved_BK: NDArray[np.float32],
    row: int,
) -> PredictionMade:
    image, release = assigned.image, assigned.release
    return PredictionMade(
        time=image.time,
        image_id=image.image_id,
        device_id=image.device_id,
        site_id=image.site_id,
        sequence=image.sequence,
        model_version=release.version,
        model_digest=release.package.sha256,
        stage=assigned.stage,
        classes=assigned.model.classes,
        predicted_class=int(output.logits[row].argmax()),
        probabilities=tuple(probabilities_BK[row].tolist()),
        logits=tuple(output.logits[row].tolist()),
        augmented_probabilities=tuple(moved_BK[row].tolist()),
        embedding=tuple(output.embedding[row].tolist()),
        blocks=tuple(
            BlockActivation(mean=mean, spread=spread, saturated=saturated, dead=dead)
            for mean, spread, saturated, dead in output.blocks[row].tolist()
        ),
        withheld=assigned.withheld,
    )
