import json
import math

import pytest
import torch
from torch import nn

from foveal.data.transforms import Preprocess
from foveal.exporting.subject import Subject, named_outputs, relative_deviation


def outputs(*values):
    return {"y": torch.tensor(values)}


@pytest.mark.parametrize(
    ("found", "expected", "deviation"),
    [
        (outputs(1.0, -4.0), outputs(1.0, -4.0), 0.0),
        (outputs(1.5, -4.0), outputs(1.0, -4.0), 0.125),  # 0.5 of 4
        (outputs(0.0), outputs(0.0), 0.0),
        (outputs(1e-9), outputs(0.0), math.inf),
        (outputs(1.0), outputs(1.0, 2.0), math.inf),
        (outputs(1.0), {"z": torch.ones(1)}, math.inf),
        ({"y": torch.empty(0, 3)}, {"y": torch.empty(0, 3)}, 0.0),
        (
            {"a": torch.tensor([8.0]), "b": torch.tensor([1.5])},
            {"a": torch.tensor([8.0]), "b": torch.tensor([1.0])},
            0.5,  # each output is measured by its own largest value
        ),
    ],
)
def test_deviation_is_a_share_of_the_largest_value(found, expected, deviation):
    assert relative_deviation(found, expected) == deviation


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_never_pass(value):
    for found, expected in [(value, value), (value, 1.0), (1.0, value)]:
        assert not relative_deviation(outputs(found), outputs(expected)) <= 1.0


def test_a_later_output_cannot_hide_a_nan():
    found = {"a": torch.tensor([math.nan]), "b": torch.tensor([1.0])}
    assert math.isnan(relative_deviation(found, {"a": torch.ones(1), "b": torch.ones(1)}))


def test_names_of_outputs():
    y = torch.ones(2)
    assert named_outputs(y) == {"logits": y}
    assert list(named_outputs({"b": y, "a": y})) == ["b", "a"]
    with pytest.raises(TypeError, match="not list"):
        named_outputs([y])


@pytest.mark.parametrize("order", [None, "bgr"])
def test_what_a_network_wants_to_see_travels_with_it(order):
    model = nn.Conv2d(3, 2, 3)
    model.default_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    if order:
        model.default_cfg["channel_order"] = order
    metadata = Subject.of(model, image_size=8, metadata={}).metadata
    assert json.loads(metadata["normalization"]) == {
        "channel_order": order or "rgb",
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0, 1.0, 1.0],
    }
    model.preprocess = Preprocess(8, channel_order="bgr")  # of a run: all there is to know
    metadata = Subject.of(model, image_size=8, metadata={}).metadata
    assert "normalization" not in metadata
    assert json.loads(metadata["preprocess"])["channel_order"] == "bgr"
