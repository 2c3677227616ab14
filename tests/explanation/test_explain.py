"""The one entry to all methods, and the package grad-cam as an independent reference."""

import numpy as np
import pytest
import torch
from torch import nn

import foveal
from foveal.explanation import METHODS, Explanation, explain, normalized


@pytest.fixture
def network():
    torch.manual_seed(0)
    return foveal.create_model("test_resnet", num_classes=5).eval()


def test_every_method_gives_a_map_of_each_picture_at_its_size(network):
    vit = foveal.create_model("test_vit", num_classes=5).eval()
    gated = foveal.create_model("test_resnet", num_classes=5).eval()
    foveal.insert(gated, "strip", where="layer4")
    x = torch.randn(2, 3, 160, 160)
    for method in METHODS:
        model = {"cam": network, "gates": gated}.get(method, vit)
        found = explain(model, x, method, **({"max_channels": 3} if method == "scorecam" else {}))
        assert len(found) == 2
        for one in found:
            assert one.method == method
            assert one.map.shape == (160, 160)
            assert one.map.dtype == torch.float32
            assert model.get_submodule(one.layer)


def test_maps_are_enlarged_with_half_pixel_centres():
    raw = torch.tensor([[0.0, 8.0], [4.0, 12.0]])
    one = Explanation("gradcam", "layer4", 0, 1.0, raw, (4, 8))
    # A cell's value is in the middle of its pixels, and constant beyond the outermost middles.
    columns = np.array([0, 0, 1, 3, 5, 7, 8, 8.0])
    rows = np.array([0, 1, 3, 4.0])
    np.testing.assert_allclose(one.map, rows[:, None] + columns, rtol=1e-6)
    np.testing.assert_allclose(one.normalized(), (rows[:, None] + columns) / 12, rtol=1e-6)


def test_explanations_come_picture_by_picture(network):
    x = torch.randn(2, 3, 64, 96)
    found = explain(network, x, target=[[3, 1], [0, 4]])
    assert [one.target for one in found] == [3, 1, 0, 4]
    with torch.no_grad():
        logits = network(x)
    expected = [logits[0, 3], logits[0, 1], logits[1, 0], logits[1, 4]]
    assert [one.score for one in found] == pytest.approx([e.item() for e in expected], rel=1e-4)
    (alone,) = explain(network, x[1:], target=4)
    torch.testing.assert_close(alone.map, found[3].map, rtol=1e-4, atol=1e-7)
    several = explain(network, x, target=1, scales=(0.5, 1), mirror=True)
    assert several[0].raw.shape == (64, 96)


def test_wrong_names_are_told_in_one_sentence(network):
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="unknown method 'grad_cam': did you mean 'gradcam'"):
        explain(network, x, "grad_cam")
    with pytest.raises(TypeError, match="unknown gradcam option 'scale': did you mean 'scales'"):
        explain(network, x, scale=(1,))
    with pytest.raises(TypeError, match="unknown rollout option 'layer'"):
        explain(network, x, "rollout", layer="layer4")


# The package grad-cam. It brings maps to [0, 1] before it enlarges them, by OpenCV's bilinear
# interpolation, which has half-pixel centres too, and once more afterwards.


class Steep(nn.Module):
    """A network with derivatives so large that grad-cam's eps of 1e-6 under g^2 is nothing."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 1e4 * self.network(x)


def reference(name, model, layer, x, targets, reshape=None):
    package = pytest.importorskip("pytorch_grad_cam", reason="the package grad-cam is missing")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = getattr(package, name)(
        model=model, target_layers=[model.get_submodule(layer)], reshape_transform=reshape
    )
    return cam(input_tensor=x, targets=[ClassifierOutputTarget(k) for k in targets])


def enlarged_as_there(explanations):
    small = torch.stack([normalized(one.raw) for one in explanations])
    large = nn.functional.interpolate(small[:, None], explanations[0].size, mode="bilinear")[:, 0]
    return normalized(large).numpy()


@pytest.mark.parametrize(
    ("method", "theirs"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus")]
)
@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_050_coordinate", "test_convnext"])
def test_maps_equal_those_of_the_package_grad_cam(name, method, theirs):
    torch.manual_seed(0)
    inner = foveal.create_model(name, num_classes=5)
    x = torch.randn(3, 3, 96, 128)
    for module in inner.modules():  # BatchNorm's statistics shall be those of the pictures
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    inner.train()(x)
    network = Steep(inner).eval()
    found = explain(network, x, method, target=[0, 3, 4])
    expected = reference(theirs, network, found[0].layer, x, [0, 3, 4])
    deviation = np.abs(enlarged_as_there(found) - expected).max()
    print(f"{name} {method}: {deviation:.1e}")
    assert expected.std() > 0.05
    assert deviation < 1e-4


def test_maps_of_a_transformer_equal_those_of_the_package_grad_cam():
    torch.manual_seed(0)
    network = foveal.create_model("test_vit", num_classes=5).eval()
    x = torch.randn(2, 3, 160, 160)
    found = explain(network, x, target=[1, 2])

    def reshape(tokens):
        return tokens[:, 1:].reshape(len(tokens), 10, 10, -1).permute(0, 3, 1, 2)

    expected = reference("GradCAM", network, found[0].layer, x, [1, 2], reshape)
    deviation = np.abs(enlarged_as_there(found) - expected).max()
    print(f"test_vit gradcam: {deviation:.1e}")
    assert deviation < 1e-4


def test_scorecam_equals_that_of_the_package_grad_cam(network, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)

    class HalfPixel(nn.Upsample):
        def __init__(self, size):
            super().__init__(size, mode="bilinear")

    # Its masks are enlarged with aligned corners, ours with half-pixel centres.
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", HalfPixel)
    found = explain(network, x, "scorecam", target=[1, 2])
    expected = reference("ScoreCAM", network, found[0].layer, x, [1, 2])
    deviation = np.abs(enlarged_as_there(found) - expected).max()
    print(f"test_resnet scorecam: {deviation:.1e}")
    assert deviation < 1e-4
