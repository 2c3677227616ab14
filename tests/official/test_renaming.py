import pytest
import torch
from torch import nn

from foveal.official.renaming import check_keys, load_renamed, rename

MODULES = {"old.0": "new", "old.1": "last"}


def test_module_names_are_replaced_and_leaves_stay():
    assert rename("old.0.weight", MODULES) == "new.weight"
    assert rename("else.weight", MODULES) == "else.weight"
    assert rename("old.00.weight", MODULES) == "old.00.weight"


def network():
    net = nn.Module()
    net.new, net.last = nn.Linear(2, 3), nn.Linear(3, 1, bias=False)
    return net


def test_loads_under_the_new_names():
    state = {
        "old.0.weight": torch.ones(3, 2),
        "old.0.bias": torch.zeros(3),
        "old.1.weight": torch.full((1, 3), 2.0),
    }
    net = network()
    check_keys(net, state, MODULES, "a net")
    load_renamed(net, state, MODULES, "a net")
    assert torch.equal(net.last.weight, state["old.1.weight"])
    state["old.0.bias"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"shapes: old.0.bias \[4\] where the network has \[3\]"):
        load_renamed(net, state, MODULES, "a net")


def test_keys_are_listed_in_the_old_names():
    with pytest.raises(
        ValueError, match=r"missing: old.0.bias, old.1.weight; unexpected: new.bias"
    ):
        check_keys(
            network(),
            {"old.0.weight": torch.ones(3, 2), "new.bias": torch.zeros(3)},
            MODULES,
            "a net",
        )
