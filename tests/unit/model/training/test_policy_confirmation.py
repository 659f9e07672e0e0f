from __future__ import annotations

import torch
from medloop_model.training.policy import confirmed_classes

OLD_ANSWERS = torch.arange(3).repeat_interleave(40)
OLD_LABELS = OLD_ANSWERS.clone()
OLD_LABELS[::20] = (OLD_LABELS[::20] + 1) % 3  # the base model errs on 5 %


def confirmed(new_labels: torch.Tensor, new_answers: torch.Tensor) -> list[bool]:
    return confirmed_classes(OLD_ANSWERS, OLD_LABELS, new_answers, new_labels, doubt=2.0).tolist()


def test_two_classes_that_swap_names_are_in_doubt_and_the_third_is_not() -> None:
    answers = torch.arange(3).repeat(5)
    swapped = torch.tensor([1, 0, 2])[answers]
    assert confirmed(swapped, answers) == [False, False, True]


def test_a_class_that_is_often_called_another_is_in_doubt() -> None:
    answers = torch.ones(20, dtype=torch.int64)
    labels = answers.clone()
    labels[:6] = 0
    assert confirmed(labels, answers) == [True, False, True]


def test_one_error_among_few_labels_is_no_doubt() -> None:
    answers = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    labels = torch.tensor([1, 0, 0, 0, 0, 0, 1, 2])
    assert confirmed(labels, answers) == [True, True, True]


def test_a_class_without_new_labels_is_confirmed() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert confirmed(none, none) == [True, True, True]
