from __future__ import annotations

import numpy as np
import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import ModelPackage
from medloop_model.errors import ShapeError
from medloop_model.network import BiTMedViT
from medloop_model.statistics import softmax
from medloop_model.training.calibration import (
    Answers,
    assumed_priors,
    recalibrated,
    shift_priors,
    soften,
    temperature_of,
    temperature_of_base,
)
from medloop_model.training.export import export_package
from medloop_model.training.validation import answer, logits_of
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

TINY = Architecture(8, 1, 4, 16, 1, 2, 2, ("a", "b", "c"))
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)


@pytest.fixture(params=[TINY, TINY.all_ternary()], ids=["head in full precision", "ternary head"])
def package(request: pytest.FixtureRequest) -> ModelPackage:
    network = BiTMedViT(request.param, seed=1)
    with torch.no_grad():
        network.head.weight.mul_(8)
        network.head.bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
    return export_package(network, {"name": "tiny"}, fisher={"norm.bias": np.ones(16, np.float16)})


def test_the_engine_gives_logits_divided_by_the_temperature(package: ModelPackage) -> None:
    softened = recalibrated(package, temperature=2.5)
    np.testing.assert_allclose(logits_of(softened, IMAGES) * 2.5, logits_of(package, IMAGES), atol=0.02)
    assert (answer(softened, IMAGES).argmax(1) == answer(package, IMAGES).argmax(1)).all()


def test_the_engine_gives_answers_under_new_priors(package: ModelPackage) -> None:
    priors = np.array([0.7, 0.2, 0.1])
    moved = answer(recalibrated(package, priors_N=priors), IMAGES)
    by_bayes = answer(package, IMAGES) * priors / (1 / 3)
    np.testing.assert_allclose(moved, by_bayes / by_bayes.sum(axis=1, keepdims=True), atol=2e-3)


def test_priors_are_remembered_so_that_they_are_not_moved_twice(package: ModelPackage) -> None:
    np.testing.assert_allclose(assumed_priors(package), [1 / 3] * 3)
    once = recalibrated(package, priors_N=np.array([0.7, 0.2, 0.1]))
    np.testing.assert_allclose(assumed_priors(once), [0.7, 0.2, 0.1])
    back = recalibrated(once, priors_N=np.full(3, 1 / 3))
    np.testing.assert_allclose(answer(back, IMAGES), answer(package, IMAGES), atol=2e-3)


def test_what_else_a_package_has_is_passed_on(package: ModelPackage) -> None:
    softened = recalibrated(package, temperature=2.0)
    assert softened.provenance == {"name": "tiny", "temperature": 2.0}
    np.testing.assert_array_equal(softened.fisher["norm.bias"], package.fisher["norm.bias"])
    for name, tensor in package.latent.items():
        if not name.startswith("head."):
            np.testing.assert_array_equal(softened.latent[name], tensor)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ShapeError, match="above 0"):
        soften(BiTMedViT(TINY), temperature)


@pytest.mark.parametrize("priors", [[0.5, 0.5], [1.0, 0.0, 0.0]])
def test_priors_are_one_a_class_and_above_zero(priors: list[float]) -> None:
    with pytest.raises(ShapeError, match="prior"):
        shift_priors(BiTMedViT(TINY), np.full(3, 1 / 3), np.array(priors))


def answers(count: int, sharpness: float = 1.0, start: int = 0) -> Answers:
    """Logits that are `sharpness` times too sure."""
    draw = np.random.default_rng(start)
    logits = draw.normal(size=(count, 3)) * 2
    raised = np.exp(logits)
    labels = (raised.cumsum(1) / raised.sum(1, keepdims=True) > draw.random((count, 1))).argmax(1)
    return Answers((logits * sharpness).astype(np.float32), labels)


def test_a_model_that_is_too_sure_is_softened() -> None:
    assert temperature_of(answers(2000, 3.0)) == pytest.approx(3.0, rel=0.5)


def test_a_model_that_may_be_right_as_often_as_it_says_is_left_alone() -> None:
    assert [temperature_of(answers(256, start=1000 * seed)) for seed in range(5)] == [1.0] * 5


def test_one_is_ruled_out_as_a_likelihood_ratio_test_does() -> None:
    for seed in range(8):
        shown = answers(256, 1.4, start=1000 * seed)

        def loss(temperature: float, shown: Answers = shown) -> float:
            late = shown.last(128)
            likely = softmax(late.logits / temperature)[np.arange(128), late.labels]
            return float(-np.log(likely.astype(np.float64)).sum())

        best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x
        sure = best > 1 and chi2.sf(2 * (loss(1.0) - loss(best)), df=1) < 0.05
        assert temperature_of(shown) == pytest.approx(best if sure else 1.0, rel=1e-3)


def test_a_model_that_is_not_sure_enough_is_left_alone() -> None:
    assert temperature_of(answers(2000, 0.3)) == 1.0


def test_few_answers_fit_no_temperature() -> None:
    assert temperature_of(answers(127, 3.0)) == 1.0
    assert temperature_of(answers(128, 3.0)) > 1.5


def test_only_the_last_answers_count() -> None:
    late = answers(200, 3.0, start=1000)
    assert temperature_of(answers(1000, 1.0).joined(late)) == temperature_of(answers(1000, 9.0).joined(late))


def test_no_more_answers_are_kept_than_a_temperature_needs() -> None:
    streamed, once = Answers.none(3), answers(1000, 2.0)
    for start in range(0, 1000, 50):
        streamed = streamed.joined(Answers(once.logits[start : start + 50], once.labels[start : start + 50]))
    assert len(streamed) == 256
    assert temperature_of(streamed) == temperature_of(once) > 1


def test_a_base_is_softened_in_the_mix_that_its_answers_assume(package: ModelPackage) -> None:
    fair = answers(3000, 3.0)
    mostly_a = np.concatenate([np.flatnonzero(fair.labels == 0), np.flatnonzero(fair.labels > 0)[:200]])
    fitted = temperature_of_base(package, fair.logits[mostly_a], fair.labels[mostly_a])
    assert fitted == pytest.approx(temperature_of_base(package, fair.logits, fair.labels), rel=0.2)
    assert temperature_of_base(package, fair.logits[:5], fair.labels[:5]) == 1.0
