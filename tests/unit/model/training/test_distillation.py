from __future__ import annotations

import numpy as np
import pytest
import torch
from medloop_model.training.distillation import FeatureProjection, agrees_with_label, distillation_loss

STUDENT = np.array([[1.0, -0.5, 0.2], [0.0, 2.0, -1.0]])
TEACHER = np.array([[2.0, 0.0, -1.0], [1.0, 0.5, 0.0]])
LABELS = np.array([0, 2])


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    shares: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def by_hand(alpha: float, temperature: float, trusted: np.ndarray) -> float:
    cross_entropy = -np.log(softmax(STUDENT)[np.arange(2), LABELS])
    p, q = softmax(TEACHER / temperature), softmax(STUDENT / temperature)
    divergence = (p * np.log(p / q)).sum(axis=1)
    mixed = alpha * cross_entropy + (1 - alpha) * temperature**2 * divergence
    return float(np.where(trusted, mixed, cross_entropy).mean())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("trusted", [(True, True), (True, False), (False, False)])
def test_loss_is_the_formula_worked_out_by_hand(
    alpha: float, temperature: float, trusted: tuple[bool, bool]
) -> None:
    loss = distillation_loss(
        torch.tensor(STUDENT),
        torch.tensor(TEACHER),
        torch.tensor(LABELS),
        alpha=alpha,
        temperature=temperature,
        trusted_B=torch.tensor(trusted),
    )
    assert loss.item() == pytest.approx(by_hand(alpha, temperature, np.array(trusted)), rel=1e-6)


def test_a_teacher_of_fewer_classes_speaks_of_the_first_ones() -> None:
    two, labels = torch.tensor(TEACHER[:, :2]), torch.tensor([0, 1])
    student = torch.tensor(STUDENT)
    with_new_class = distillation_loss(student, two, labels, alpha=0.0, temperature=2.0)
    without = distillation_loss(student[:, :2], two, labels, alpha=0.0, temperature=2.0)
    assert with_new_class.item() == pytest.approx(without.item())


def test_a_distrusted_teacher_sends_no_gradient() -> None:
    student = torch.tensor(STUDENT, requires_grad=True)
    common = {"alpha": 0.0, "temperature": 2.0, "trusted_B": torch.tensor([True, False])}
    labels = torch.tensor([0, 0])
    distillation_loss(student, torch.tensor(TEACHER), labels, **common).backward()  # type: ignore[arg-type, no-untyped-call]
    expected = (softmax(STUDENT)[1] - np.array([1, 0, 0])) / 2  # cross entropy's, over a batch of two
    assert student.grad is not None
    np.testing.assert_allclose(student.grad[1], expected, rtol=1e-6)


def test_agreement_is_where_the_teachers_class_is_the_label() -> None:
    assert agrees_with_label(torch.tensor(TEACHER), torch.tensor(LABELS)).tolist() == [True, False]


def test_features_are_missed_by_nothing_at_first_and_by_a_share_of_the_variance_later() -> None:
    teacher_BTD = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    projection = FeatureProjection(5)
    assert projection(teacher_BTD, teacher_BTD).item() == 0
    wrong = projection(torch.zeros_like(teacher_BTD), teacher_BTD).item()
    values = teacher_BTD.numpy()
    assert wrong == pytest.approx((values**2).mean() / values.var(ddof=1))


def test_a_projection_learns_another_basis() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher_BTD = torch.randn(8, 4, 5, generator=generator)
    student_BTD = teacher_BTD @ torch.randn(5, 5, generator=generator)
    projection = FeatureProjection(5)
    optimiser = torch.optim.LBFGS(projection.parameters(), max_iter=200)

    def missed() -> float:
        optimiser.zero_grad()
        loss = projection(student_BTD, teacher_BTD)
        loss.backward()
        return loss.item()

    before = missed()
    optimiser.step(missed)
    assert missed() < 0.01 * before
