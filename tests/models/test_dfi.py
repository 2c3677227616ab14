import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from foveal.data.transforms import WholePreprocess
from foveal.models import count, create_model
from foveal.models.dfi import TASKS
from foveal.tasks.setup import normalization_of

SMALL = {"layers": (1, 1, 1, 1), "channels": (8, 8, 12, 16)}


def small(**kw):
    torch.manual_seed(0)
    return create_model("dfi", **{"backbone_args": SMALL} | kw)


def meta(**kw):
    with torch.device("meta"):
        return create_model("dfi", **kw)


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


def pictures(batch=2, height=48, width=64):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_parameters_are_those_measured_on_the_official_code():
    net = meta()
    assert sum(p.numel() for p in net.parameters()) == 29_626_219
    parts = [net.backbone, net.pyramid, net.decoder.converter, *net.decoder.dfims, net.decoder.tams]
    rounded = [round(millions(part), 2) for part in parts]
    assert rounded == [23.51, 1.31, 0.94, 0.06, 0.19, 0.61, 2.18, 0.83]
    assert round(1000 * millions(net.decoder.predictors), 1) == 1.5


def test_multiply_adds_are_those_measured_on_the_official_code():
    """In 1e9 at 300 x 400; tasks that are not asked for are not computed."""

    class Part(nn.Module):
        def __init__(self, run):
            super().__init__()
            self.net = meta()
            self.run = run

        def forward(self, x):
            return self.run(self.net, x)

    expected = {
        15.70: lambda net, x: net.levels(x),
        20.65: lambda net, x: net(x, ("edge",)),
        25.45: lambda net, x: net(x),
    }
    for giga, run in expected.items():
        assert round(count(Part(run), (3, 300, 400)).multiply_adds / 1e9, 2) == giga


def test_every_layer_of_the_trunk_has_timms_name():
    own = meta().backbone.model.state_dict()
    theirs = timm.create_model("resnet50", num_classes=0).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in theirs.items()}


def test_tasks_come_in_one_order_whatever_the_order_asked_for():
    net = small().eval()
    x = pictures()
    with torch.no_grad():
        everything = net(x)
        assert list(everything) == list(TASKS) == ["saliency", "edge", "skeleton"]
        some = net(x, ["skeleton", "saliency"])
    assert list(some) == ["saliency", "skeleton"]
    assert all(torch.equal(some[task], everything[task]) for task in some)
    one = small(tasks=["edge"]).eval()
    assert list(one(x)) == ["edge"]
    assert not any("saliency" in key or "skeleton" in key for key in one.state_dict())


def test_tasks_share_the_trunk_and_one_pass_of_it():
    net = small().eval()
    calls = []
    net.backbone.register_forward_hook(lambda *_: calls.append(1))
    net(pictures())
    assert calls == [1]


def test_side_maps_are_returned_in_training_and_on_request():
    net = small(deep_supervision=["skeleton"])
    x = pictures()
    outputs = net(x)
    assert {task: len(logits) for task, logits in outputs.items()} == {
        "saliency": 1,
        "edge": 1,
        "skeleton": 5,
    }
    assert all(y.shape == (2, 1, 48, 64) for logits in outputs.values() for y in logits)
    net.eval()
    with torch.no_grad():
        fused, sides = net(x), net(x, sides=True)
    assert all(torch.equal(fused[task], sides[task][0]) for task in TASKS)
    assert net.train()(x, sides=False)["skeleton"].shape == (2, 1, 48, 64)
    assert {task: len(logits) for task, logits in small()(x).items()} == {
        "saliency": 1,
        "edge": 5,
        "skeleton": 5,
    }


def test_gates_are_weights_of_all_levels_on_all_scales():
    net = small().eval()
    x = pictures(3)
    with torch.no_grad():
        gates = net.gates(x)
        assert list(gates) == list(TASKS)
        for weights in gates.values():
            assert weights.shape == (3, 4, 6)
            torch.testing.assert_close(weights.sum(2), torch.ones(3, 4))
        alone = net.gates(x[1:2], ["edge"])
    assert list(alone) == ["edge"]
    torch.testing.assert_close(alone["edge"], gates["edge"][1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="there are no gates with selected=None"):
        small(selected=None).gates(x)


def test_plain_summation_leaves_the_selection_out():
    net, plain = meta(), meta(selected=None)
    left_out = net.state_dict().keys() - plain.state_dict().keys()
    assert left_out
    assert all(".merge_convs." in key or ".fcs." in key for key in left_out)
    assert not any(".merge_convs." in key or ".fcs." in key for key in plain.state_dict())
    assert small(selected=None).eval()(pictures())["edge"].shape == (2, 1, 48, 64)


@pytest.mark.parametrize(
    ("arguments", "converted", "widths"),
    [
        ({}, [32, 64, 128, 256, 256, 256], [32, 64, 128, 256]),
        ({"output_stride": 8}, [32, 64, 128, 256, 256, 256], [32, 64, 128, 256]),
        ({"width": 16}, [16, 32, 64, 128, 128, 128], [16, 32, 64, 128]),
        ({"backbone": "resnet18"}, [16, 32, 64, 128, 128, 128], [16, 32, 64, 128]),
        ({"backbone": "resnet101"}, [32, 64, 128, 256, 256, 256], [32, 64, 128, 256]),
        ({"backbone": "convnext_large"}, [32, 64, 128, 256, 256], [32, 64, 128]),
        ({"backbone": "mobilenetv2_100"}, [16, 32, 64, 128, 128, 128], [16, 32, 64, 128]),
    ],
)
def test_widths_are_in_proportion_to_the_backbones(arguments, converted, widths):
    decoder = meta(**arguments).decoder
    assert [part[0].out_channels for part in decoder.converter.convert] == converted
    assert [tam.block[0].out_channels for tam in decoder.tams] == widths


def test_what_the_trunk_wants_to_see_is_declared_and_made():
    net = small()
    assert net.default_cfg["channel_order"] == "bgr"
    preprocess = WholePreprocess(image_size=48, **normalization_of(net))
    x = preprocess(Image.new("RGB", (4, 3), (10, 20, 30)))
    blue, green, red = x[:, 0, 0].tolist()
    assert (blue, green, red) == pytest.approx(
        (30 - 104.00699, 20 - 116.66877, 10 - 122.67892), abs=1e-3
    )
    other = meta(backbone="mobilenetv2_100")
    assert "channel_order" not in other.default_cfg
    assert other.default_cfg["mean"] == timm.create_model("mobilenetv2_100").default_cfg["mean"]


@pytest.mark.parametrize("backbone", [None, "resnet18"])
def test_frozen_norms_stay_as_they_are_in_training(backbone):
    arguments = {} if backbone is None else {"backbone": backbone, "backbone_args": {}}
    net = small(frozen_norm=True, **arguments)
    assert net.training
    norms = [m for m in net.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for _ in range(2):
        assert norms
        assert not any(norm.training for norm in norms)
        assert not any(p.requires_grad for norm in norms for p in norm.parameters())
        before = [norm.running_mean.clone() for norm in norms]
        sum(y.square().mean() for logits in net(pictures()).values() for y in logits).backward()
        assert all(torch.equal(a, n.running_mean) for a, n in zip(before, norms, strict=True))
        parent = nn.ModuleList([net])
        parent.eval()
        parent.train()
        assert net.backbone.training
    trained = {key for key, p in net.named_parameters() if p.grad is not None}
    frozen = {key for key, p in net.named_parameters() if not p.requires_grad}
    assert trained == {key for key, _ in net.named_parameters()} - frozen
    moving = small(**arguments)
    assert moving.state_dict().keys() == net.state_dict().keys()
    assert all(p.requires_grad for p in moving.parameters())


def test_the_trunk_takes_weights_of_a_classification_network(tmp_path):
    plain = timm.create_model("resnet50", **SMALL)
    path = tmp_path / "plain.safetensors"
    save_file(plain.state_dict(), path)
    own = small(backbone_checkpoint=path).backbone.model.state_dict()
    assert all(own[k].equal(v) for k, v in plain.state_dict().items() if not k.startswith("fc."))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "tasks must be at least one of saliency, edge, skeleton"),
        ({"tasks": ["edges"]}, "unknown task 'edges': did you mean 'edge'"),
        ({"tasks": "edge"}, r"tasks must be a list of names such as \['edge'\], not 'edge'"),
        ({"deep_supervision": ["edgy"]}, "unknown task 'edgy': did you mean 'edge'"),
        ({"num_classes": 3}, "dfi has no classes but tasks: give tasks, and leave num_classes out"),
        ({"width": 8}, "width must be at least 16, not 8"),
        ({"selected": 7}, "selected must be 1 to 6 levels, or None, not 7"),
        (
            {"pretrained": True},
            "no published weights for dfi's own trunk: give backbone_checkpoint",
        ),
        (
            {"backbone": "vit_tiny_patch16_224"},
            "dfi needs maps of several strides, and all of the backbone 'vit_tiny_patch16_224' "
            "have 16: take another, such as a ResNet or MobileNetV2",
        ),
        ({"backbone": "convnext_tiny", "frozen_norm": True}, "is for a backbone with BatchNorm"),
        ({"backbone": "swin_tiny_patch4_window7_224"}, "cannot have output_stride=16"),
        ({"backbone_args": {"stem_type": "deep"}}, "the layout of Caffe is for a ResNet of bottle"),
    ],
)
def test_wrong_arguments_get_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        meta(**arguments)
    assert "\n" not in str(caught.value)


def test_wrong_tasks_of_a_finished_network_get_one_sentence():
    net = meta(tasks=["edge", "saliency"])
    x = torch.empty(1, 3, 32, 32, device="meta")
    for tasks, message in [
        (["skeleton"], "unknown task 'skeleton': it must be one of saliency, edge"),
        ([], "tasks must be at least one of saliency, edge"),
        ("edge", r"tasks must be a list of names such as \['edge'\], not 'edge'"),
    ]:
        with pytest.raises(ValueError, match=message):
            net(x, tasks)
