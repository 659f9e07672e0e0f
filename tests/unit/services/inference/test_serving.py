from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from medloop_model.engine import EngineOutput
from medloop_model.errors import CorruptCheckpoint
from medloop_schemas import (
    Artifact,
    Event,
    Frame,
    ImageAcquired,
    InvalidEvent,
    LabelConfirmed,
    PredictionMade,
    ReleaseChanged,
    ReleaseStage,
    ServingStage,
    TransientError,
)
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.bus.frames import pixels_of
from medloop_services.bus.health import Health
from medloop_services.inference.account import Account
from medloop_services.inference.models import REFUSED, Model, ModelShelf
from medloop_services.inference.serving import Server
from numpy.typing import NDArray
from structlog.testing import capture_logs

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ("normal", "opacity")


def release(
    number: int,
    version: str,
    stage: ReleaseStage = ReleaseStage.STABLE,
    *,
    previous: str | None = None,
    devices: tuple[str, ...] = (),
    classes: tuple[str, ...] = CLASSES,
) -> ReleaseChanged:
    return ReleaseChanged(
        time=EPOCH,
        site_id="ward",
        number=number,
        version=version,
        stage=stage,
        package=Artifact(url=f"memory://{version}", sha256="ab" * 32, size=1),
        classes=classes,
        devices=devices,
        previous_version=previous,
        reason="a test",
    )


def image(sequence: int, device: str = "a", *, side: int = 2, site: str = "ward") -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH,
        image_id=f"{device}-{sequence}",
        device_id=device,
        site_id=site,
        study_id=f"study-{sequence}",
        sequence=sequence,
        frame=Frame.inline(bytes([sequence] * side * side), height=side, width=side),
    )


@dataclass
class Bench:
    """A server over models that answer with the image's first pixel, and over a store that may be away."""

    catalog: ReleaseCatalog = field(default_factory=ReleaseCatalog)
    broken: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    batches: list[tuple[str, int]] = field(default_factory=list)
    capacity: int = 4
    shelf: ModelShelf = field(init=False)
    account: Account = field(default_factory=Account)

    @property
    def health(self) -> Health:
        return self.account.health

    def __post_init__(self) -> None:
        self.shelf = ModelShelf(self._load, self.catalog.release_of, self.capacity)

    def _load(self, wanted: ReleaseChanged) -> Model:
        if wanted.version in self.broken:
            raise CorruptCheckpoint(Path(wanted.version), "is cut short")
        if wanted.version in self.away:
            raise TransientError("the store is away")
        self.loaded.append(wanted.version)
        return Model(CLASSES, (2, 2), partial(self._run, wanted.version))

    def _run(self, version: str, images: NDArray[np.uint8]) -> EngineOutput:
        self.batches.append((version, len(images)))
        first = images[:, 0, 0].astype(np.float32)
        return EngineOutput(
            logits=np.stack([np.zeros_like(first), first - 10], axis=1),
            embedding=images.reshape(len(images), -1).astype(np.float32),
            blocks=np.full((len(images), 1, 4), 0.25, np.float32),
        )

    def released(self, *changes: ReleaseChanged) -> Bench:
        for change in changes:
            self.catalog.apply(change)
        return self

    def predict(self, *events: Event) -> list[PredictionMade | InvalidEvent]:
        files = ArtifactStore("memory://frames", cache=Path("unused"))
        server = Server(self.catalog, self.shelf, partial(pixels_of, files=files), 3, self.account)
        flat: list[PredictionMade | InvalidEvent] = []
        for result in server.predict(events):
            if isinstance(result, InvalidEvent):
                flat.append(result)
                continue
            (prediction,) = result
            assert isinstance(prediction, PredictionMade)
            flat.append(prediction)
        return flat

    def versions(self, *events: Event) -> list[tuple[str, ServingStage]]:
        return [
            (made.model_version, made.stage)
            for made in self.predict(*events)
            if isinstance(made, PredictionMade)
        ]


def test_a_prediction_says_what_the_model_says_of_the_image() -> None:
    (made,) = Bench().released(release(0, "one")).predict(image(12))
    assert isinstance(made, PredictionMade)
    assert made.logits == (0.0, 2.0)
    assert made.predicted_class == 1
    assert made.probabilities == pytest.approx((1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))), abs=1e-6)
    assert made.augmented_probabilities == made.probabilities, "a flat image does not change when it moves"
    assert made.embedding == (12.0,) * 4
    assert made.blocks[0].saturated == 0.25
    assert (made.image_id, made.sequence, made.time) == ("a-12", 12, EPOCH)
    assert (made.model_version, made.model_digest, made.classes) == ("one", "ab" * 32, CLASSES)


def test_images_of_one_version_share_forward_passes_and_keep_their_order() -> None:
    bench = Bench().released(
        release(0, "one"), release(1, "two", ReleaseStage.CANARY, previous="one", devices=("b",))
    )
    made = bench.predict(*[image(i, "b" if i % 2 else "a") for i in range(8)])
    assert [one.image_id for one in made if isinstance(one, PredictionMade)] == [
        f"{'b' if i % 2 else 'a'}-{i}" for i in range(8)
    ]
    # Each forward pass is followed by one over the moved images; three images at most.
    assert bench.batches == [
        ("one", 3), ("one", 3), ("one", 1), ("one", 1), ("two", 3), ("two", 3), ("two", 1), ("two", 1)
    ]  # fmt: skip


def test_canary_devices_are_served_by_the_canary_and_say_so() -> None:
    bench = Bench().released(
        release(0, "one"), release(1, "two", ReleaseStage.CANARY, previous="one", devices=("b",))
    )
    assert bench.versions(image(0, "a"), image(0, "b")) == [
        ("one", ServingStage.STABLE),
        ("two", ServingStage.CANARY),
    ]
    bench.released(release(2, "two", ReleaseStage.ROLLED_BACK, previous="one"))
    assert bench.versions(image(1, "b")) == [("one", ServingStage.STABLE)]


def test_one_bad_image_in_a_batch_sends_only_itself_away() -> None:
    first, wrong, other_site, not_an_image, last = (
        Bench()
        .released(release(0, "one"))
        .predict(
            image(0),
            image(1, side=3),
            image(2, site="elsewhere"),
            LabelConfirmed(
                time=EPOCH,
                image_id="x",
                device_id="a",
                site_id="ward",
                sequence=0,
                class_index=0,
                class_name="normal",
            ),
            image(4),
        )
    )
    assert isinstance(first, PredictionMade)
    assert isinstance(last, PredictionMade)
    assert isinstance(wrong, InvalidEvent)
    assert (wrong.code, wrong.field) == ("shape", "frame")
    assert "(3, 3)" in wrong.reason
    assert isinstance(other_site, InvalidEvent)
    assert other_site.code == "site"
    assert isinstance(not_an_image, InvalidEvent)


def test_a_corrupt_package_is_refused_once_and_the_earlier_version_goes_on() -> None:
    bench = Bench(broken={"two"}).released(release(0, "one"), release(1, "two", previous="one"))
    before = REFUSED.labels("two", "corrupt-checkpoint")._value.get()
    assert bench.versions(image(0), image(1)) == [("one", ServingStage.STABLE)] * 2
    assert bench.loaded == ["one"]
    assert REFUSED.labels("two", "corrupt-checkpoint")._value.get() == before + 1


def test_a_broken_canary_is_served_by_the_stable_version_as_stable() -> None:
    bench = Bench(broken={"two"}).released(
        release(0, "one"), release(1, "two", ReleaseStage.CANARY, previous="one", devices=("a",))
    )
    assert bench.versions(image(0)) == [("one", ServingStage.STABLE)]


def test_the_fallback_goes_back_as_far_as_it_has_to() -> None:
    bench = Bench(broken={"three", "two"}).released(
        release(0, "one"), release(1, "two", previous="one"), release(2, "three", previous="two")
    )
    assert bench.versions(image(0)) == [("one", ServingStage.STABLE)]


def test_a_package_that_knows_other_classes_than_released_is_refused() -> None:
    bench = Bench().released(
        release(0, "one"), release(1, "two", previous="one", classes=("normal", "nodule"))
    )
    assert bench.versions(image(0)) == [("one", ServingStage.STABLE)]


def test_while_the_store_is_away_the_loaded_version_serves_and_afterwards_the_new_one() -> None:
    bench = Bench(away={"two"}).released(release(0, "one"), release(1, "two", previous="one"))
    assert bench.versions(image(0)) == [("one", ServingStage.STABLE)]
    bench.away.clear()
    assert bench.versions(image(1)) == [("two", ServingStage.STABLE)]


def test_without_any_model_that_loads_images_wait() -> None:
    with pytest.raises(TransientError, match="is cut short"):
        Bench(broken={"one"}).released(release(0, "one")).predict(image(0))


def test_models_in_memory_are_bounded_and_the_least_recently_used_goes() -> None:
    bench = Bench(capacity=2)
    for number, version in enumerate(("one", "two", "three")):
        bench.shelf.serving(release(number, version))
    bench.shelf.serving(release(1, "two"))
    assert bench.loaded == ["one", "two", "three"]
    bench.shelf.serving(release(0, "one"))
    assert bench.loaded == ["one", "two", "three", "one"]


def test_a_refused_package_is_told_until_a_later_release_loads() -> None:
    bench = Bench(broken={"two"}).released(release(0, "one"), release(1, "two", previous="one"))
    bench.predict(image(0))
    (sentence,) = bench.health.degraded.values()
    assert "memory://two" in sentence, "which file"
    assert "is cut short" in sentence, "what is wrong with it"
    assert "one goes on serving" in sentence, "what serves"
    bench.released(release(2, "three", previous="two"))
    bench.predict(image(1))
    assert bench.health.degraded == {}


def test_a_stable_version_that_loads_does_not_hide_a_canary_that_does_not() -> None:
    bench = Bench(broken={"two"}).released(
        release(0, "one"), release(1, "two", ReleaseStage.CANARY, previous="one", devices=("b",))
    )
    bench.predict(image(0, "b"), image(0, "a"))
    assert list(bench.health.degraded) == ["canary version of ward"]
    bench.released(release(2, "two", ReleaseStage.ROLLED_BACK, previous="one"))
    bench.predict(image(1, "a"))
    assert bench.health.degraded == {}


def test_each_devices_change_of_version_is_one_line_of_the_log() -> None:
    bench = Bench(broken={"three"}).released(release(0, "one"))
    with capture_logs() as lines:
        bench.predict(image(0), image(1), image(0, "b"))
        bench.released(release(1, "two", previous="one")).predict(image(2), image(3))
        bench.released(release(2, "three", previous="two")).predict(image(4))
    swaps = [line for line in lines if line["event"] == "version swapped"]
    assert [(line["device_id"], line["before"], line["version"]) for line in swaps] == [
        ("a", None, "one"),
        ("b", None, "one"),
        ("a", "one", "two"),
    ]
    assert swaps[2]["event_id"] == release(1, "two").event_id
    assert swaps[2]["image_id"] == "a-2"
