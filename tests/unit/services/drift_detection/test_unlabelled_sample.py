from __future__ import annotations

from collections import Counter

from medloop_services.drift_detection.state import PredictedImage
from medloop_services.drift_detection.unlabelled import A_CLASS, RECENT, drawn


def waiting(images: int, rare: int = 10, name: str = "image") -> dict[str, PredictedImage]:
    return {
        f"{name}-{n}": PredictedImage(sequence=n, predicted_class=int(n % rare == 0)) for n in range(images)
    }


def test_each_predicted_class_is_drawn_from_alike() -> None:
    counts = Counter(image.predicted_class for image in drawn(waiting(200)))
    assert counts == {0: A_CLASS, 1: A_CLASS}


def test_a_rare_class_gives_what_it_has_and_old_images_are_left_alone() -> None:
    sample = drawn(waiting(1000, rare=64))
    assert Counter(image.predicted_class for image in sample) == {0: A_CLASS, 1: 4}
    assert min(image.sequence for image in sample) >= 1000 - RECENT


def test_every_image_of_a_class_is_drawn_as_often() -> None:
    times: Counter[int] = Counter()
    for trial in range(1500):
        times.update(image.sequence for image in drawn(waiting(48, rare=2, name=f"trial-{trial}")))
    expected = 1500 * A_CLASS / 24
    assert len(times) == 48
    assert max(abs(count - expected) for count in times.values()) < 5 * expected**0.5


def test_the_draw_depends_on_ids_alone() -> None:
    images = waiting(200)
    shuffled = dict(sorted(images.items()))
    assert set(drawn(images)) == set(drawn(shuffled))
    assert drawn({}) == ()
