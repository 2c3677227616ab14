import argparse
import collections
import fractions

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models import load_state_dict
from torch import nn

from foveal.models.checkpoints import find_state_dict, load_weights, read_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        collections.OrderedDict(STATE),
        {f"module.{k}": v for k, v in STATE.items()},
        {f"_orig_mod.module.{k}": v for k, v in STATE.items()},
        {"state_dict": STATE},
        {"model": STATE, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "epoch": 3},
        {"net": {"state_dict": {f"module.{k}": v for k, v in STATE.items()}}},
        {"state_dict": STATE, "mean": torch.zeros(3)},
    ],
)
def test_weights_are_found_wherever_scripts_put_them(checkpoint):
    assert same(find_state_dict(checkpoint))


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema"])
def test_averaged_weights_are_taken_as_timm_does_or_passed_over(tmp_path, name):
    averaged = {f"module.{k}": v + 1 for k, v in STATE.items()}
    for other in ("state_dict", "model"):
        checkpoint = {other: STATE, name: averaged, "epoch": 3}
        path = tmp_path / "checkpoint.pth"
        torch.save(checkpoint, path)
        assert find_state_dict(checkpoint)["a.bias"].tolist() == [2, 2]
        assert load_state_dict(path)["a.bias"].tolist() == [2, 2]  # timm's own reader
        assert same(find_state_dict(checkpoint, ema=False))
    assert same(find_state_dict({"state_dict": STATE, name: None}))
    with pytest.raises(ValueError, match=rf"no weights: its entries are {name}"):
        find_state_dict({name: averaged}, ema=False)


@pytest.mark.parametrize("with_prefix", [["a.weight"], []])
def test_a_prefix_of_only_some_keys_stays(with_prefix):
    state = {("module." if k in with_prefix else "") + k: v for k, v in STATE.items()}
    assert find_state_dict(state).keys() == state.keys()


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ([1, 2], "must be a dict of tensors, not list"),
        ({"epoch": 3, "best": 0.5}, "has no weights: its entries are epoch, best"),
        ({}, "has no weights: its entries are none"),
        ({"state_dict": {**STATE, "epoch": 3}}, "must be tensors, and epoch are not"),
    ],
)
def test_a_checkpoint_without_clean_weights_is_refused(checkpoint, message):
    with pytest.raises(ValueError, match=message):
        find_state_dict(checkpoint)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_scripts_save_beside_the_weights_is_read(tmp_path, legacy):
    path = tmp_path / "checkpoint.pth.tar"
    extra = {
        "args": argparse.Namespace(lr=0.1, name="run", sizes=[1, 2]),
        "best": np.float64(0.75),
        "epoch": np.int64(3),
        "rate": np.float32(0.5),
        "state_dict": collections.OrderedDict(STATE),
    }
    torch.save(extra, path, _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(path)
    assert same(find_state_dict(read))
    assert read["args"].sizes == [1, 2]
    assert (read["best"], read["epoch"], read["rate"]) == (0.75, 3, 0.5)


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint was run')",))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("thing", "name"),
    [(Harmful(), "exec"), (fractions.Fraction(1, 2), "fractions.Fraction"), (nn.ReLU(), "ReLU")],
)
def test_other_objects_are_named_and_refused(tmp_path, thing, name, legacy):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": STATE, "x": thing}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=f"holds an object of type .*{name}") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_files_are_refused_by_name(tmp_path, ending, content):
    path = tmp_path / f"weights.{ending}"
    if content is None:
        (save_file if ending == "safetensors" else torch.save)(STATE, path)
        content = path.read_bytes()[:-20]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.\w+' is not a readable") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no checkpoint file"):
            read_checkpoint(path)


def test_long_lists_of_keys_are_cut_and_counted():
    net = nn.Sequential(*[nn.Linear(1, 1) for _ in range(20)])
    with pytest.raises(ValueError, match=r"missing: 0\.weight, .* and 28 more$"):
        load_weights(net, {}, "nothing")
