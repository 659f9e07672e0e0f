"""What an engine stores of a ternary linear, against a recorded form: a change breaks stored engines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medloop_kernels import LayoutError, LinearWeights, ShapeError, pack
from medloop_kernels.tensorrt.fields import PLUGIN_NAME, PLUGIN_VERSION, deserialized, fields_of

RECORDED = Path(__file__).with_name("ternary_linear_fields.json")


def linear() -> LinearWeights:
    codes = np.array([[1, -1, 0, 1], [0, 0, -1, 1], [-1, 1, 1, 0]], np.int8)
    return LinearWeights(
        weights=pack(codes),
        inputs=4,
        bias=np.array([0.5, -0.25, 2.0], np.float32),
        scale=np.array([0.125, 1.0, 0.75], np.float32),
        norm=np.array([1.0, 0.5, 1.5, 1.25], np.float32),
    )


def stored(gelu: bool) -> dict[str, np.ndarray]:
    return {field.name: field.data for field in fields_of(linear(), gelu=gelu).serialized()}


def test_the_fields_are_as_recorded():
    recorded = json.loads(RECORDED.read_text())
    assert (recorded["plugin"], recorded["version"]) == (PLUGIN_NAME, PLUGIN_VERSION)
    assert recorded["fields"] == [
        {
            "name": field.name,
            "type": field.type,
            "count": field.data.size,
            "bytes": field.data.tobytes().hex(),
        }
        for field in fields_of(linear(), gelu=True).serialized()
    ]


@pytest.mark.parametrize("gelu", [False, True])
def test_an_engine_gives_back_what_it_was_given(gelu):
    fields = deserialized(stored(gelu))
    given = linear()
    assert (fields.inputs, fields.outputs, fields.gelu) == (4, 3, gelu)
    np.testing.assert_array_equal(fields.packed, given.weights)
    for name in ("norm", "scale", "bias"):
        np.testing.assert_array_equal(getattr(fields, name), getattr(given, name))


def test_every_field_is_needed():
    for name in stored(gelu=False):
        rest = {key: data for key, data in stored(gelu=False).items() if key != name}
        with pytest.raises(LayoutError, match=f"lacks {name} .* build it again"):
            deserialized(rest)


@pytest.mark.parametrize(
    ("name", "error"),
    [("packed", LayoutError), ("bias", LayoutError), ("norm", None), ("scale", ShapeError)],
)
def test_a_field_that_was_cut_short_is_refused(name, error):
    fields = stored(gelu=False)
    cut = {**fields, name: fields[name][:-1]}
    if error is None:  # 3 inputs take as many bytes as 4
        assert deserialized(cut).inputs == 3
        return
    with pytest.raises(error):
        deserialized(cut)


def test_more_inputs_than_the_packed_width_are_refused():
    with pytest.raises(LayoutError, match="129 inputs take uint8"):
        fields_of(replace(linear(), inputs=129, norm=np.ones(129, np.float32)), gelu=False)
