from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medloop_model.architecture import Architecture, paper, ward
from medloop_model.errors import UnsupportedArchitecture

CLASSES = ("normal", "pneumonia")


@pytest.mark.parametrize(("side", "patch", "tokens"), [(28, 4, 49), (64, 8, 64), (32, 4, 64), (224, 28, 64)])
def test_ward_cuts_any_common_size_into_49_to_64_tokens(side: int, patch: int, tokens: int) -> None:
    architecture = ward(side, 1, CLASSES)
    assert (architecture.patch_size, architecture.tokens) == (patch, tokens)


def test_ward_refuses_a_size_it_cannot_cut() -> None:
    with pytest.raises(UnsupportedArchitecture, match="29 px"):
        ward(29, 1, CLASSES)


def test_paper_has_the_published_measures() -> None:
    architecture = paper(3, CLASSES)
    assert (architecture.tokens, architecture.width, architecture.depth) == (1024, 512, 3)
    assert not architecture.ternary_attention


def test_all_ternary_is_every_switch_and_the_teacher_has_none() -> None:
    everything = paper(3, CLASSES).all_ternary()
    assert everything.ternary_attention
    assert everything.ternary_patch
    assert everything.ternary_position
    assert everything.ternary_head
    assert everything.ternary_norms
    assert not everything.full_precision().quantized


def test_a_package_from_before_the_switches_is_still_read() -> None:
    fields = json.loads(ward(28, 1, CLASSES).to_json())
    for switch in ("ternary_patch", "ternary_position", "ternary_head", "ternary_norms"):
        del fields[switch]
    assert Architecture.from_json(json.dumps(fields)) == ward(28, 1, CLASSES)


@given(
    patches=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    heads=st.tuples(st.integers(1, 4), st.integers(1, 16)),
    classes=st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True),
    switches=st.tuples(st.booleans(), st.booleans()),
)
def test_json_round_trip(
    patches: tuple[int, int], heads: tuple[int, int], classes: list[str], switches: tuple[bool, bool]
) -> None:
    architecture = Architecture(
        patches[0] * patches[1], 3, patches[0], heads[0] * heads[1], 2, heads[0], 2, tuple(classes), *switches
    )
    assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"classes":["a","b"],"depth":3}', '{"classes":3}'])
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedArchitecture):
        Architecture.from_json(text)


@pytest.mark.parametrize(
    "measures",
    [
        {"patch_size": 5},
        {"heads": 5},
        {"channels": 2},
        {"depth": 0},
        {"classes": ("one",)},
        {"classes": ("same", "same")},
    ],
)
def test_measures_that_do_not_fit_are_refused(measures: dict[str, object]) -> None:
    fitting: dict[str, object] = {
        "image_size": 28,
        "channels": 1,
        "patch_size": 4,
        "width": 96,
        "depth": 4,
        "heads": 3,
        "mlp_ratio": 2,
        "classes": CLASSES,
    }
    with pytest.raises(UnsupportedArchitecture):
        Architecture(**{**fitting, **measures})  # type: ignore[arg-type]
