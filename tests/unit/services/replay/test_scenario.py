from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from medloop_schemas import ImageAcquired, LabelConfirmed, encode
from medloop_services.replay.corruption import corrupt
from medloop_services.replay.dataset import Dataset, draw_dataset
from medloop_services.replay.errors import DatasetError
from medloop_services.replay.policy import central_intensity, swapped_names
from medloop_services.replay.scenario import Stream, build_scenario
from medloop_services.replay.settings import Mix, ScenarioName, ScenarioSettings
from medloop_services.replay.split import Split, name_studies

SMALL = {"images_before": 42, "images_after": 80, "label_delay": 5, "devices": 4}

every_scenario = pytest.mark.parametrize("name", ScenarioName)


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    return {name: draw_dataset(name) for name in ScenarioName}


def stream(datasets: dict[str, Dataset], name: str, **changes: object) -> Stream:
    return build_scenario(datasets[name], name, ScenarioSettings.model_validate({**SMALL, **changes}))


def images_of(source: Stream) -> list[ImageAcquired]:
    return [event for event in source.events() if isinstance(event, ImageAcquired)]


def labels_of(source: Stream) -> list[LabelConfirmed]:
    return [event for event in source.events() if isinstance(event, LabelConfirmed)]


@every_scenario
def test_the_same_settings_give_the_same_bytes(datasets: dict[str, Dataset], name: str) -> None:
    first, second = ([encode(event, "/test") for event in stream(datasets, name).events()] for _ in range(2))
    assert first == second
    other = [encode(event, "/test") for event in stream(datasets, name, seed=1).events()]
    assert other != first


@every_scenario
def test_every_device_counts_without_gaps(datasets: dict[str, Dataset], name: str) -> None:
    source = stream(datasets, name)
    for events in (images_of(source), labels_of(source)):
        for device in source.devices:
            mine = [event.sequence for event in events if event.device_id == device]
            assert mine == list(range(len(mine)))
    assert len({event.image_id for event in images_of(source)}) == 122


@every_scenario
def test_a_label_comes_after_so_many_images_of_its_device(datasets: dict[str, Dataset], name: str) -> None:
    source = stream(datasets, name)
    latest: dict[str, int] = {}
    sequence: dict[str, int] = {}
    labelled_before_the_end = 0
    for event in source.events():
        if isinstance(event, ImageAcquired):
            latest[event.device_id] = sequence[event.image_id] = event.sequence
        elif len(sequence) < 122:
            assert latest[event.device_id] - sequence[event.image_id] == 5
            labelled_before_the_end += 1
    assert labelled_before_the_end >= 122 - 6 * 4
    assert {event.image_id for event in labels_of(source)} == set(sequence)


@every_scenario
def test_time_moves_on_and_never_repeats(datasets: dict[str, Dataset], name: str) -> None:
    events = list(stream(datasets, name).events())
    assert all(earlier.time < later.time for earlier, later in pairwise(events))


@every_scenario
def test_the_onset_is_each_devices_first_image_after_the_drift(
    datasets: dict[str, Dataset], name: str
) -> None:
    source = stream(datasets, name)
    for device, onset in source.onset.items():
        positions = [i for i, event in enumerate(images_of(source)) if event.device_id == device]
        assert positions[onset] >= source.drift_at > positions[onset - 1]


@every_scenario
def test_nothing_streamed_or_tested_is_trained_on(datasets: dict[str, Dataset], name: str) -> None:
    source = stream(datasets, name)
    training = set(source.training_part.studies)
    for other in (source.shown, source.validation, source.before_test, source.new_test):
        assert not training & set(other.studies)
    assert not set(source.shown.studies) & set(source.new_test.studies)
    assert set(source.training_part.labels) == set(range(len(source.classes_before)))


@every_scenario
def test_a_study_shown_twice_keeps_its_id(datasets: dict[str, Dataset], name: str) -> None:
    source = stream(datasets, name, images_before=700, images_after=700)
    ids = [event.study_id for event in images_of(source)]
    names = list(source.shown.studies)
    assert len(set(ids)) == len(set(names)) == len(set(zip(ids, names, strict=True))) < len(ids)
    assert not any(name in "".join(ids) for name in set(names))


def test_as_few_images_as_possible_are_shown_twice(datasets: dict[str, Dataset]) -> None:
    source = stream(datasets, "data-drift", images_before=250, images_after=250)
    assert len(set(source.shown.studies)) == 500


def test_data_drift_changes_the_images_and_not_the_labels(datasets: dict[str, Dataset]) -> None:
    source = stream(datasets, "data-drift")
    originals = dict(zip(source.dataset.train.studies, source.dataset.train.images, strict=True))
    same = [
        np.array_equal(image, originals[study])
        for image, study in zip(source.shown.images, source.shown.studies, strict=True)
    ]
    assert same == [True] * 42 + [False] * 80
    assert np.array_equal(source.new_test.labels, source.old_test.labels)
    expected = corrupt(source.old_test.images, "scanner", 3, (0, 1))
    assert np.array_equal(source.new_test.images, expected)


def test_concept_drift_changes_the_labels_and_not_the_images(datasets: dict[str, Dataset]) -> None:
    source = stream(datasets, "concept-drift")
    old = dict(zip(source.dataset.train.studies, source.dataset.train.labels, strict=True))
    changed = [old[s] != y for s, y in zip(source.shown.studies, source.shown.labels, strict=True)]
    assert not any(changed[:42])
    assert any(changed[42:])
    training = source.training_part
    grey = central_intensity(training.images[training.labels == 1])
    faint = central_intensity(source.new_test.images) < np.quantile(grey, 0.3)
    was_positive = source.before_test.labels == 1
    assert np.array_equal(source.changed, faint & was_positive)
    assert not source.new_test.labels[source.changed].any()
    assert len(source.old_test) == int((~source.changed).sum())


def test_concept_drift_of_many_classes_swaps_two_names() -> None:
    split = Split(np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 2, 3]), name_studies("test", 4))
    assert list(swapped_names(0, 2)(split)) == [2, 1, 0, 3]


def test_a_new_class_arrives_last_and_only_after_the_drift(datasets: dict[str, Dataset]) -> None:
    source = stream(datasets, "new-class", held_out=0, images_after=600)
    assert source.classes_before == ("opacity", "nodule")
    assert source.classes_after == ("opacity", "nodule", "normal")
    before, after = source.shown.labels[:42], source.shown.labels[42:]
    assert set(before) == {0, 1}
    assert np.mean(after == 2) == pytest.approx(1 / 3, abs=0.06)
    assert {label.class_name for label in labels_of(source) if label.class_index == 2} == {"normal"}
    assert set(source.old_test.labels) == set(source.validation.labels) == {0, 1}
    assert set(source.new_test.labels) == {0, 1, 2}
    assert np.array_equal(source.changed, source.new_test.labels == 2)


def sites_of(split: Split) -> list[int]:
    assert split.sites is not None
    return [int(site) for site in split.sites]


def test_a_site_change_shows_one_site_and_then_the_other(datasets: dict[str, Dataset]) -> None:
    source = stream(datasets, "site-change")
    assert sites_of(source.shown) == [0] * 42 + [1] * 80
    assert set(sites_of(source.training_part)) == set(sites_of(source.validation)) == {0}
    assert set(sites_of(source.old_test)) == {0}
    assert set(sites_of(source.new_test)) == {1}


@pytest.mark.parametrize(("mix", "share"), [(Mix.EVEN, 1 / 2), (Mix.VALIDATION, 1 / 4), (Mix.NATURAL, 3 / 4)])
def test_the_class_mix_is_the_same_before_and_after(mix: Mix, share: float) -> None:
    drawn = draw_dataset()
    positives = np.flatnonzero(drawn.train.labels == 1)
    few = np.concatenate([np.flatnonzero(drawn.train.labels == 0)[:300], positives[:900]])
    val = np.concatenate(
        [
            np.flatnonzero(drawn.validation.labels == 0)[:180],
            np.flatnonzero(drawn.validation.labels == 1)[:60],
        ]
    )
    skewed = Dataset(
        "skewed",
        "skewed",
        drawn.class_names,
        drawn.train.select(few),
        drawn.validation.select(val),
        drawn.test,
        drawn.digest,
    )
    settings = ScenarioSettings(images_before=2000, images_after=2000, mix=mix, corruption="jpeg", severity=1)
    labels = build_scenario(skewed, "data-drift", settings).shown.labels
    assert labels[:2000].mean() == pytest.approx(share, abs=0.04)
    assert labels[2000:].mean() == pytest.approx(share, abs=0.04)


def test_some_or_all_labels_may_never_come(datasets: dict[str, Dataset]) -> None:
    assert labels_of(stream(datasets, "data-drift", label_share=0)) == []
    some = len(labels_of(stream(datasets, "data-drift", label_share=0.5)))
    assert 40 < some < 82


def test_a_stream_need_not_drift(datasets: dict[str, Dataset]) -> None:
    source = stream(datasets, "data-drift", images_after=0)
    assert len(source.shown) == source.drift_at == 42


def test_what_the_images_do_not_allow_is_said(datasets: dict[str, Dataset]) -> None:
    two_classes = datasets["data-drift"]
    with pytest.raises(DatasetError, match="at least 3 classes"):
        build_scenario(two_classes, "new-class", ScenarioSettings())
    with pytest.raises(DatasetError, match="train_site"):
        build_scenario(two_classes, "site-change", ScenarioSettings())
    with pytest.raises(DatasetError, match="choose one of data-drift"):
        build_scenario(two_classes, "earthquake", ScenarioSettings())
    with pytest.raises(DatasetError, match="can't be held out"):
        stream(datasets, "new-class", held_out=3)
