from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from medloop_model.architecture import Architecture
from medloop_model.checkpoint import save_package, save_teacher
from medloop_model.errors import CorruptCheckpoint, ShapeError
from medloop_model.network import BiTMedViT
from medloop_model.training import stage_checkpoint
from medloop_model.training.export import network_from
from medloop_model.training.images import to_pixels
from medloop_model.training.pretraining import (
    Pretrained,
    PretrainSettings,
    Progress,
    fit,
    predict,
    pretrain,
    stage_files,
    warmed_up_cosine,
)
from medloop_model.training.stage_checkpoint import StageCheckpoint
from torch.nn import functional

TINY = Architecture(8, 1, 4, 16, 1, 2, 2, ("dark", "bright"))
QUICK = PretrainSettings(teacher_steps=40, student_steps=40, batch_size=16, fisher_images=8)


def shades(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose mean grey tells the class."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, count)
    images = draw.integers(0, 120, (count, 8, 8)) + 100 * labels[:, None, None]
    return images.astype(np.uint8), labels


def test_teacher_and_student_learn_and_the_student_is_ternary() -> None:
    made = pretrain(*shades(200, 0), *shades(60, 1), TINY, settings=QUICK)
    images, labels = shades(100, 2)
    for model in (made.package, made.teacher):
        assert np.mean(predict(network_from(model), images).argmax(axis=1) == labels) > 0.95
    assert not made.teacher.architecture.quantized
    assert made.package.fisher.keys() == made.package.latent.keys()
    assert made.package.provenance["validation_accuracy"] > 0.95


def test_a_student_with_ternary_weights_everywhere_learns() -> None:
    made = pretrain(*shades(200, 0), *shades(60, 1), TINY.all_ternary(), settings=QUICK)
    images, labels = shades(100, 2)
    assert np.mean(predict(network_from(made.package), images).argmax(axis=1) == labels) > 0.95
    kinds = {name.rsplit(".", 1)[1] for name in made.package.packed}
    assert kinds == {"codes", "scale", "bias"}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for run in ("first", "second"):
        made = pretrain(*shades(80, 0), *shades(20, 1), TINY, settings=QUICK)
        digests.add(
            (
                save_package(made.package, tmp_path / run),
                save_teacher(made.teacher, tmp_path / f"{run}.teacher"),
            )
        )
    assert len(digests) == 1


class Killed(Exception):
    pass


@pytest.mark.parametrize(("stage", "step"), [("teacher", 25), ("student", 15)])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    monkeypatch.setattr(stage_checkpoint, "STEPS_BETWEEN", 10)
    taken: list[tuple[str, int]] = []

    def watch(at: str, done: int, steps: int, loss: float) -> None:
        taken.append((at, done))
        if (at, done) == (stage, step) and len(taken) == taken.index((stage, step)) + 1:
            raise Killed

    def run(progress: Progress | None = None) -> Pretrained:
        return pretrain(
            *shades(80, 0), *shades(20, 1), TINY, settings=QUICK, progress=progress, resume_in=tmp_path
        )

    with pytest.raises(Killed):
        run(watch)
    before = len(taken)
    went_on = run(watch)
    assert taken[before] == (stage, step // 10 * 10 + 1)
    whole = pretrain(*shades(80, 0), *shades(20, 1), TINY, settings=QUICK)
    for name in ("package", "teacher"):
        digests = {save_package(getattr(made, name), tmp_path / name) for made in (went_on, whole)}
        assert len(digests) == 1


def test_a_step_that_was_refused_counts_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In step 2 there was no finite way down; the rate's curve goes by steps taken and refused."""
    monkeypatch.setattr(stage_checkpoint, "STEPS_BETWEEN", 4)
    domain = (torch.rand(8, 8, 8, 1, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
    taken: list[int] = []

    def trained(last: int, checkpoint: StageCheckpoint | None) -> dict[str, torch.Tensor]:
        network = BiTMedViT(TINY)

        def loss_of(pixels_BHWC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
            loss = functional.cross_entropy(network(pixels_BHWC), labels_B)
            return loss * float("nan") if len(taken) == 1 else loss

        def after_step(step: int, _: float) -> None:
            taken.append(step)
            if step == last:
                raise Killed

        with suppress(Killed):
            fit(
                network,
                [domain],
                loss_of,
                steps=8,
                batch_size=4,
                learning_rate=1e-2,
                weight_decay=0.0,
                warm_up=0.1,
                seed=0,
                after_step=after_step,
                checkpoint=checkpoint,
            )
        return network.state_dict()

    kept = StageCheckpoint(tmp_path / "stage", "me")
    trained(5, kept)
    went_on = trained(9, kept)
    assert taken == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    taken.clear()
    whole = trained(9, None)
    assert all(torch.equal(went_on[name], whole[name]) for name in whole)


def test_progress_on_other_images_is_not_gone_on_from(tmp_path: Path) -> None:
    pretrain(*shades(80, 0), *shades(20, 1), TINY, settings=QUICK, resume_in=tmp_path)
    steps: list[int] = []
    pretrain(
        *shades(80, 5),
        *shades(20, 1),
        TINY,
        settings=QUICK,
        progress=lambda stage, step, of, loss: steps.append(step),
        resume_in=tmp_path,
    )
    assert len(steps) == QUICK.teacher_steps + QUICK.student_steps


def test_features_teach_and_leave_no_trace_in_the_package() -> None:
    plain = pretrain(*shades(80, 0), *shades(20, 1), TINY, settings=QUICK)
    taught = pretrain(*shades(80, 0), *shades(20, 1), TINY, settings=replace(QUICK, features=1.0))
    assert taught.package.latent.keys() == plain.package.latent.keys()
    images = shades(80, 0)[0]

    def missed(made: Pretrained) -> float:
        pixels = to_pixels(images, TINY)
        with torch.no_grad():
            student, teacher = (network_from(each).tokens(pixels) for each in (made.package, made.teacher))
        return functional.mse_loss(student, teacher).item()

    assert missed(taught) < missed(plain)


def test_damaged_progress_is_named(tmp_path: Path) -> None:
    file = stage_files(tmp_path)[0]
    file.write_bytes(b"cut short")
    with pytest.raises(CorruptCheckpoint, match="remove it") as caught:
        pretrain(*shades(80, 0), *shades(20, 1), TINY, settings=QUICK, resume_in=tmp_path)
    assert str(file) in str(caught.value)


def test_progress_tells_every_step_of_both_stages() -> None:
    told: list[tuple[str, int, int]] = []
    settings = PretrainSettings(teacher_steps=2, student_steps=3, batch_size=4, fisher_images=2)
    pretrain(
        *shades(20, 0),
        *shades(20, 1),
        TINY,
        settings=settings,
        progress=lambda stage, step, steps, loss: told.append((stage, step, steps)),
    )
    assert told == [("teacher", 1, 2), ("teacher", 2, 2), *[("student", step, 3) for step in (1, 2, 3)]]


def cornered(count: int, seed: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Coloured images, half of them with a bright upper corner, on the left or on the right."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, count)
    images = draw.integers(0, 100, (count, 8, 8, 3)).astype(np.uint8)
    images[labels == 1, :3, column : column + 3] = 250
    return images, labels


def test_a_model_of_slides_knows_them_mirrored() -> None:
    coloured = Architecture(8, 3, 4, 16, 1, 2, 2, ("plain", "cornered"))
    settings = PretrainSettings(teacher_steps=80, student_steps=80, batch_size=32, fisher_images=8)
    made = pretrain(*cornered(200, 0, 0), *cornered(40, 1, 0), coloured, settings=settings)
    images, labels = cornered(100, 2, 5)
    assert np.mean(predict(network_from(made.package), images).argmax(axis=1) == labels) > 0.9


def test_images_of_another_size_are_refused() -> None:
    images, labels = shades(4, 0)
    with pytest.raises(ShapeError):
        pretrain(images[:, :7], labels, images, labels, TINY, settings=QUICK)


def test_rate_rises_then_falls_to_nothing() -> None:
    rates = [warmed_up_cosine(step / 100, 0.08) for step in range(101)]
    peak = int(np.argmax(rates))
    assert 7 <= peak <= 9
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0)
