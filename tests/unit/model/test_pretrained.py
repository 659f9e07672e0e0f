from __future__ import annotations

import numpy as np
import pytest
from medloop_model import pretrained
from medloop_model.accuracy import accuracy
from medloop_model.checkpoint import load_package, load_teacher
from medloop_model.engine import Engine
from medloop_model.statistics import Reference
from medloop_model.training.export import network_from, pack_network
from medloop_model.training.pretraining import predict
from medloop_services.replay.dataset import Dataset, draw_dataset, load_dataset

LOGIT_TOLERANCE = 0.05  # see test_network.py

every_name = pytest.mark.parametrize("name", pretrained.NAMES)
with_its_images = pytest.mark.parametrize(
    "name", ["phantom", pytest.param("pneumonia", marks=pytest.mark.data)]
)


def images_of(name: str) -> Dataset:
    dataset = draw_dataset() if name == "phantom" else load_dataset()
    shipped = load_package(pretrained.path(name)).provenance["data"]
    if dataset.name != shipped:
        pytest.skip(f"{shipped} is not here: set MEDLOOP_DATA to the folder that holds it")
    return dataset


@every_name
def test_a_model_and_its_teacher_are_small_enough_to_ship(name: str) -> None:
    size = sum(path.stat().st_size for path in (pretrained.path(name), pretrained.teacher_path(name)))
    assert size <= 4e6


@every_name
def test_a_model_says_where_it_comes_from(name: str) -> None:
    provenance = load_package(pretrained.path(name)).provenance
    assert provenance["command"].startswith("medloop pretrain")
    assert len(provenance["data_sha256"]) == 64
    assert {"seed", "split", "test_accuracy"} <= provenance.keys()


@every_name
def test_what_runs_is_what_training_goes_on_from(name: str) -> None:
    package = load_package(pretrained.path(name), parts=("packed", "latent", "fisher", "reference"))
    packed = pack_network(network_from(package))
    assert packed.keys() == package.packed.keys()
    for tensor_name, tensor in packed.items():
        np.testing.assert_array_equal(package.packed[tensor_name], tensor)
    assert {key: tensor.shape for key, tensor in package.fisher.items()} == {
        key: tensor.shape for key, tensor in package.latent.items()
    }
    Reference.from_tensors(package.reference)


@every_name
def test_the_teacher_has_the_same_shape_in_full_precision(name: str) -> None:
    student = load_package(pretrained.path(name))
    teacher = load_teacher(pretrained.teacher_path(name))
    assert teacher.architecture == student.architecture.full_precision()
    assert all(tensor.dtype == np.float32 for tensor in teacher.latent.values())


@with_its_images
def test_the_stated_accuracy_is_measured_again(name: str) -> None:
    dataset = images_of(name)
    package = load_package(pretrained.path(name))
    assert package.provenance["data_sha256"] == dataset.digest
    found = Engine(package)(dataset.test.images).logits.argmax(axis=1)
    assert accuracy(found, dataset.test.labels) == pytest.approx(
        package.provenance["test_accuracy"], abs=1.01 / len(dataset.test)
    )
    assert package.provenance["test_accuracy"] >= 0.85


@with_its_images
def test_engine_and_network_agree_on_every_test_image(name: str) -> None:
    package = load_package(pretrained.path(name), parts=("packed", "latent"))
    images = images_of(name).test.images
    expected, found = predict(network_from(package), images), Engine(package)(images).logits
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, atol=LOGIT_TOLERANCE)


def test_a_model_that_does_not_ship_is_named() -> None:
    with pytest.raises(ValueError, match="lung"):
        pretrained.path("lung")
