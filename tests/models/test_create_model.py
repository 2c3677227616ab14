import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

import foveal.models
from foveal.models import create_model, list_models


def test_timms_networks_are_known_too():
    assert type(create_model("resnet18", num_classes=3)).__name__ == "ResNet"


def test_no_name_of_ours_is_timms_own():
    # In a fresh process: importing foveal.models would have replaced timm's entry by ours.
    script = "import timm; print(*timm.list_models())"
    timms = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(timms) > 1000
    assert set(list_models()).isdisjoint(timms)


def test_list_models_puts_ours_first_and_finds_timms_by_pattern():
    own = list_models()
    assert own == [
        name for task in ("segment", "dense", "classify") for name in list_models(task=task)
    ]
    assert {"mobilenetv2_100_coordinate", "resnet18_triplet"} <= set(own)
    assert {"mobilenetv2_100", "resnet18"}.isdisjoint(own)
    both = list_models("mobilenetv2_100*")
    ours = [name for name in own if name.startswith("mobilenetv2_100")]
    assert both[: len(ours)] == ours
    assert "mobilenetv2_100" in both[len(ours) :]
    assert list_models("resnet18") == ["resnet18"]
    assert list_models("no_such_*") == []


def test_task_networks_come_first(monkeypatch):
    def factory(*, pretrained, num_classes, in_chans, width=4):
        return torch.nn.Conv2d(in_chans, num_classes, width)

    monkeypatch.setitem(foveal.models.TASK_NETWORKS, "stub", ("segment", factory))
    net = create_model("stub", num_classes=2, in_chans=5, width=3)
    assert net.weight.shape == (2, 5, 3, 3)
    assert list_models(task="segment") == ["spnet", "deeplabv3", "lraspp", "stub"]
    assert "stub" in list_models()
    assert "stub" not in list_models(task="classify")
    with pytest.raises(ValueError, match="features_only is for classification networks"):
        create_model("stub", features_only=True)
    with pytest.raises(TypeError, match="unknown stub argument 'widht': did you mean 'width'"):
        create_model("stub", widht=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"name": "mobilenetv2_100_cordinate"},
            ValueError,
            "unknown model 'mobilenetv2_100_cordinate': did you mean 'mobilenetv2_100_coordinate'?",
        ),
        (
            {"name": "mobilenetv2_100.ra_in2k"},
            ValueError,
            "unknown weights 'mobilenetv2_100.ra_in2k': did you mean 'mobilenetv2_100.ra_in1k'?",
        ),
        (
            {"name": "mobilenetv2_050_se", "reducton": 8},
            TypeError,
            "unknown mobilenetv2_050_se argument 'reducton': did you mean 'reduction'?",
        ),
        (
            {"name": "mobilenetv2_050", "stem_strid": 1},
            TypeError,
            "unknown mobilenetv2_050 argument 'stem_strid': did you mean 'stem_stride'?",
        ),
        (
            {"name": "resnet18", "drop_rat": 0.1},
            TypeError,
            "unknown resnet18 argument 'drop_rat': did you mean 'drop_rate'?",
        ),
        (
            {"name": "resnet18", "num_classes": -1},
            ValueError,
            "num_classes must be 0 or more, not -1",
        ),
        ({"name": "resnet18", "in_chans": 0}, ValueError, "in_chans must be at least 1, not 0"),
        (
            {"name": "mobilenetv2_075_coordinate", "pretrained": True},
            ValueError,
            "there are no published weights for 'mobilenetv2_075_coordinate': leave pretrained "
            "out, or pass checkpoint_path",
        ),
        (
            {"name": "resnet18", "pretrained": True, "pretrained_cfg_overlay": {"file": "a.pth"}},
            FileNotFoundError,
            "there is no file of weights 'a.pth'",
        ),
        (
            {"name": "resnet18", "checkpoint_path": "b.pth"},
            FileNotFoundError,
            "there is no checkpoint file 'b.pth'",
        ),
    ],
)
def test_wrong_input_gets_one_sentence(arguments, error, message):
    with pytest.raises(error) as caught:
        create_model(**arguments)
    assert str(caught.value) == message


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'clasify': did you mean 'classify'"):
        list_models(task="clasify")


def test_without_network_pretrained_says_so(monkeypatch):
    def no_network(*args, **kw):
        raise FileNotFoundError("We cannot find the files.\nPlease check your connection")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", no_network)
    with pytest.raises(
        OSError, match="weights of 'mobilenetv2_100_se' cannot be fetched"
    ) as caught:
        create_model("mobilenetv2_100_se", pretrained=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_checkpoints_load_whole(tmp_path, ending):
    source = create_model("mobilenetv2_050_coordinate", num_classes=4)
    path = tmp_path / f"weights.{ending}"
    save = save_file if ending == "safetensors" else torch.save
    save(source.state_dict(), path)
    net = create_model("mobilenetv2_050_coordinate", num_classes=4, checkpoint_path=path)
    for key, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[key], value)


def test_a_checkpoint_of_other_classes_says_which(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(create_model("mobilenetv2_050_se", num_classes=4).state_dict(), path)
    with pytest.raises(
        ValueError, match="trained for 4 classes and the network has 1000"
    ) as caught:
        create_model("mobilenetv2_050_se", checkpoint_path=path)
    assert "num_classes=4" in str(caught.value)


def test_a_checkpoint_that_does_not_fit_says_which_keys_and_shapes(tmp_path):
    path = tmp_path / "weights.pth"
    state = create_model("mobilenetv2_050_se", num_classes=4).state_dict()
    del state["bn1.bias"]
    state["other.weight"] = torch.zeros(2)
    state["conv_stem.weight"] = torch.zeros(16, 1, 3, 3)
    torch.save(state, path)
    with pytest.raises(ValueError, match="does not fit EfficientNet") as caught:
        create_model("mobilenetv2_050_se", num_classes=4, checkpoint_path=path)
    message = str(caught.value)
    assert "missing: bn1.bias" in message
    assert "unexpected: other.weight" in message
    assert "conv_stem.weight [16, 1, 3, 3] where the network has [16, 3, 3, 3]" in message
    assert "\n" not in message
