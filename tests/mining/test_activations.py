"""Classifiers of all kinds as models of the miner."""

import pytest
import timm
import torch
import torchvision

import foveal
from foveal.config import DataConfig
from foveal.explanation import activation_maps
from foveal.mining import MiningConfig, RegionMiner, with_activations
from foveal.models import create_model

CNNS = {
    "timm's resnet": lambda: timm.create_model("test_resnet", num_classes=5),
    "timm's efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "ours": lambda: create_model("mobilenetv2_050_coordinate", num_classes=5),
    "torchvision's": lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25),
    "channels last": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=64, embed_dim=24,
        depths=(1, 1), num_heads=(1, 2), window_size=4,
    ),
    "activation classifier": lambda: create_model(
        "activation_classifier", backbone="test_efficientnet", num_classes=5, pooling="mean"
    ),
}  # fmt: skip


def pictures(count=2, height=64, width=64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=generator)


@pytest.fixture(params=CNNS)
def net(request):
    torch.manual_seed(0)
    net = CNNS[request.param]().eval()
    for name, parameter in net.named_parameters():  # biases start at 0 and would hide mistakes
        if name.endswith("bias") and len(parameter) == 5:
            torch.nn.init.normal_(parameter)
    return net


def test_activations_average_to_the_logits_without_the_bias(net):
    model = with_activations(net, pictures(1))
    x = pictures()
    with torch.no_grad():
        logits, maps = model(x)
        torch.testing.assert_close(logits, net(x))
    classifier = net.get_classifier() if hasattr(net, "get_classifier") else net.classifier[1]
    bias = 0 if classifier.bias is None else classifier.bias
    torch.testing.assert_close(maps.mean((2, 3)) + bias, logits, rtol=1e-3, atol=1e-4)
    assert maps.shape[:2] == (2, 5)
    assert maps.min() < 0  # both signs


def test_activations_are_those_of_explain(net):
    x = pictures()
    with torch.no_grad():
        _, maps = with_activations(net, x)(x)
    truth = activation_maps(net, x, "all", "cam").maps
    torch.testing.assert_close(maps.relu(), truth, rtol=1e-4, atol=1e-6)


def test_head_and_features_are_the_two_halves(net):
    model = with_activations(net, pictures(1))
    with torch.no_grad():
        features = model.features(pictures())
        halves, whole = model.head(features), model(pictures())
        shorter = features.clone()
        shorter[:, :, 0] = 0
        erased = model.head(shorter)[1]
    for half, one in zip(halves, whole, strict=True):
        torch.testing.assert_close(half, one, rtol=1e-3, atol=1e-4)
    assert not erased[:, :, 0].any()
    torch.testing.assert_close(erased[:, :, 1:], halves[1][:, :, 1:])


@pytest.mark.parametrize("erase", ["pixel", "feature"])
def test_the_miner_takes_it(net, erase):
    config = MiningConfig(mode="relative", keep=0.1, max_steps=3, min_area=1, erase=erase)
    model = with_activations(net, pictures(1))
    labels = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 1, 0]])
    found = RegionMiner(model, config).mine(pictures(), labels)
    assert found.pairs.tolist() == [[0, 0], [0, 2], [1, 3]]
    assert not net.training


def test_views_are_averaged_as_explain_does():
    torch.manual_seed(0)
    net, x = CNNS["ours"]().eval(), pictures(2, 64, 96)
    settings = {"scales": (0.5, 1.0, 1.5, 2.0), "mirror": True}
    model = with_activations(net, x, **settings)
    with torch.no_grad():
        logits, maps = model(x)
    size = tuple(maps.shape[2:])
    assert size == (2, 3)
    truth = activation_maps(net, x, "all", "cam", relu=False, size=size, **settings).maps
    torch.testing.assert_close(maps, truth, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, net(x))
    mirrored = with_activations(net, x, mirror=True)
    with torch.no_grad():
        a, b = mirrored(x)[1], mirrored(x.flip(-1))[1]
    torch.testing.assert_close(a, b.flip(-1), rtol=1e-4, atol=1e-6)
    assert not hasattr(model, "features")


def test_any_pooling_of_an_activation_classifier_will_do():
    net = create_model("activation_classifier", backbone="test_efficientnet", num_classes=3).eval()
    model = with_activations(net)
    with torch.no_grad():
        logits, maps = model(pictures())
    torch.testing.assert_close(logits, maps.flatten(2).topk(9).values.mean(2))


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "vgg11"])
def test_a_network_without_activations_is_told_what_would_do(name):
    with torch.no_grad():
        net = timm.create_model(name, num_classes=3, **({"img_size": 64} if "vit" in name else {}))
    with pytest.raises(ValueError, match=r"no class activation maps to mine from: .*activation_cl"):
        with_activations(net, pictures(1))


def test_scales_are_checked():
    with pytest.raises(ValueError, match=r"scales must be one or more numbers above 0, not \[0\]"):
        with_activations(CNNS["ours"](), scales=[0])


@pytest.mark.parametrize("model", ["activation_classifier", "test_resnet"])
def test_a_loaded_run_goes_in_directly(model, tmp_path):
    images = [torchvision.transforms.functional.to_pil_image(x) for x in pictures(12)]
    for k, image in enumerate(images):
        path = tmp_path / "data" / ("train", "val")[k % 2] / "ab"[k % 4 // 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    config = foveal.ClassifyConfig(
        data=DataConfig(root=str(tmp_path / "data"), image_size=64, batch_size=4, workers=0),
        model=model,
        backbone="test_resnet" if model == "activation_classifier" else None,
        multi_label=True,
        max_steps=1,
        out=str(tmp_path / "run"),
        threads=1,
    )
    net = foveal.train(config).load()
    x = torch.stack([net.preprocess(image) for image in images[:2]])
    with torch.no_grad():
        logits, maps = with_activations(net)(x)
    assert logits.shape == maps.shape[:2] == (2, len(net.classes))
    explanation, _ = foveal.explain(tmp_path / "run", x, method="cam", target=1)
    torch.testing.assert_close(explanation.raw, maps[0, 1].relu(), rtol=1e-4, atol=1e-6)
