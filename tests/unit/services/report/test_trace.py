"""The trace: repeats change nothing, what is missing is lost, what differs is a conflict."""

from datetime import UTC, datetime, timedelta

from medloop_schemas import (
    Artifact,
    ExampleLabelled,
    Frame,
    ImageAcquired,
    ImageStatistics,
    LabelConfirmed,
    PredictionMade,
    ReleaseChanged,
    ReleaseStage,
    ServingStage,
    StatsMeasured,
)
from medloop_services.report.trace import Trace

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FRAME = Frame.inline(bytes(4), height=2, width=2)


def image(n: int) -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH + timedelta(seconds=n),
        image_id=f"i{n}",
        device_id="d",
        site_id="s",
        study_id=f"s{n}",
        sequence=n,
        frame=FRAME,
    )


def prediction(n: int, predicted: int = 0) -> PredictionMade:
    return PredictionMade(
        time=EPOCH + timedelta(seconds=n),
        image_id=f"i{n}",
        device_id="d",
        site_id="s",
        sequence=n,
        model_version="v0",
        model_digest="0" * 64,
        stage=ServingStage.STABLE,
        classes=("a", "b"),
        predicted_class=predicted,
        probabilities=(0.5, 0.5),
        logits=(0.0, 0.0),
        augmented_probabilities=(0.5, 0.5),
        embedding=(0.0,),
    )


def label(n: int) -> LabelConfirmed:
    return LabelConfirmed(
        time=EPOCH + timedelta(seconds=n + 5),
        image_id=f"i{n}",
        device_id="d",
        site_id="s",
        sequence=n,
        class_index=0,
        class_name="a",
    )


def example(n: int, predicted: int = 0) -> ExampleLabelled:
    return ExampleLabelled(
        time=EPOCH + timedelta(seconds=n + 5),
        image_id=f"i{n}",
        device_id="d",
        site_id="s",
        study_id=f"s{n}",
        image_sequence=n,
        label_sequence=n,
        revision=1,
        class_index=0,
        class_name="a",
        predicted_class=predicted,
        model_version="v0",
        frame=FRAME,
    )


def stats(*numbers: int) -> StatsMeasured:
    images = tuple(
        ImageStatistics(
            image_id=f"i{n}",
            sequence=n,
            predicted_class=0,
            data={},
            decision={},
            activation={},
            embedding=(0.0,),
        )
        for n in numbers
    )
    return StatsMeasured(time=EPOCH, device_id="d", site_id="s", model_version="v0", images=images)


def release(number: int, stage: ReleaseStage, version: str = "v1") -> ReleaseChanged:
    return ReleaseChanged(
        time=EPOCH,
        site_id="s",
        number=number,
        version=version,
        stage=stage,
        package=Artifact(url="file:///m", sha256="0" * 64, size=1),
        classes=("a", "b"),
        reason="why",
    )


def folded(*events: object) -> Trace:
    trace = Trace()
    for event in events:
        trace.observe(event, 0.0)  # type: ignore[arg-type]
    return trace


def test_a_repeat_changes_only_the_wire_count() -> None:
    once = folded(image(0), prediction(0), label(0), example(0), stats(0), release(1, ReleaseStage.STABLE))
    twice = folded(
        *[image(0)] * 2,
        *[prediction(0)] * 2,
        *[label(0)] * 2,
        *[example(0)] * 2,
        *[stats(0)] * 2,
        *[release(1, ReleaseStage.STABLE)] * 2,
    )
    assert twice.duplicates_in_effect == 0
    assert twice.lost == 0
    assert (twice.times, twice.moments, twice.right) == (once.times, once.moments, once.right)
    assert twice.wire.total() == 2 * once.wire.total()


def test_what_is_missing_is_lost() -> None:
    assert folded(image(0), image(1), prediction(0)).lost == 1
    assert folded(image(0), prediction(0), label(0)).lost == 1
    dead = folded(image(0))
    dead.dead_letters.add(("medloop.images.v1", 0, 0))
    assert dead.lost == 0


def test_an_image_measured_in_two_batches_took_effect_twice() -> None:
    assert folded(stats(0, 1), stats(1, 2)).duplicates_in_effect == 1


def test_two_different_decisions_of_one_number_conflict() -> None:
    trace = folded(release(1, ReleaseStage.CANARY), release(1, ReleaseStage.REJECTED))
    assert trace.duplicates_in_effect == 1


def test_the_newest_stable_release_after_the_first_counts() -> None:
    trace = folded(release(0, ReleaseStage.STABLE, "v0"), release(1, ReleaseStage.CANARY))
    assert trace.released is None
    trace.observe(release(2, ReleaseStage.STABLE), 0.0)
    assert trace.released is not None
    assert trace.released.version == "v1"


def test_rolling_accuracy_goes_by_position_not_by_arrival() -> None:
    events = [image(n) for n in range(60)] + [example(n, predicted=int(n >= 40)) for n in range(60)]
    forward = folded(*events).rolling_accuracy(window=10)
    backward = folded(*events[:60], *reversed(events[60:])).rolling_accuracy(window=10)
    assert forward == backward
    assert forward[0][1] == 1.0
    assert forward[-1][1] == 0.0


def test_what_was_withheld_is_neither_served_nor_lost() -> None:
    trace = folded(image(0), prediction(0).model_copy(update={"withheld": True}), label(0))
    assert not trace.served
    assert trace.lost == 0
