"""What every network for segmentation keeps: logits for each pixel, on any backbone.

A new network is tested as soon as it is in TASK_NETWORKS; nothing is added here for it. What must
be computed is computed on a very small backbone.
"""

import copy
from importlib.util import find_spec

import pytest
import torch

from foveal.exporting import export
from foveal.models import count, create_model, list_models

TINY = {"layers": (1, 1, 2, 2), "channels": (8, 8, 12, 16), "stem_width": 8}
RESNET = {"backbone": "resnet50s", "backbone_args": TINY}

# Settings that are a network of their own: they are tested as if they had a name.
SETTINGS = {
    "spnet without gates": {"name": "spnet", "gate": None, "context": None, "auxiliary": False},
    "spnet with pyramid": {"name": "spnet", "gate": "se", "context": "pyramid"},
    "deeplabv3 separable": {"name": "deeplabv3", "separable": True, "output_stride": 8},
}
NAMES = list_models(task="segment")
BACKBONES = ("mobilenetv2_050_coordinate", "mobilenext_035", "test_convnext", "test_efficientnet")


def create(name, **kw):
    return create_model(**{"name": name} | RESNET | SETTINGS.get(name, {}) | kw)


@pytest.fixture(params=[*NAMES, *SETTINGS])
def name(request):
    return request.param


@pytest.fixture
def net(name):
    torch.manual_seed(0)
    return create(name, num_classes=5)


def pictures(batch=2, channels=3, height=64, width=64):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def outputs(y):
    return y if isinstance(y, tuple) else (y,)


def test_logits_have_the_pictures_size_whatever_it_is(net):
    net.eval()
    with torch.no_grad():
        for size in [(64, 64), (33, 65), (50, 17), (1, 1), (1, 40)]:
            x = pictures(3, height=size[0], width=size[1])
            y = net(x)
            assert y.shape == (3, 5, *size)
            assert y.isfinite().all()
            torch.testing.assert_close(net(x[1:2]), y[1:2], rtol=1e-3, atol=1e-4)
        assert net(pictures(0)).shape == (0, 5, 64, 64)


@pytest.mark.parametrize("batch", [1, 2])
def test_every_parameter_gets_a_finite_gradient(net, batch):
    assert isinstance(net(pictures(batch)), tuple) == (net.auxiliary_head is not None)
    sum(y.square().sum() for y in outputs(net(pictures(batch)))).backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_only_the_backbones_parameters_are_under_backbone(net):
    heads = {k for k, _ in net.named_parameters() if not k.startswith("backbone.")}
    assert all(k.startswith(("head.", "auxiliary_head.")) for k in heads)
    classifiers = net.default_cfg["classifier"]
    assert {f"{c}.weight" for c in classifiers} <= heads
    assert all(net.get_submodule(c).out_channels == 5 for c in classifiers)


def test_classes_are_exchanged_and_named_where_a_checkpoint_has_others(net, name, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(net.state_dict(), path)
    with pytest.raises(ValueError, match="trained for 5 classes and the network has 4; all else"):
        create(name, num_classes=4, checkpoint_path=path)
    kept = copy.deepcopy(net.state_dict())
    net.reset_classifier(9)
    assert net.eval()(pictures(1)).shape == (1, 9, 64, 64)
    changed = {k for k, v in net.state_dict().items() if v.shape != kept[k].shape}
    assert changed == {
        f"{c}.{p}" for c in net.default_cfg["classifier"] for p in ("weight", "bias")
    }
    assert net.num_classes == net.default_cfg["num_classes"] == 9
    with pytest.raises(TypeError, match="num_classes must be a whole number, not '5'"):
        net.reset_classifier("5")
    for classes in (0, -1):
        with pytest.raises(ValueError, match="num_classes of a segmentation network must be at l"):
            net.reset_classifier(classes)


def test_pictures_of_other_channels(name):
    net = create(name, num_classes=2, in_chans=1).eval()
    assert net(pictures(1, channels=1)).shape == (1, 2, 64, 64)
    assert net.default_cfg["input_size"][0] == 1


def test_autocast_trains(net):
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(y.float().square().mean() for y in outputs(net(pictures())))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_channels_last_computes_the_same(net):
    net.eval()
    with torch.no_grad():
        expected = net(pictures())
        other = copy.deepcopy(net).to(memory_format=torch.channels_last)
        y = other(pictures().to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)


def test_exports_and_runs_at_another_size(net):
    net.eval()
    dynamic = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC), "auxiliary": None}
    exported = torch.export.export(
        net, (pictures(),), {"auxiliary": False}, dynamic_shapes=dynamic
    ).module()
    x = pictures(3, height=96, width=70)
    with torch.no_grad():
        torch.testing.assert_close(exported(x, auxiliary=False), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra export"
)
@pytest.mark.parametrize("name", NAMES)
def test_runs_in_onnxruntime_at_other_sizes(name, tmp_path):
    net = create(name, num_classes=5).eval()
    net.default_cfg["input_size"] = (3, 64, 64)
    report = export(net, "onnx", tmp_path / "net.onnx")  # raises where results differ
    assert "free axes of the input: batch, height, width" in str(report)


@pytest.mark.parametrize("name", NAMES)
def test_full_size_is_built_on_the_meta_device(name):
    with torch.device("meta"):
        net = create_model(name)
    assert all(t.is_meta for t in (*net.parameters(), *net.buffers()))
    assert net(torch.empty(2, 3, 65, 70, device="meta"), auxiliary=False).shape == (2, 21, 65, 70)
    assert count(net, (3, 65, 70)).parameters == sum(p.numel() for p in net.parameters())
    mean = net.default_cfg["mean"]
    assert len(mean) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_any_backbone_any_stride(name, backbone, output_stride):
    with torch.device("meta"):
        net = create_model(name, backbone=backbone, output_stride=output_stride).eval()
        maps = net.backbone(torch.empty(1, 3, 64, 64))
        assert 64 // maps[-1].shape[-1] == output_stride
        assert net(torch.empty(1, 3, 64, 64)).shape == (1, 21, 64, 64)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_gets_one_sentence(name):
    for arguments, error, message in [
        ({"num_classes": 0}, ValueError, "num_classes of a segmentation network must be at least"),
        ({"num_classes": 2.5}, TypeError, r"num_classes must be a whole number, not 2\.5$"),
        ({"num_classes": "3"}, TypeError, "num_classes must be a whole number, not '3'$"),
        ({"num_classes": True}, TypeError, "num_classes must be a whole number, not True$"),
        ({"in_chans": "3"}, TypeError, "in_chans must be a whole number, not '3'$"),
        ({"output_stride": "eight"}, TypeError, "output_stride must be a whole number, not 'ei"),
        ({"output_stride": 8.0}, TypeError, r"output_stride must be a whole number, not 8\.0$"),
        *(
            (
                {"output_stride": wrong},
                ValueError,
                f"output_stride must be 8, 16 or 32, not {wrong}$",
            )
            for wrong in (0, 4, 7, 64)
        ),
        ({"backbone_args": [1]}, TypeError, r"backbone_args must map names .*, not \[1\]$"),
        ({"backbone_args": {1: 2}}, TypeError, r"backbone_args must map names .*, not \{1: 2\}$"),
        ({"backbone": "resnet5"}, ValueError, "unknown model 'resnet5': did you mean 'resnet"),
        ({"backbone": "spnet"}, ValueError, "unknown model 'spnet'"),
        ({"bakbone": "resnet50"}, TypeError, f"unknown {name} argument 'bakbone': did you mean 'b"),
        ({"backbone_args": {"depht": 1}}, TypeError, "unknown .* argument 'depht'"),
        *(
            ({"backbone_args": {key: 1}}, TypeError, f"backbone_args.{key} cannot be given: {why}")
            for key, why in [
                ("output_stride", "it is an argument of the model"),
                ("in_chans", "it is an argument of the model"),
                ("pretrained", "it is an argument of the model"),
                ("num_classes", "it is an argument of the model"),
                ("features_only", "the head decides which maps it sees"),
                ("out_indices", "the head decides which maps it sees"),
                ("name", "it is the model's backbone$"),
                ("checkpoint_path", "it is the model's backbone_checkpoint$"),
            ]
        ),
        ({"features_only": True}, ValueError, "features_only is for classification networks"),
        (
            {"backbone": "swin_tiny_patch4_window7_224", "output_stride": 8},
            ValueError,
            "the backbone 'swin_tiny_patch4_window7_224' cannot have output_stride=8: its maps "
            "have strides 4, 8, 16, 32; give output_stride=32, or a backbone that can be dilated",
        ),
        ({"backbone": "vgg11", "output_stride": 16}, ValueError, "cannot have output_stride=16"),
        ({"backbone_checkpoint": "no.pth"}, FileNotFoundError, "no checkpoint file 'no.pth'"),
    ]:
        with pytest.raises(error, match=message) as caught, torch.device("meta"):
            create_model(name, **arguments)
        assert "\n" not in str(caught.value)
