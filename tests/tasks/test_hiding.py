"""The second loss of classifiers that regions are mined from."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import foveal
from foveal.config import AugmentConfig
from foveal.tasks.classify import ClassifySetup
from foveal.tasks.hiding import HiddenCells, HiddenRegions

COUNT = 400


def hidden_cells(x, cells, height, width):
    """Return which cells are hidden, bool [B, cells, cells]; all pixels of a cell must agree."""
    hidden = np.empty((len(x), cells, cells), bool)
    rows, columns = ((np.arange(n) + 0.5) * cells // n for n in (height, width))
    for i, j in np.ndindex(cells, cells):
        part = x[:, :, rows == i][..., columns == j].flatten(1)
        assert ((part == 0).all(1) | (part == 1).all(1)).all()
        hidden[:, i, j] = (part == 0).all(1)
    return hidden


@pytest.mark.parametrize(("height", "width", "cells"), [(32, 32, 8), (21, 35, 4)])
def test_cells_are_hidden_with_each_pictures_own_probability(height, width, cells):
    target = torch.rand(COUNT, 3).round()
    hide = HiddenCells(cells, 0.5)
    torch.manual_seed(0)
    x, same = hide(torch.ones(COUNT, 3, height, width), target)
    assert same is target
    share = hidden_cells(x, cells, height, width).mean((1, 2))
    # Uniform between 0 and 1/2, and beside it the draw of the cells: mean and variance follow.
    variance = 0.5**2 / 12 + (0.25 - (0.25**2 + 0.5**2 / 12)) / cells**2
    assert share.mean() == pytest.approx(0.25, abs=4 * (variance / COUNT) ** 0.5)
    assert share.var() == pytest.approx(variance, rel=0.25)
    torch.manual_seed(0)
    assert hide(torch.ones(COUNT, 3, height, width), target)[0].equal(x)
    assert not hide(torch.ones(COUNT, 3, height, width), target)[0].equal(x)


def test_nothing_and_everything_can_be_hidden():
    x, target = torch.rand(2, 3, 16, 16) + 1, torch.ones(2, 2)
    assert HiddenCells(4, 0.0)(x, target)[0].equal(x)
    assert HiddenCells(4, 0.5)(x[:0], target[:0])[0].shape == (0, 3, 16, 16)


def brightness():
    """Return a classifier whose class k is channel k: its activations are the picture itself."""
    first, last = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 3, bias=False)
    first.weight.data = torch.eye(3)[:, :, None, None]
    last.weight.data = torch.eye(3)
    return nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


def test_one_or_two_mined_regions_are_hidden_and_two_are_the_whole_object():
    """An object of a strong and a weak part, and a second one of another class beside it."""
    hide = HiddenRegions(brightness(), 12)
    x = torch.full((1, 3, 12, 12), 0.01)
    strong, weak, other = (
        (slice(0, 3), slice(0, 4)),
        (slice(4, 8), slice(4, 8)),
        (slice(9, 12),) * 2,
    )
    x[0, 0][strong], x[0, 0][weak], x[0, 1][other] = 1.0, 0.4, 1.0
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        target = torch.tensor([[1.0, 1.0, 0.0]])
        hidden, new = hide(x, target)
        assert target.tolist() == [[1, 1, 0]]  # not in place
        gone = (hidden == 0).all(1)[0]
        assert hidden[:, :, ~gone].equal(x[:, :, ~gone])
        parts = [torch.zeros(12, 12, dtype=torch.bool) for _ in range(3)]
        for part, where in zip(parts, (strong, weak, other), strict=True):
            part[where] = True
        if gone.equal(parts[0]):
            case = "strong part"
            assert new.tolist() == [[1, 1, 0]]
        elif gone.equal(parts[0] | parts[1]):
            case = "whole object"
            assert new.tolist() == [[0, 1, 0]]
        elif gone.equal(parts[2]):
            case = "other object, one step"
            assert new.tolist() == [[1, 1, 0]]
        else:  # what is left of the other object is the ground
            case = "other object, two steps"
            assert gone[other].all()
            assert new.tolist() == [[1, 0, 0]]
        seen.add(case)
    assert len(seen) == 4


def test_pictures_without_a_class_are_left_whole():
    hide = HiddenRegions(brightness(), 12)
    x = torch.rand(3, 3, 12, 12)
    hidden, target = hide(x, torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 0]]))
    assert hidden[[0, 2]].equal(x[[0, 2]])
    assert (hidden[1] == 0).any()
    assert not target[[0, 2]].any()
    assert hide(x[:0], torch.zeros(0, 3))[0].shape == (0, 3, 12, 12)


def test_the_copy_mines_with_old_weights_until_it_is_refreshed():
    network = brightness()
    hide = HiddenRegions(network, 12)
    x, target = torch.full((1, 3, 12, 12), 0.1), torch.tensor([[1.0, 0.0, 0.0]])
    x[0, 0, :4], x[0, 1, 8:] = 1.0, 1.0

    def rows():
        torch.manual_seed(0)  # one step
        return set((hide(x, target)[0] == 0).all(1)[0].nonzero()[:, 0].tolist())

    assert rows() == {0, 1, 2, 3}
    network[0].weight.data = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])[:, :, None, None]
    assert rows() == {0, 1, 2, 3}
    hide.refresh(network)
    assert rows() == {8, 9, 10, 11}
    assert not any(p.requires_grad for p in hide.parameters())


def plain(config, **changes):
    """Return a run without mixing, of pictures that may show several classes."""
    augment = AugmentConfig(hflip=0.5, min_scale=0.5)
    return dataclasses.replace(config, augment=augment, multi_label=True, **changes)


def mined(config, **changes):
    """Return a run in which regions are hidden, on maps of 3 x 3 cells."""
    return plain(
        config,
        model="activation_classifier",
        model_args={"output_stride": 8, "pooling": "mean"},
        backbone="test_efficientnet",
        hide_weight=0.5,
        hide_mined=True,
        **changes,
    )


def test_the_loss_is_that_of_both_pictures(config):
    setup = ClassifySetup(plain(config, hide_weight=0.5, hide_probability=1.0))
    task = setup.task().eval()
    batch = next(iter(task.loader))
    torch.manual_seed(1)
    hidden, _ = task.hiding(batch[0], batch[1])
    assert not hidden.equal(batch[0])
    torch.manual_seed(1)
    with torch.no_grad():
        loss = task.training_loss(batch).item()
        logits = [task.model(x).double().numpy() for x in (batch[0], hidden)]
    truth = batch[1].double().numpy()
    terms = [np.log1p(np.exp(-a)) * truth + np.log1p(np.exp(a)) * (1 - truth) for a in logits]
    assert loss == pytest.approx(terms[0].mean() + 0.5 * terms[1].mean(), rel=1e-5)
    assert setup.task(training=False).hiding is None


@pytest.mark.parametrize("kind", ["cells", "mined"])
def test_a_resumed_run_hides_the_same(
    kind, config, replaced, tmp_path, monkeypatch, interrupt_after
):
    config = mined(config) if kind == "mined" else plain(config, hide_weight=0.5)
    config = replaced(config, epochs=2)
    changed, forward = [], HiddenRegions.forward

    def counting(self, x, target):
        hidden = forward(self, x, target)
        changed.append(int((hidden[0] != x).flatten(1).any(1).sum()))
        return hidden

    monkeypatch.setattr(HiddenRegions, "forward", counting)
    whole = foveal.train(replaced(config, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)  # of 5 in an epoch
        with pytest.raises(foveal.tasks.checkpointing.RunInterrupted):
            foveal.train(config)
    run = foveal.train(config, resume=True)
    states = [
        torch.load(r.path / "last.ckpt", weights_only=True)["state_dict"] for r in (run, whole)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(value.equal(states[1][key]) for key, value in states[0].items())
    assert run.metrics == whole.metrics
    if kind == "mined":
        assert sum(changed) > 10
        # The miner's weights are those at the beginning of the last epoch.
        key = "classifier.weight"
        copies = [k for k in states[0] if k.startswith("hiding.") and k.endswith(key)]
        assert len(copies) == 1
        assert not states[0][copies[0]].equal(states[0][f"model.{key}"])
        assert not any(k.startswith("hiding") for k in load_file(run.path / "best.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_label": False, "hide_weight": 0.5}, "hide_weight is for networks that regions"),
        ({"hide_mined": True}, "hide_mined needs the weight of its loss, hide_weight"),
        ({"hide_weight": -1.0}, "hide_weight must be at least 0"),
        ({"hide_cells": 0}, "hide_cells must be at least 1"),
        ({"hide_probability": 1.5}, "hide_probability must lie in"),
        (
            {"hide_weight": 1.0, "hide_mined": True, "augment": AugmentConfig(mixup=0.2)},
            "hide_mined mines one class of a picture",
        ),
    ],
)
def test_wrong_settings_get_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        foveal.ClassifyConfig(**{"multi_label": True} | changes)


def test_a_network_that_cannot_be_mined_is_refused_before_training(config):
    run = plain(config, model="test_vit", model_args={"img_size": 24, "patch_size": 8})
    with pytest.raises(ValueError, match="no class activation maps to mine from"):
        ClassifySetup(dataclasses.replace(run, hide_weight=0.5, hide_mined=True)).task()
