"""The authors' layout, against a reference of torch layers written from the description."""

import json
import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import foveal
from foveal.models.bottleneck_classifier import BottleneckClassifier

KEYS = Path(__file__).parents[1] / "fixtures" / "panda" / "official_keys.json"


class Classifier(nn.Module):
    """A torchvision ResNet whose parts are held a second time in a Sequential."""

    def __init__(self, resnet, classes=7, width=16):
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(resnet, name))
        self.avgpool = resnet.avgpool
        self.feature_layers = nn.Sequential(
            *(self.conv1, self.bn1, self.relu, self.maxpool),
            *(self.layer1, self.layer2, self.layer3, self.layer4, self.avgpool),
        )
        self.bottleneck = nn.Linear(resnet.fc.in_features, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        f = self.bottleneck(self.feature_layers(x).flatten(1))
        return f, self.fc(f)


def reference(name="resnet18"):
    torch.manual_seed(0)
    net = Classifier(getattr(torchvision.models, name)())
    for key, value in net.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return net.double().eval()


def shapes(name):
    return json.loads(KEYS.read_text())[name]


@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("resnet50", 33)])
def test_features_and_logits_are_the_references(name, side):
    net = reference(name)
    ours = foveal.load_official({"state_dict": net.state_dict(), "epoch": 3}).double()
    assert isinstance(ours, BottleneckClassifier)
    assert not ours.training
    assert ours.default_cfg["architecture"] == name
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        f, z = net(x)
        torch.testing.assert_close(ours.features(x), f, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours(x), z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", [f"ResNetFc(ResNet{d}, bottleneck_dim=256, class_num=65)" for d in (18, 50)]
)
def test_the_authors_keys_load_at_full_size(name):
    state = {k: torch.full(shape, 0.5) for k, shape in shapes(name).items()}
    net = foveal.load_official({f"module.{k}": v for k, v in state.items()})
    assert net.classifier.weight.shape == (65, 256)
    # every tensor is there once, and no other
    own = {k: math.prod(s) for k, s in shapes(name).items() if not k.startswith("feature_layers.")}
    assert sum(v.numel() for v in net.state_dict().values()) == sum(own.values())


def test_the_discriminator_drops_the_layer_that_is_never_called():
    torch.manual_seed(0)
    state = {k: torch.randn(s) / 20 for k, s in shapes("AdversarialNetwork(512, 1024)").items()}
    net = foveal.load_official(state)
    x = torch.randn(5, 512)
    h = (x @ state["ad_layer1.weight"].T + state["ad_layer1.bias"]).relu()
    logits = h @ state["ad_layer3.weight"][0] + state["ad_layer3.bias"]
    torch.testing.assert_close(net(x), logits, rtol=1e-4, atol=1e-4)
    without = {k: v for k, v in state.items() if "ad_layer2" not in k}
    assert foveal.load_official(without)(x).equal(net(x))


def small():
    return {k: v.float() for k, v in reference().state_dict().items()}


def changed(**values):
    return {**small(), **{k.replace("__", "."): v for k, v in values.items()}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: {k: v for k, v in small().items() if k != "fc.bias"}, "missing: fc.bias"),
        (lambda: changed(fc2__weight=torch.zeros(1)), "unexpected: fc2.weight"),
        (
            lambda: changed(feature_layers__0__weight=torch.zeros(64, 3, 7, 7)),
            "not the double of a tensor of the trunk: feature_layers.0.weight",
        ),
        (lambda: changed(feature_layers__3__weight=torch.zeros(1)), "feature_layers.3.weight"),
        (lambda: changed(bottleneck__weight=torch.zeros(16, 99)), r"bottleneck.weight \[16, 99\]"),
        (lambda: changed(fc__weight=torch.zeros(7)), "shapes: fc.weight"),
        (lambda: {"ad_layer1.weight": torch.zeros(4, 3)}, "missing: .*ad_layer3.weight"),
    ],
)
def test_what_does_not_fit_is_named(state, message):
    with pytest.raises(ValueError, match=message):
        foveal.load_official(state())
