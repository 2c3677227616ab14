"""Runs whose network has inserted layers: everything a run can do, it does with them."""

import dataclasses
import json

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import foveal
from foveal.config import Insertion
from foveal.surgery import inserted_layers
from foveal.tasks.checkpointing import RunInterrupted, SaveRun
from foveal.tasks.run import build_model

LAYERS = (
    Insertion(layer="coordinate", where="blocks", identity=True),
    Insertion(layer="triplet", where="layer4.0", layer_args={"kernel_size": 3}),
)


@pytest.fixture
def inserted(config):
    return dataclasses.replace(config, model="test_resnet", model_args={}, insert=LAYERS)


def test_the_config_holds_the_insertion_and_every_command_rebuilds_it(inserted, tmp_path, colors):
    run = foveal.train(inserted)
    saved = yaml.safe_load((run.path / "config.yaml").read_text())
    assert saved["insert"] == [
        {"layer": "coordinate", "where": "blocks", "identity": True, "layer_args": {}},
        {
            "layer": "triplet",
            "where": "layer4.0",
            "identity": False,
            "layer_args": {"kernel_size": 3},
        },
    ]
    weights = load_file(run.path / "best.safetensors")
    model = run.load()
    layers = inserted_layers(model)
    assert layers["layer4.0.inserted"].scale.any()  # it was trained
    assert layers["layer4.0.inserted_2"].layer.cw.conv.conv.weight.shape == (1, 2, 3, 3)
    assert model.state_dict().keys() == weights.keys()
    scores = foveal.evaluate(run).scores
    assert scores["test/accuracy"] == pytest.approx(run.metrics["test/accuracy"])
    assert len(foveal.predict(run, [colors / "test" / "blue"])) == 5
    report = foveal.export(run, "torch", tmp_path / "net.pt2")
    exported = torch.export.load(report.path).module()
    x = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_onnx_files_hold_the_layers(inserted, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra foveal[export]")
    run = foveal.train(dataclasses.replace(inserted, max_steps=1))
    report = foveal.export(run, "onnx", tmp_path / "net.onnx")  # raises unless it is equal
    assert max(check.deviation for check in report.checks) <= 1e-4


def test_a_stopped_run_goes_on_with_its_layers_bit_for_bit(inserted, tmp_path, monkeypatch):
    whole = foveal.train(dataclasses.replace(inserted, out=str(tmp_path / "whole")))

    def stop(self, trainer, task, *args):
        if trainer.global_step == 4:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(SaveRun, "on_train_batch_end", stop, raising=False)
    with pytest.raises(RunInterrupted):
        foveal.train(inserted)
    resumed = foveal.train(inserted, resume=True)
    first, second = (load_file(run.path / "best.safetensors") for run in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_checkpoint_of_the_plain_network_is_loaded_before_the_layers_go_in(inserted, tmp_path):
    plain = foveal.create_model("test_resnet", num_classes=3)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    model = build_model(
        dataclasses.replace(inserted, checkpoint=str(tmp_path / "plain.pth")), "abc"
    ).eval()
    trunk = {key: value for key, value in model.state_dict().items() if "inserted" not in key}
    assert all(torch.equal(trunk[key], value) for key, value in plain.state_dict().items())
    assert trunk.keys() == plain.state_dict().keys()


def test_a_checkpoint_with_the_layers_is_loaded_after(inserted, tmp_path):
    first = build_model(inserted, "abc")
    nn.init.constant_(first.layer4[0].inserted.scale, 0.3)
    torch.save(first.state_dict(), tmp_path / "all.pth")
    path = str(tmp_path / "all.pth")
    model = build_model(dataclasses.replace(inserted, checkpoint=path), "abc")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in first.state_dict().items())
    other = dataclasses.replace(inserted, checkpoint=path, insert=LAYERS[:1])
    with pytest.raises(ValueError, match=r"does not fit ResNet: unexpected: layer4\.0\.inserted_2"):
        build_model(other, "abc")


def test_resuming_with_another_insertion_is_refused(inserted):
    foveal.train(dataclasses.replace(inserted, epochs=1))
    other = dataclasses.replace(inserted, epochs=1, insert=LAYERS[:1])
    with pytest.raises(ValueError, match=r"the run in .* has another insert"):
        foveal.train(other, resume=True)


def test_the_file_of_weights_says_what_was_inserted(inserted):
    model = foveal.train(dataclasses.replace(inserted, max_steps=1)).load()
    assert [entry["layer"] for entry in json.loads(model.metadata["insert"])] == [
        "coordinate",
        "triplet",
    ]


def test_a_place_that_does_not_exist_stops_the_run_before_it_begins(inserted, tmp_path):
    wrong = dataclasses.replace(inserted, insert=(Insertion(layer="se", where="layer9"),))
    with pytest.raises(ValueError, match="where='layer9' matches no module of ResNet"):
        foveal.train(wrong)
    assert not (tmp_path / "run").exists()
