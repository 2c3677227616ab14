"""What every network for dense tasks keeps: one map of logits for each task, on any backbone.

A new network is tested as soon as it is in TASK_NETWORKS; nothing is added here for it. What must
be computed is computed on a very small backbone.
"""

import copy
import pickle
from importlib.util import find_spec

import pytest
import torch

from foveal.exporting import export
from foveal.models import count, create_model, list_models

TINY = {"layers": (1, 1, 1, 1), "channels": (8, 8, 12, 16)}
TASKS = ("saliency", "edge", "skeleton")

# Settings that are a network of their own: they are tested as if they had a name.
SETTINGS = {
    "dfi without selection": {"name": "dfi", "selected": None},
    "dfi of strides 2 to 32": {
        "name": "dfi",
        "backbone": "test_efficientnet",
        "output_stride": 32,
        "backbone_args": {},
    },
}
NAMES = list_models(task="dense")
BACKBONES = ("mobilenetv2_050_coordinate", "mobilenext_035", "test_convnext", "test_efficientnet")


def create(name, **kw):
    torch.manual_seed(0)
    return create_model(**{"name": name, "backbone_args": TINY} | SETTINGS.get(name, {}) | kw)


@pytest.fixture(params=[*NAMES, *SETTINGS])
def name(request):
    return request.param


@pytest.fixture
def net(name):
    return create(name)


def pictures(batch=2, channels=3, height=64, width=64):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def assert_same(outputs, expected, rtol=1e-3, atol=1e-4):
    assert list(outputs) == list(expected)
    for task, y in outputs.items():
        torch.testing.assert_close(y, expected[task], rtol=rtol, atol=atol)


def test_logits_have_the_pictures_size_whatever_it_is_and_neighbours_do_not_matter(net):
    net.eval()
    with torch.no_grad():
        for size in [(64, 64), (33, 65), (50, 17), (1, 1), (1, 40)]:
            x = pictures(3, height=size[0], width=size[1])
            outputs = net(x)
            assert list(outputs) == list(TASKS)
            for y in outputs.values():
                assert y.shape == (3, 1, *size)
                assert y.isfinite().all()
            assert_same(net(x[1:2]), {task: y[1:2] for task, y in outputs.items()})
        assert all(y.shape == (0, 1, 64, 64) for y in net(pictures(0)).values())


def test_any_subset_of_tasks_equals_all_of_them(net, name):
    net.eval()
    x = pictures()
    with torch.no_grad():
        everything = net(x)
        for tasks in [("edge",), ("saliency", "skeleton"), ("skeleton", "edge", "saliency")]:
            some = net(x, tasks)
            assert set(some) == set(tasks)
            assert all(torch.equal(y, everything[task]) for task, y in some.items())
    alone = create(name, tasks=("edge",)).eval()
    own = net.state_dict()
    assert alone.state_dict().keys() < own.keys()
    alone.load_state_dict({key: own[key] for key in alone.state_dict()})
    assert torch.equal(alone(x)["edge"], everything["edge"])


@pytest.mark.parametrize("batch", [1, 2])
def test_training_returns_tuples_and_every_parameter_gets_a_finite_gradient(net, batch):
    outputs = net(pictures(batch))
    assert list(outputs) == list(TASKS)
    assert all(isinstance(logits, tuple) for logits in outputs.values())
    sum(y.square().sum() for logits in outputs.values() for y in logits).backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_only_the_backbones_parameters_are_under_backbone(net):
    plain = {k for k, _ in net.backbone.named_parameters()}
    heads = {k for k, _ in net.named_parameters() if not k.startswith("backbone.")}
    assert plain
    assert heads
    assert {k for k, _ in net.named_parameters()} == {f"backbone.{k}" for k in plain} | heads


def test_pictures_of_other_channels(name):
    net = create(name, in_chans=1).eval()
    assert net(pictures(1, channels=1))["edge"].shape == (1, 1, 64, 64)
    assert net.default_cfg["input_size"][0] == 1


def test_autocast_trains(net):
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(pictures())
        loss = sum(y.float().square().mean() for logits in outputs.values() for y in logits)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_channels_last_computes_the_same(net):
    net.eval()
    with torch.no_grad():
        expected = net(pictures())
        other = copy.deepcopy(net).to(memory_format=torch.channels_last)
        assert_same(other(pictures().to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(net, duplicate):
    net.eval()
    other, x = duplicate(net), pictures(1)
    assert not other.training
    with torch.no_grad():
        expected = net(x)
        for parameter in net.parameters():
            parameter.zero_()
        assert all(torch.equal(y, expected[task]) for task, y in other(x).items())


def test_exports_some_tasks_and_runs_at_other_sizes(net):
    net.eval()
    dynamic = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC), "tasks": None}
    arguments = {"tasks": ["edge", "skeleton"]}
    exported = torch.export.export(
        net, (pictures(),), arguments, dynamic_shapes={**dynamic, "tasks": [None, None]}
    ).module()
    for size in [(3, 96, 70), (1, 64, 64)]:
        x = pictures(size[0], height=size[1], width=size[2])
        with torch.no_grad():
            assert_same(exported(x, **arguments), net(x, **arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_runs_at_other_sizes(name, format, tmp_path):
    if format == "onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("needs the extra export")
    net = create(name).eval()
    net.default_cfg["input_size"] = (3, 64, 64)
    report = export(net, format, tmp_path / "net")  # raises where results differ
    assert "free axes of the input: batch, height, width" in str(report)


@pytest.mark.parametrize("name", NAMES)
def test_full_size_is_built_on_the_meta_device(name):
    with torch.device("meta"):
        net = create_model(name)
    assert all(t.is_meta for t in (*net.parameters(), *net.buffers()))
    outputs = net.eval()(torch.empty(2, 3, 65, 70, device="meta"))
    shapes = {task: tuple(y.shape) for task, y in outputs.items()}
    assert shapes == dict.fromkeys(TASKS, (2, 1, 65, 70))
    assert count(net, (3, 65, 70)).parameters == sum(p.numel() for p in net.parameters())
    assert len(net.default_cfg["mean"]) == len(net.default_cfg["std"]) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_any_backbone_any_stride(name, backbone, output_stride):
    with torch.device("meta"):
        net = create_model(name, backbone=backbone, output_stride=output_stride).eval()
        maps = net.backbone(torch.empty(1, 3, 64, 64))
        assert 64 // maps[-1].shape[-1] == output_stride
        outputs = net(torch.empty(1, 3, 64, 64))
        assert all(y.shape == (1, 1, 64, 64) for y in outputs.values())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_gets_one_sentence(name):
    for arguments, error, message in [
        ({"backbone": "resnet5"}, ValueError, "unknown model 'resnet5': did you mean 'resnet"),
        ({"backbone": "spnet"}, ValueError, "unknown model 'spnet'"),
        ({"bakbone": "resnet50"}, TypeError, f"unknown {name} argument 'bakbone': did you mean 'b"),
        ({"backbone_args": {"depht": 1}}, TypeError, "unknown .* argument 'depht'"),
        ({"features_only": True}, ValueError, "features_only is for classification networks"),
        ({"tasks": ("saliancy",)}, ValueError, "unknown task 'saliancy': did you mean 'saliency'"),
        ({"backbone": "vgg11", "output_stride": 16}, ValueError, "cannot have output_stride=16"),
        ({"backbone_checkpoint": "no.pth"}, FileNotFoundError, "no checkpoint file 'no.pth'"),
    ]:
        with pytest.raises(error, match=message) as caught, torch.device("meta"):
            create_model(name, **arguments)
        assert "\n" not in str(caught.value)
