import copy

import numpy as np
import pytest
import torch

import foveal
from foveal.exporting import export
from foveal.models import count, create_model

BACKBONES = ("mobilenetv2_050_coordinate", "mobilenext_035", "test_convnext", "test_efficientnet")
POOLINGS = ("mean", "topk", "logsumexp")


def create(pooling="topk", **kw):
    torch.manual_seed(0)
    settings = {"backbone": "test_efficientnet", "num_classes": 5, "pooling": pooling}
    return create_model("activation_classifier", **settings | kw).eval()


def pictures(batch=2, height=64, width=64, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, width, generator=generator)


def pooled(maps, pooling, top_k, sharpness):
    """Return what each pooling is, in NumPy's float64, cell by cell."""
    logits = np.empty(maps.shape[:2])
    for b, k in np.ndindex(*logits.shape):
        cells = np.sort(maps[b, k].ravel())
        logits[b, k] = {
            "mean": lambda cells: cells.sum() / len(cells),
            "topk": lambda cells: cells[-top_k:].mean(),
            "logsumexp": lambda cells: (
                np.log(sum(np.exp(sharpness * a) for a in cells) / len(cells)) / sharpness
            ),
        }[pooling](cells)
    return logits


@pytest.mark.parametrize("size", [(64, 64), (33, 65), (17, 20), (1, 1)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_are_the_pooled_maps_and_maps_the_weighed_features(pooling, size):
    net = create(pooling, top_k=4, sharpness=2.5)
    x = pictures(3, *size)
    with torch.no_grad():
        logits, maps = net.forward_maps(x)
        features = net.features(x)
    assert logits.shape == (3, 5)
    assert maps.shape[2:] == tuple(-(-side // 16) for side in size)
    weight = net.get_classifier().weight[:, :, 0, 0].double().detach().numpy()
    truth = np.einsum("kc,bchw->bkhw", weight, features.double().numpy())
    np.testing.assert_allclose(maps.numpy(), truth, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), pooled(truth, pooling, 4, 2.5), rtol=1e-4, atol=1e-5)
    assert net(x).equal(logits)
    assert net.head(features)[0].equal(logits)


def test_sharpness_goes_from_the_mean_to_the_maximum_without_overflow():
    x = 100 * pictures()
    with torch.no_grad():
        maps = create("logsumexp").forward_maps(x)[1]
        dull, sharp = (create("logsumexp", sharpness=s)(x) for s in (1e-4, 1e4))
    torch.testing.assert_close(dull, maps.mean((2, 3)), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(sharp, maps.amax((2, 3)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_reach_every_parameter_and_are_right(pooling):
    net = create(pooling, top_k=3, num_classes=2).double()
    net(pictures(2).double()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    features = torch.rand(1, net.num_features, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda features: net.head(features)[0], features)


def test_the_presence_of_a_small_object_does_not_shrink_with_the_picture():
    """That is what the two other poolings are for: the mean of the same evidence does."""
    cells = torch.zeros(1, 1, 24, 24)
    cells[..., :3, :3] = 4.0
    net = {pooling: create(pooling, num_classes=0) for pooling in POOLINGS}
    whole = {pooling: net[pooling].head(cells)[0].item() for pooling in POOLINGS}
    part = {pooling: net[pooling].head(cells[..., :6, :6])[0].item() for pooling in POOLINGS}
    assert whole["mean"] < part["mean"] / 10
    assert whole["topk"] == part["topk"] == 4
    assert whole["logsumexp"] > 0.75 * part["logsumexp"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_any_backbone_any_stride(backbone, output_stride):
    with torch.device("meta"):
        net = create_model("activation_classifier", backbone=backbone, output_stride=output_stride)
        logits, maps = net.eval().forward_maps(torch.empty(2, 3, 64, 96))
    assert 64 // maps.shape[2] == 96 // maps.shape[3] == output_stride
    assert (logits.shape, maps.shape[1]) == ((2, 1000), 1000)


def test_a_transformer_of_patches_can_be_its_backbone():
    net = create(backbone="test_vit")
    assert net.forward_maps(pictures(1, 160, 160))[1].shape == (1, 5, 10, 10)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_exports_and_runs_at_other_sizes(pooling):
    net = create(pooling)
    dynamic = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
    program = torch.export.export(net, (pictures(),), dynamic_shapes=dynamic).module()
    for size in [(96, 70), (48, 48), (20, 17)]:  # more cells than top_k, as many, fewer
        x = pictures(3, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(x), net(x), rtol=1e-4, atol=1e-5)


def test_runs_in_onnxruntime(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = create()
    net.default_cfg["input_size"] = (3, 64, 64)
    report = export(net, "onnx", tmp_path / "net.onnx")  # raises where results differ
    assert "free axes of the input: batch, height, width" in str(report)


def test_classes_are_left_out_and_exchanged():
    net = create()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.reset_classifier(0)
    logits, maps = net.forward_maps(pictures())
    assert logits.shape == (2, net.num_features)
    assert maps.equal(net.features(pictures()))
    net.reset_classifier(9)
    assert net(pictures(0)).shape == (0, 9)
    assert net.num_classes == net.default_cfg["num_classes"] == 9
    changed = [k for k, v in net.state_dict().items() if v.shape != before[k].shape]
    assert changed == ["classifier.weight"]
    assert net.default_cfg["classifier"] == "classifier"
    assert create(num_classes=0)(pictures(1)).shape == (1, net.num_features)
    assert create(in_chans=1)(pictures(1, channels=1)).shape == (1, 5)


def test_full_size_is_built_on_the_meta_device():
    with torch.device("meta"):
        net = create_model("activation_classifier")
    assert all(t.is_meta for t in (*net.parameters(), *net.buffers()))
    assert count(net, (3, 65, 70)).parameters == sum(p.numel() for p in net.parameters())
    assert net.get_classifier().bias is None


@pytest.mark.parametrize("pooling", POOLINGS)
def test_autocast_trains_and_copies_compute_the_same(pooling):
    net = create(pooling)
    assert copy.deepcopy(net)(pictures()).equal(net(pictures()))
    with torch.autocast("cpu", torch.bfloat16):
        net.train()(pictures()).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_cam_is_the_classs_own_map(pooling):
    net = create(pooling)
    x = pictures()
    with torch.no_grad():
        maps = net.forward_maps(x)[1]
    explanations = foveal.explain(net, x, method="cam", target=[[1], [4]])
    for explanation, truth in zip(explanations, (maps[0, 1], maps[1, 4]), strict=True):
        torch.testing.assert_close(explanation.raw, truth.relu())
        assert explanation.map.shape == (64, 64)


def test_cam_of_the_mean_is_that_of_a_linear_layer_behind_it():
    """The same network, pooled first, as the paper has it."""
    net = create("mean")
    linear = torch.nn.Linear(net.num_features, 5, bias=False)
    linear.weight.data = net.get_classifier().weight.data[:, :, 0, 0]
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear)

    class Last(torch.nn.Module):
        def forward(self, maps):
            return maps[-1]

    usual = torch.nn.Sequential(net.backbone, Last(), *head).eval()
    ours, truth = (
        foveal.explain(model, pictures(), method="cam", target=2, **options)
        for model, options in ((net, {}), (usual, {"layer": "1"}))
    )
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a.raw, b.raw, rtol=1e-4, atol=1e-6)
        assert a.score == pytest.approx(b.score, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, -3.0])
def test_cam_is_refused_where_logits_are_no_values_of_their_maps(scale):
    """What comes after a last convolution is seen in the logits."""

    class Scaled(torch.nn.Module):
        def forward(self, maps):
            return scale * maps.mean((2, 3))

    conv = torch.nn.Conv2d(3, 4, 1, bias=False)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.ReLU(), conv, Scaled())
    if scale == 1:
        assert foveal.explain(net, pictures(), method="cam", target=1)[0].layer == "2"
    else:
        with pytest.raises(ValueError, match="cam needs a linear classifier on the average"):
            foveal.explain(net, pictures(), method="cam", target=1)
    other = torch.nn.Sequential(net[:3], Scaled(), torch.nn.Softmax(1), torch.nn.Flatten())
    with pytest.raises(ValueError, match="cam needs a linear classifier on the average"):
        foveal.explain(other, 100 * pictures(), method="cam", target=1)


def test_wrong_input_gets_one_sentence():
    for arguments, error, message in [
        ({"pooling": "top_k"}, ValueError, "unknown pooling 'top_k': did you mean 'topk'"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1, not 0$"),
        ({"top_k": 2.5}, TypeError, r"top_k must be a whole number, not 2\.5$"),
        ({"sharpness": 0.0}, ValueError, "sharpness must be more than 0 and finite, not 0"),
        ({"output_stride": 4}, ValueError, "output_stride must be 8, 16 or 32, not 4$"),
        ({"num_classes": -1}, ValueError, "num_classes must be 0 or more, not -1$"),
        ({"backbone": "vgg11"}, ValueError, "cannot have output_stride=16"),
        ({"backbone": "spnet"}, ValueError, "unknown model 'spnet'"),
        ({"features_only": True}, ValueError, "features_only is for classification networks"),
        ({"poling": "mean"}, TypeError, "unknown activation_classifier argument 'poling': did you"),
    ]:
        with pytest.raises(error, match=message), torch.device("meta"):
            create_model("activation_classifier", **arguments)
    with pytest.raises(ValueError, match=r"num_classes must be 0 or more, not -2$"):
        create().reset_classifier(-2)
