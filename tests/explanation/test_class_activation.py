"""Class activation maps against the papers' formulas in float64, loops, theorems and fixtures."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import foveal
from foveal.explanation import (
    ACTIVATION_METHODS,
    activation_maps,
    class_activation,
    explain,
    find_layer,
    normalized,
)

FIXTURE = Path(__file__).parents[1] / "fixtures" / "multi_miner" / "class_activation.npz"


class Small(nn.Module):
    """Convolutions with BatchNorm and an in-place ReLU, pooled, then linear."""

    def __init__(self, classes=5, channels=6, hidden=0, stride=2):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 8, 3, stride=stride, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, channels, 3, padding=1)
        self.last = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Sequential(nn.Linear(channels, hidden), nn.Tanh()) if hidden else None
        self.head = nn.Linear(hidden or channels, classes)
        with torch.no_grad():
            self.bn.running_mean.normal_()
            self.bn.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.act(self.bn(self.conv1(x)))
        x = self.pool(self.last(self.conv2(x))).flatten(1)
        return self.head(x if self.hidden is None else self.hidden(x))


class Pixels(nn.Module):
    """A segmentation network: a backbone, and a head with a nonlinearity after it."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, classes, 1)
        )

    def forward(self, x):
        return nn.functional.interpolate(self.head(self.backbone(x)), x.shape[2:], mode="bilinear")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def inside(network, x):
    """Return a classification network's last map and logits, in float64, as NumPy and as torch."""
    network = network.double().eval()
    with torch.no_grad():
        a = torch.relu(network.conv2(torch.relu(network.bn(network.conv1(x.double())))))
    return network, a


def derivatives(network, a, k):
    """Return d logit_k / d a, [B, C, h, w]."""
    a = a.clone().requires_grad_()
    pooled = a.mean((2, 3))
    logits = network.head(pooled if network.hidden is None else network.hidden(pooled))
    return torch.autograd.grad(logits[:, k].sum(), a)[0].numpy()


def test_primitives_match_the_fixture():
    stored = {name: torch.from_numpy(array) for name, array in np.load(FIXTURE).items()}
    features, weight = stored["features"], stored["weight"]

    def same(found, name):
        torch.testing.assert_close(found, stored[name], rtol=1e-12, atol=1e-13)

    same(class_activation(features, weight, relu=False, normalize=None), "cam")
    same(class_activation(features, weight, normalize="max"), "cam_relu_max")
    same(class_activation(features, weight, relu=False, normalize="minmax"), "cam_minmax")
    same(class_activation(features, weight, size=(16, 20)), "cam_up_relu_max")


def test_weights_may_differ_from_picture_to_picture_and_a_bias_is_added():
    features, weight = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 3)
    bias = torch.randn(6)
    found = class_activation(features, weight, bias=bias, relu=False, normalize=None)
    expected = np.einsum("btc,bchw->bthw", weight.numpy(), features.numpy())
    np.testing.assert_allclose(found, expected + bias.numpy()[:, None, None], rtol=1e-4, atol=1e-5)


def test_constant_maps_have_a_defined_normalisation():
    zero, same, negative = torch.zeros(2, 2), torch.full((2, 2), 3.0), -torch.ones(2, 2)
    for constant in (zero, same, negative):
        assert torch.equal(normalized(constant, "minmax"), zero)
    assert torch.equal(normalized(zero, "max"), zero)
    assert torch.equal(normalized(same, "max"), torch.ones(2, 2))
    assert torch.equal(normalized(negative, "max"), negative)
    each = normalized(torch.tensor([[[0.0, 2.0]], [[10.0, 30.0]]]))
    assert torch.equal(each, torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]]))
    with pytest.raises(ValueError, match="did you mean 'minmax'"):
        normalized(zero, "min_max")


def test_cam_is_the_classifiers_weights_times_the_maps():
    network, a = inside(Small(), x := torch.randn(3, 3, 12, 16))
    found = activation_maps(network, x.double(), "all", "cam", relu=False)
    weight = network.head.weight.detach().numpy()
    np.testing.assert_allclose(found.maps, np.einsum("kc,bchw->bkhw", weight, a), rtol=1e-9)
    assert found.layer == "last"


@pytest.mark.parametrize("hidden", [0, 7])
def test_gradcam_is_the_papers_formula(hidden):
    network, a = inside(Small(hidden=hidden), x := torch.randn(2, 3, 12, 16))
    found = activation_maps(network, x.double(), [[0, 4], [2, 2]])
    for b, k, i in ((0, 0, 0), (0, 4, 1), (1, 2, 0), (1, 2, 1)):
        alpha = derivatives(network, a, k)[b].mean((1, 2))
        expected = np.maximum(np.einsum("c,chw->hw", alpha, a[b]), 0)
        np.testing.assert_allclose(found.maps[b, i], expected, rtol=1e-9, atol=1e-15)
    with torch.no_grad():
        logits = network(x.double())
    torch.testing.assert_close(found.scores, logits.gather(1, found.targets))


def test_gradcam_plus_plus_is_equation_19():
    network, a = inside(Small(hidden=7), x := torch.randn(2, 3, 12, 16))
    found = activation_maps(network, x.double(), 3, "gradcam++", relu=False)
    g, maps = derivatives(network, a, 3), a.numpy()
    with np.errstate(invalid="ignore"):
        alpha = g**2 / (2 * g**2 + maps.sum((2, 3), keepdims=True) * g**3)
    weight = (np.nan_to_num(alpha) * np.maximum(g, 0)).sum((2, 3))
    expected = np.einsum("bc,bchw->bhw", weight, maps)
    np.testing.assert_allclose(found.maps[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("max_channels", [None, 4])
def test_scorecam_is_a_loop_over_the_maps(max_channels):
    network, a = inside(Small(hidden=7), x := torch.randn(2, 3, 12, 16).double())
    with torch.no_grad():  # a map that is constant, which hides the whole picture
        network.conv2.weight[2] = 0
        network.conv2.bias[2] = 0
    a[:, 2] = 0
    found = activation_maps(
        network, x, [[1, 2], [3, 3]], "scorecam", max_channels=max_channels, chunk_size=4
    )
    for b, targets in enumerate(([1, 2], [3, 3])):
        spread = a[b].flatten(1).amax(1) - a[b].flatten(1).amin(1)
        taking_part = spread.argsort(descending=True)[: max_channels or 6].tolist()
        for i, k in enumerate(targets):
            gains = {}
            for c in taking_part:
                mask = nn.functional.interpolate(a[b : b + 1, c : c + 1], (12, 16), mode="bilinear")
                span = mask.max() - mask.min()
                mask = (mask - mask.min()) / span if span > 0 else torch.zeros_like(mask)
                with torch.no_grad():
                    black = network(torch.zeros_like(x[:1]))
                    gains[c] = (network(x[b : b + 1] * mask) - black)[0, k].item()
            total = sum(np.exp(gain) for gain in gains.values())
            expected = sum(np.exp(gain) / total * a[b, c].numpy() for c, gain in gains.items())
            np.testing.assert_allclose(found.maps[b, i], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "scales"),
    [("mobilenext_035", (1.0,)), ("test_resnet", (0.75, 1.0, 1.5)), ("test_efficientnet", (2.0,))],
)
def test_gradcam_is_cam_up_to_a_factor_with_a_linear_classifier_on_the_average(name, scales):
    network = foveal.create_model(name, num_classes=7).double()
    x = torch.randn(2, 3, 64, 96).double()
    cam, gradcam = (
        activation_maps(network, x, "all", method, scales=scales, mirror=True, relu=False)
        for method in ("cam", "gradcam")
    )
    largest = cam.maps.abs().amax((2, 3), keepdim=True)
    assert (cam.maps / largest).flatten(2).std(2).min() > 1e-3
    height, width = activation_maps(network, x, method="cam").maps.shape[2:]
    found = gradcam.maps * (height * width) / largest
    torch.testing.assert_close(found, cam.maps / largest, rtol=0, atol=1e-9)


def test_scales_and_mirror_images_are_averaged_after_enlarging():
    network = Small(hidden=4).eval()
    x = torch.randn(2, 3, 12, 16)
    found = activation_maps(network, x, 2, "gradcam++", scales=(0.5, 2), mirror=True)
    parts = []
    for sides in ((6, 8), (24, 32)):
        seen = nn.functional.interpolate(x, sides, mode="bilinear")
        for flip in (False, True):
            one = activation_maps(network, seen.flip(3) if flip else seen, 2, "gradcam++").maps
            one = nn.functional.interpolate(one, (12, 16), mode="bilinear")
            parts.append(one.flip(3) if flip else one)
    torch.testing.assert_close(found.maps, torch.stack(parts).mean(0))
    torch.testing.assert_close(found.scores[:, 0], network(x)[:, 2])
    grid = activation_maps(network, x, 2, mirror=True)
    assert grid.maps.shape[2:] == (6, 8)


def test_pictures_do_not_depend_on_their_batch():
    network = Small(hidden=4)
    x = torch.randn(4, 3, 12, 16)
    for method in ("gradcam", "gradcam++", "scorecam"):
        whole = activation_maps(network, x, method=method)
        for b in range(4):
            one = activation_maps(network, x[b : b + 1], method=method)
            assert torch.equal(one.targets[0], whole.targets[b])
            torch.testing.assert_close(one.maps[0], whole.maps[b], rtol=1e-5, atol=1e-7)


def test_targets_are_the_predicted_class_one_class_one_each_or_several_each():
    network = Small().eval()
    x = torch.randn(3, 3, 12, 16)
    predicted = network(x).argmax(1)
    cases = (
        (None, predicted[:, None]),
        (2, torch.full((3, 1), 2)),
        ([0, 4, 1], torch.tensor([[0], [4], [1]])),
        (torch.tensor([[0, 1], [2, 3], [4, 0]]), torch.tensor([[0, 1], [2, 3], [4, 0]])),
        ("all", torch.arange(5).repeat(3, 1)),
    )
    for targets, expected in cases:
        found = activation_maps(network, x, targets)
        assert torch.equal(found.targets, expected)
        assert found.maps.shape == (*expected.shape, 6, 8)
    empty = activation_maps(network, x[:0], [])
    assert empty.maps.shape == (0, 1, 6, 8)
    for wrong, message in (
        (5, "no class 5: the network has 5, 0 to 4"),
        (-1, "no class -1"),
        ([0, 1], "each of the 3 pictures"),
        (1.5, "numbers of classes"),
        ([None, 1, 2], r"all numbers; not \[None, 1, 2\]"),
        ([[0], [1, 2], [3]], "as many for each, all numbers; not"),
        ({0, 1}, "all numbers; not"),
        ("al", "did you mean 'all'"),
    ):
        with pytest.raises(ValueError, match=message):
            activation_maps(network, x, wrong)


# Segmentation


@pytest.mark.parametrize("region", ["all", "predicted", "mask"])
def test_segmentation_explains_the_mean_logit_over_a_region(region):
    network = Pixels().double()
    x = 3 * torch.randn(2, 3, 16, 12).double()
    with torch.no_grad():  # so that each class is predicted somewhere
        network.head[2].bias -= network(x).mean((0, 2, 3))
    mask = torch.zeros(2, 16, 12, dtype=torch.bool)
    mask[0, 2:9, 3:8] = mask[1, 10:, :4] = True
    given = mask if region == "mask" else region
    found = activation_maps(network, x, [[0, 1], [2, 3]], region=given)
    assert found.layer == "backbone"
    a = network.backbone(x).detach().requires_grad_()
    logits = nn.functional.interpolate(network.head(a), (16, 12), mode="bilinear")
    areas = {"all": torch.ones_like(mask), "predicted": None, "mask": mask}
    for b, targets in enumerate(([0, 1], [2, 3])):
        for i, k in enumerate(targets):
            area = logits[b].argmax(0) == k if region == "predicted" else areas[region][b]
            assert area.any()
            score = logits[b, k][area].mean()
            (g,) = torch.autograd.grad(score, a, retain_graph=True)
            alpha = g[b].mean((1, 2))
            expected = torch.einsum("c,chw->hw", alpha, a[b]).relu()
            torch.testing.assert_close(found.maps[b, i], expected.detach())
            torch.testing.assert_close(found.scores[b, i], score.detach())


def test_the_predicted_class_of_a_segmentation_is_that_of_most_pixels():
    network = Pixels().eval()
    x = torch.randn(3, 3, 16, 12)
    expected = [np.bincount(one.ravel()).argmax() for one in network(x).argmax(1).numpy()]
    assert activation_maps(network, x).targets[:, 0].tolist() == expected


def test_a_class_that_is_predicted_nowhere_has_no_map():
    network = Pixels()
    with torch.no_grad():
        network.head[2].bias[1] = -1e4
    found = activation_maps(network, torch.randn(1, 3, 8, 8), 1, region="predicted")
    assert not found.maps.any()
    assert found.scores.item() == 0


@pytest.mark.parametrize("name", ["deeplabv3", "lraspp"])
def test_networks_for_segmentation_have_a_default_layer_in_their_backbone(name):
    network = foveal.create_model(name, num_classes=3, backbone="mobilenetv2_050_coordinate")
    found = activation_maps(network, torch.randn(1, 3, 64, 96))
    assert found.layer.startswith("backbone.")
    assert min(found.maps.shape[2:]) > 1


def test_a_network_of_several_tasks_is_explained_in_a_module_that_returns_one():
    class Saliency(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)["saliency"]

    dfi = foveal.create_model("dfi", backbone="mobilenetv2_050_coordinate", tasks=["saliency"])
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="DFI returns a dict of saliency"):
        activation_maps(dfi, x)
    found = activation_maps(Saliency(dfi), x, 0)
    assert found.layer.startswith("network.backbone.")


def test_a_region_is_for_segmentation():
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match="a region is for segmentation"):
        activation_maps(Small(), x, region="predicted")
    with pytest.raises(ValueError, match=r"must be a mask \[1, h, w\]"):
        activation_maps(Pixels(), x, region=torch.ones(2, 8, 8))
    with pytest.raises(ValueError, match="unknown region 'predict'"):
        activation_maps(Pixels(), x, region="predict")


# Transformers


def test_tokens_become_a_map_without_prefix_tokens():
    vit = foveal.create_model("test_vit", num_classes=5, dynamic_img_size=True, reg_tokens=2)
    vit.double().eval()
    x = torch.randn(2, 3, 96, 160).double()
    found = activation_maps(vit, x, 3, relu=False)
    last = len(vit.blocks) - 1
    assert found.layer == f"blocks.{last}.norm1"
    with torch.no_grad():
        tokens = vit._pos_embed(vit.patch_embed(x))
        for block in vit.blocks[:last]:
            tokens = block(tokens)
        a = vit.blocks[last].norm1(tokens)
    a.requires_grad_()
    block = vit.blocks[last]
    y = tokens + block.ls1(block.attn(a))
    y = y + block.ls2(block.mlp(block.norm2(y)))
    logits = vit.forward_head(vit.norm(y))
    torch.testing.assert_close(found.logits, logits.detach())
    (g,) = torch.autograd.grad(logits[:, 3].sum(), a)
    assert a.shape[1] == 3 + 6 * 10  # class and register tokens, patches of 16 pixels
    alpha = g[:, 3:].mean(1)
    expected = torch.einsum("bc,bnc->bn", alpha, a[:, 3:]).reshape(2, 6, 10)
    torch.testing.assert_close(found.maps[:, 0], expected.detach())


def test_networks_that_keep_channels_last_are_read_as_they_are():
    swin = foveal.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=4,
        img_size=(56, 112),
        window_size=7,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(2, 2),
    )
    swin.double().eval()
    x = torch.randn(1, 3, 56, 112).double()
    found = activation_maps(swin, x, "all", "cam", relu=False)
    with torch.no_grad():
        features = swin.forward_features(x)  # [B, H, W, C]
    expected = torch.einsum("kc,bhwc->bkhw", swin.head.fc.weight, features)
    torch.testing.assert_close(found.maps, expected.detach())


class Last(nn.Module):
    """Blocks of maps [B, h, w, C], as VOLO's, on patches of 8 pixels, and the classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 12, 8, stride=8)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.LayerNorm(12), Turned()) for _ in range(2)))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


class Turned(nn.Module):
    def forward(self, x):
        return x.sin()


def test_blocks_of_norms_over_the_last_dimension_have_channels_there():
    network, x = Last().double(), torch.randn(2, 3, 24, 40).double()
    with torch.no_grad():
        features = network.blocks(network.patches(x).permute(0, 2, 3, 1))
    found = activation_maps(network, x, "all", "cam", relu=False)
    assert found.layer == "blocks"
    weight = network.head.weight.detach()
    expected = torch.einsum("kc,bhwc->bkhw", weight, features)
    torch.testing.assert_close(found.maps, expected)
    within = nn.Sequential(nn.Identity(), network)
    torch.testing.assert_close(activation_maps(within, x, "all", "cam", relu=False).maps, expected)
    assert activation_maps(network, x, 1, layer="patches").maps.shape == (2, 1, 3, 5)


def test_a_map_as_wide_as_a_layer_has_tokens_is_a_map():
    # At 128 pixels the last map has 4 x 4 places, which the last transformer takes as 4 tokens.
    network = foveal.create_model("mobilevit_xxs", num_classes=3)
    assert find_layer(network, torch.randn(1, 3, 128, 128)) == "final_conv"


def test_queries_of_pooling_are_not_taken_for_maps():
    vit = VisionTransformer(
        img_size=48, patch_size=8, embed_dim=24, depth=2, num_heads=2, global_pool="map"
    )
    assert find_layer(vit, torch.randn(1, 3, 48, 48)) == "blocks.1.norm1"


def test_attention_matrices_are_not_taken_for_maps():
    vit = foveal.create_model("deepvit", num_classes=3, img_size=48, depth=2, embed_dim=24)
    assert find_layer(vit, torch.randn(1, 3, 48, 48)) == "blocks.1.norm1"


# The layer


def test_the_default_layer_is_before_pooling():
    conv, pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)
    network = nn.Sequential(nn.Sequential(conv, nn.ReLU(), pool), nn.Flatten(), nn.Linear(36, 2))
    assert find_layer(network, torch.randn(1, 3, 8, 8)) == "0.1"
    named = activation_maps(network, torch.randn(1, 3, 8, 8), layer="0.2")
    assert (named.layer, named.maps.shape[2:]) == ("0.2", (3, 3))


def test_wrong_layers_are_told_in_one_sentence():
    network, x = Small(), torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match="unknown layer 'conv_2': did you mean 'conv2'"):
        activation_maps(network, x, layer="conv_2")
    with pytest.raises(ValueError, match=r"layer 'head' .* returns a tensor \[1, 5\]"):
        activation_maps(network, x, layer="head")
    with pytest.raises(TypeError, match="layer must be the name of a module, not Conv2d"):
        activation_maps(network, x, layer=network.conv2)
    network.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="layer 'spare' does not run in Small"):
        activation_maps(network, x, layer="spare")
    flat = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"picture of 8 x 8: give layer, .* candidates: 0$"):
        activation_maps(flat, x)
    with pytest.raises(ValueError, match="none: no module returns maps"):
        activation_maps(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), x)


def test_cam_needs_a_linear_classifier_and_names_gradcam():
    for network in (Small(hidden=4), Pixels(), foveal.create_model("mobilenetv3_small_050")):
        with pytest.raises(
            ValueError, match=r"cam needs a linear classifier on the average.*gradcam"
        ):
            activation_maps(network, torch.randn(1, 3, 64, 64), method="cam")


def test_other_wrong_input_is_told_in_one_sentence():
    network, x = Small(), torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"did you mean 'gradcam\+\+'"):
        activation_maps(network, x, method="gradcam+")
    for options, message in (
        ({"scales": ()}, "scales must be a list of one or more numbers above 0"),
        ({"scales": (1, 0)}, "scales must be"),
        ({"scales": 0.5}, "scales must be a list of .* not 0.5"),
        ({"scales": [float("inf")]}, "scales must be"),
        ({"normalize": "mean"}, "unknown normalisation"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"max_channels": 0}, "max_channels"),
    ):
        with pytest.raises(ValueError, match=message):
            activation_maps(network, x, **options)
    with pytest.raises(ValueError, match=r"\[B, C, H, W\], not torch.float32 \[3, 8, 8\]"):
        activation_maps(network, x[0])
    with pytest.raises(ValueError, match="floating-point"):
        activation_maps(network, x.to(torch.uint8))

    class Several(nn.Module):
        def forward(self, x):
            return {"edge": x}

    with pytest.raises(ValueError, match="Several returns a dict of edge: explanations are for"):
        activation_maps(Several(), x)
    broken = Small()
    broken.conv2.register_forward_hook(lambda module, args, output: output.detach())
    with pytest.raises(ValueError, match="have no derivative by layer 'conv1'"):
        activation_maps(broken, x, layer="conv1")


# What is left of it


def state_of(network):
    return {
        "modes": [module.training for module in network.modules()],
        "tensors": {key: value.clone() for key, value in network.state_dict().items()},
        "needs": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        "hooks": [
            [len(hooks) for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
            for m in network.modules()
        ],
    }


def assert_same_state(before, after):
    for key in ("modes", "needs", "hooks"):
        assert before[key] == after[key], key
    for key, value in before["tensors"].items():
        assert torch.equal(value, after["tensors"][key]), key
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)


@pytest.mark.parametrize("method", ACTIVATION_METHODS)
@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(method, fails):
    network = Small()
    network.train()
    network.bn.eval()
    network.conv1.weight.requires_grad_(False)
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    calls = []

    def own(module, args, output):
        calls.append(output)
        if fails and len(calls) > 1:
            raise RuntimeError("in the head")

    network.head.register_forward_hook(own)
    before = state_of(network)
    x = torch.randn(2, 3, 8, 8)
    if fails:
        with pytest.raises(RuntimeError, match="in the head"):
            activation_maps(network, x, method=method)
    else:
        activation_maps(network, x, method=method)
    assert len(calls) > 1
    assert_same_state(before, state_of(network))
    assert torch.is_grad_enabled()


def test_maps_hold_no_graph_and_frozen_networks_have_derivatives():
    network = Small(hidden=4)
    expected = activation_maps(network, x := torch.randn(1, 3, 8, 8), 1)
    network.requires_grad_(False)
    found = activation_maps(network, x, 1)
    assert torch.equal(found.maps, expected.maps)
    assert found.maps.any()
    for tensor in (found.maps, found.scores, found.logits):
        assert not tensor.requires_grad
    with torch.no_grad():
        assert torch.equal(activation_maps(network, x, 1).maps, expected.maps)


def test_inference_mode_of_the_caller_changes_nothing():
    network = Small(hidden=4)
    x = torch.randn(1, 3, 8, 8)
    expected = activation_maps(network, x, 1)
    with torch.inference_mode():
        found = activation_maps(network, x * 1, 1, scales=(1, 0.5))
        assert torch.equal(activation_maps(network, x * 1, torch.tensor([1])).maps, expected.maps)
        assert torch.is_inference_mode_enabled()
        born_so = Small(hidden=4)
    assert found.maps.any()
    before = state_of(born_so)
    with pytest.raises(ValueError, match="was made in torch"):
        activation_maps(born_so, x)
    assert_same_state(before, state_of(born_so))
    assert activation_maps(born_so, x, method="scorecam").maps.any()


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++", "scorecam"])
def test_autocast_is_followed_and_does_not_spoil_training(method):
    network = Small()
    x = torch.randn(2, 3, 12, 16)
    expected = activation_maps(network, x, 1, method).maps
    with torch.autocast("cpu", torch.bfloat16):
        found = activation_maps(network, x, 1, method)
        loss = network(x).sum()
    assert found.logits.dtype == torch.bfloat16
    assert found.maps.dtype == torch.float32
    torch.testing.assert_close(found.maps, expected, rtol=0.1, atol=0.05 * expected.max().item())
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_networks_in_half_precision(kind):
    network = Small()
    x = torch.randn(2, 3, 12, 16)
    for method in ACTIVATION_METHODS:
        expected = activation_maps(network.float(), x, 1, method).maps
        found = activation_maps(network.to(kind), x.to(kind), 1, method).maps
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05 * expected.max().item())
    pixels = Pixels()
    big = torch.randn(1, 3, 96, 96)
    expected = activation_maps(pixels, big, 1).maps
    found = activation_maps(pixels.to(kind), big.to(kind), 1).maps
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05 * expected.max().item())


def test_channels_last_gives_the_same():
    network = Small(hidden=4)
    x = torch.randn(2, 3, 12, 16)
    for method in ("gradcam", "gradcam++", "scorecam"):
        expected = activation_maps(network, x, 1, method).maps
        fast = Small(hidden=4).to(memory_format=torch.channels_last)
        found = activation_maps(fast, x.to(memory_format=torch.channels_last), 1, method).maps
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_layer_followed_by_an_in_place_change_is_read_before_it():
    network, a = Small(hidden=4).eval(), torch.randn(2, 3, 12, 16)
    with torch.no_grad():
        expected = network.bn(network.conv1(a))
    found = activation_maps(network, a, 1, layer="bn", relu=False)
    leaf = expected.clone().requires_grad_()
    y = network.pool(torch.relu(network.conv2(torch.relu(leaf)))).flatten(1)
    (g,) = torch.autograd.grad(network.head(network.hidden(y))[:, 1].sum(), leaf)
    maps = torch.einsum("bc,bchw->bhw", g.mean((2, 3)), expected)
    torch.testing.assert_close(found.maps[:, 0], maps, rtol=1e-4, atol=1e-6)


def test_a_network_may_change_its_input_in_place():
    class Normalising(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x.sub_(0.5).mul_(2))

    network = Small()
    x = torch.rand(2, 3, 12, 16)
    given = x.clone()
    found = activation_maps(Normalising(network), given, 1, layer="network.last")
    assert torch.equal(given, x)
    torch.testing.assert_close(found.maps, activation_maps(network, (x - 0.5) * 2, 1).maps)


def test_a_compiled_network_runs_eagerly():
    def backend(graph, inputs):
        raise AssertionError

    network = Small(hidden=4)
    x = torch.randn(1, 3, 8, 8)
    expected = activation_maps(network, x)
    found = activation_maps(torch.compile(network, backend=backend), x)
    assert torch.equal(found.maps, expected.maps)
    assert found.layer == expected.layer


def test_gradient_checkpointing_changes_nothing():
    network = foveal.create_model("test_resnet", num_classes=3)
    x = torch.randn(1, 3, 64, 64)
    expected = activation_maps(network, x, 1).maps
    network.set_grad_checkpointing()
    torch.testing.assert_close(activation_maps(network, x, 1).maps, expected)


class LiveBytes(TorchDispatchMode):
    """Follows how many bytes of tensors are alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.drop, key, size)

    def drop(self, key, size):
        self.known.discard(key)
        self.now -= size


def test_a_thousand_classes_of_224_pixels_fit_into_little_memory():
    network = Small(classes=1000, channels=64, hidden=16, stride=16)
    x = torch.randn(1, 3, 224, 224)
    with LiveBytes() as few:
        activation_maps(network, x, 1)
    with LiveBytes() as many:
        found = activation_maps(network, x, "all")
    assert found.maps.shape == (1, 1000, 14, 14)
    every_derivative = 1000 * 64 * 14 * 14 * 4
    assert many.peak - few.peak < every_derivative / 10
    with LiveBytes() as explained:
        explanations = explain(network, x, target="all")
    assert len(explanations) == 1000
    assert explanations[999].map.shape == (224, 224)
    assert explained.peak - few.peak < 1000 * 224 * 224 * 4 / 20
