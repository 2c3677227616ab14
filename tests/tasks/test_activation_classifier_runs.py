"""Runs of classifiers that make maps, on a backbone of choice."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import foveal
from foveal.config import AugmentConfig, BackboneConfig, DataConfig, SegmentConfig, to_dict
from foveal.models import create_model
from foveal.tasks.classify import ClassifySetup
from foveal.tasks.run import build_model

ROOT = os.environ.get("FOVEAL_DATA_ROOT")


@pytest.fixture
def maps_config(config):
    """Return a run of one step with a network that makes maps."""
    return dataclasses.replace(
        config,
        augment=AugmentConfig(),
        model="activation_classifier",
        model_args={"output_stride": 8, "pooling": "logsumexp", "sharpness": 3.0},
        backbone="test_efficientnet",
        backbone_args={"drop_path_rate": 0.1},
        multi_label=True,
        max_steps=1,
    )


def test_it_trains_and_is_what_it_was_when_it_is_loaded(maps_config, tmp_path):
    run = foveal.train(maps_config)
    assert {"test/map", "test/accuracy"} <= run.metrics.keys()
    net = run.load()
    assert (net.pooling, net.sharpness, net.num_classes) == ("logsumexp", 3.0, 3)
    assert net.metadata["backbone"] == "test_efficientnet"
    x = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        maps = net.forward_maps(x)[1]
    assert maps.shape == (2, 3, 3, 3)
    report = foveal.export(run, "torch", tmp_path / "net.pt2")
    assert "free axes of the input: batch, height, width" in str(report)
    (prediction,) = foveal.predict(run, [next(Path(maps_config.data.root).rglob("*.png"))])
    assert {name for name, _ in prediction.top} <= set(net.classes)


def test_single_labels_and_other_losses_work_as_well(maps_config):
    config = dataclasses.replace(maps_config, multi_label=False, loss="online_label_smoothing")
    assert 0 <= foveal.train(config).metrics["test/accuracy"] <= 1


def test_the_backbone_can_start_from_a_classifiers_weights(maps_config, tmp_path):
    torch.manual_seed(5)
    whole = create_model("test_efficientnet", num_classes=7)
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    config = dataclasses.replace(maps_config, checkpoint=str(tmp_path / "weights.safetensors"))
    net = build_model(config, ("a", "b", "c"))
    trunk = {k.removeprefix("model."): v for k, v in net.backbone.state_dict().items()}
    taken = [k for k, v in whole.state_dict().items() if k in trunk and trunk[k].equal(v)]
    assert set(taken) == set(trunk)
    save_file(net.state_dict(), tmp_path / "own.safetensors")
    config = dataclasses.replace(maps_config, checkpoint=str(tmp_path / "own.safetensors"))
    again = build_model(config, ("a", "b", "c"))
    assert again.classifier.weight.equal(net.classifier.weight)


def test_the_head_has_a_rate_of_its_own(maps_config):
    task = ClassifySetup(dataclasses.replace(maps_config, head_lr_scale=10.0)).task()
    groups = task.make_optimizer().param_groups
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert rates[id(task.model.classifier.weight)] == 10
    assert {rates[id(p)] for p in task.model.backbone.parameters()} == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is for a network on a backbone, such as activation"),
        ({"backbone_args": {"drop_rate": 0.1}}, "backbone_args is for a network on a backbone"),
        ({"head_lr_scale": 2.0}, "head_lr_scale is for a network on a backbone.* is one itself"),
    ],
)
def test_a_network_that_is_a_backbone_has_none(config, changes, message):
    with pytest.raises(ValueError, match=message):
        build_model(dataclasses.replace(config, **changes), ("a", "b"))


def test_it_belongs_to_classification_alone(maps_config):
    with pytest.raises(ValueError, match=r"unknown model of `foveal train segment` 'activation_c"):
        build_model(SegmentConfig(model="activation_classifier"), ("a", "b"))
    with pytest.raises(ValueError, match=r"model_args\.backbone is --backbone: give it there"):
        build_model(
            dataclasses.replace(maps_config, model_args={"backbone": "resnet18"}), ("a", "b")
        )
    with pytest.raises(ValueError, match="spnet is of another task"):
        build_model(dataclasses.replace(maps_config, model="spnet"), ("a", "b"))


def test_configs_of_older_runs_still_mean_the_same(config):
    values = to_dict(config)
    for field in dataclasses.fields(BackboneConfig):
        if field.name in ("backbone", "backbone_args", "head_lr_scale"):
            del values[field.name]
    assert foveal.config.from_dict(values) == config


@pytest.mark.skipif(not ROOT, reason="FOVEAL_DATA_ROOT is not set")
def test_image_labels_of_vocs_layout_train_it(maps_config):
    data = DataConfig(root=str(Path(ROOT, "mini-voc")), image_size=48, batch_size=8, workers=0)
    run = foveal.train(
        dataclasses.replace(maps_config, data=data, hide_weight=0.5, class_weights="balanced")
    )
    net = run.load()
    assert len(net.classes) == 20
    assert net.classes[0] == "aeroplane"
    assert 0 < run.metrics["test/map"] <= 1
