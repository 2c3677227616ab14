"""What every classification network of foveal keeps.

A new network is tested as soon as it is registered; nothing is added here for it. What only shapes
decide is checked of every network on the meta device; what must be computed is checked of the
smallest of each family (the names that differ in numbers only), at 64 pixels and small batches.

Vision transformers cut pictures into patches: their maps have one stride, they take whole patches
alone, and their names are for large networks, so that a small one of their kind stands for them.
"""

import copy
import re

import pytest
import timm
import torch

from foveal.models import TASK_NETWORKS, count, create_model, list_models

SIDE = 64


TRANSFORMERS = list_models("deepvit*", task="classify")
OTHERS = (*TRANSFORMERS, *TASK_NETWORKS)  # those stand on the ones that are tested here
NAMES = [name for name in list_models(task="classify") if name not in OTHERS]

# Settings that are a network of their own: they are tested as if they had a name.
SETTINGS = {
    "mobilenetv2 of sandglasses": {"name": "mobilenetv2", "block": "sandglass", "width": 0.25},
}
SMALL_TRANSFORMERS = {
    f"deepvit of {kind}": {
        "name": "deepvit",
        "img_size": SIDE,
        "patch_size": 16,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 3,
        "dynamic_img_size": True,
        **settings,
    }
    for kind, settings in {
        "patches": {"re_attention": 2},
        "convolutions": {"stem": "conv", "adjustment": 0.5},
        "plain attention": {"re_attention": 0},
    }.items()
}


def create(name, **kw):
    settings = {**SETTINGS, **SMALL_TRANSFORMERS}
    return create_model(**{"name": name} | settings.get(name, {}) | kw)


def smallest_of_each_family():
    families = {}
    for name in sorted(NAMES, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        families.setdefault(re.sub(r"\d+", "", name), name)
    return sorted(families.values())


@pytest.fixture(params=[*NAMES, *SETTINGS])
def name(request):
    return request.param


@pytest.fixture(params=[*smallest_of_each_family(), *SETTINGS])
def small_name(request):
    return request.param


@pytest.fixture(params=[*smallest_of_each_family(), *SETTINGS, *SMALL_TRANSFORMERS])
def any_small_name(request):
    return request.param


@pytest.fixture
def net(small_name):
    torch.manual_seed(0)
    return create(small_name, num_classes=5)


@pytest.fixture
def any_net(any_small_name):
    torch.manual_seed(0)
    return create(any_small_name, num_classes=5)


def pictures(batch=2, channels=3, height=SIDE, width=SIDE):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_every_parameter_gets_a_finite_gradient(any_net):
    any_net(pictures()).square().sum().backward()
    assert [k for k, p in any_net.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in any_net.parameters())


def test_odd_and_non_square_sizes_and_batch_neighbours(net):
    net.eval()
    with torch.no_grad():
        for height, width in [(33, 65), (64, 32), (1, 1)]:
            x = pictures(3, height=height, width=width)
            y = net(x)
            assert y.shape == (3, 5)
            torch.testing.assert_close(net(x[1:2]), y[1:2], rtol=1e-3, atol=1e-4)
        assert net(pictures(0)).shape == (0, 5)


@pytest.mark.parametrize("name", SMALL_TRANSFORMERS)
def test_transformers_take_whole_patches_and_batch_neighbours(name):
    net = create(name, num_classes=5).eval()
    with torch.no_grad():
        for height, width in [(16, 64), (48, 32), (16, 16)]:
            x = pictures(3, height=height, width=width)
            y = net(x)
            assert y.shape == (3, 5)
            torch.testing.assert_close(net(x[1:2]), y[1:2], rtol=1e-3, atol=1e-4)
        assert net(pictures(0)).shape == (0, 5)


@pytest.mark.parametrize("kind", [{}, {"feature_cls": "getter"}, {"feature_cls": "list"}])
def test_features_have_the_declared_strides_and_channels(name, kind):
    with torch.device("meta"):
        net = create(name, features_only=True, **kind).eval()
        maps = net(torch.empty(1, 3, SIDE, SIDE))
    assert net.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [SIDE // m.shape[-1] for m in maps] == net.feature_info.reduction()
    assert [m.shape[1] for m in maps] == net.feature_info.channels()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_features_of_transformers_have_the_declared_strides_and_channels(name):
    with torch.device("meta"):
        net = create(name, features_only=True, img_size=SIDE, out_indices=(0, 5)).eval()
        maps = net(torch.empty(1, 3, SIDE, SIDE))
    assert net.feature_info.reduction() == [16, 16]
    assert [SIDE // m.shape[-1] for m in maps] == [16, 16]
    assert [m.shape[1] for m in maps] == net.feature_info.channels()


def test_features_are_those_of_the_whole_network(small_name):
    whole = create(small_name).eval()
    expected = whole.forward_intermediates(pictures(1), intermediates_only=True)
    for kind in ({}, {"feature_cls": "getter"}):
        net = create(small_name, features_only=True, **kind).eval()
        weights = {k.removeprefix("model."): v for k, v in whole.state_dict().items()}
        prefix = "model." if kind else ""
        net.load_state_dict({k: weights[k.removeprefix(prefix)] for k in net.state_dict()})
        for ours, theirs in zip(net(pictures(1)), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("out_indices", [(1, 4), (-2, -1), 2])
def test_out_indices_choose_levels(name, out_indices):
    with torch.device("meta"):
        for kind in ({}, {"feature_cls": "getter"}):
            net = create(name, features_only=True, out_indices=out_indices, **kind)
            chosen = {(1, 4): [4, 32], (-2, -1): [16, 32], 2: [16, 32]}[out_indices]
            assert net.feature_info.reduction() == chosen
            maps = net.eval()(torch.empty(1, 3, SIDE, SIDE))
            assert [SIDE // m.shape[-1] for m in maps] == chosen


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_strides_mean_what_they_say(name, stem_stride, output_stride):
    with torch.device("meta"):
        net = create(name, features_only=True, stem_stride=stem_stride, output_stride=output_stride)
        maps = net.eval()(torch.empty(1, 3, SIDE, SIDE))
    natural = [stem_stride * 2**level for level in range(5)]
    if stem_stride == 1 and name.startswith("resnet"):
        natural = [1, 1, 2, 4, 8]  # their stem for small pictures has no max-pool either
    assert net.feature_info.reduction() == [min(stride, output_stride) for stride in natural]
    assert [SIDE // m.shape[-1] for m in maps] == net.feature_info.reduction()


def test_classifier_can_be_left_out_reset_and_split(any_net):
    net = any_net
    net.eval()
    x = pictures(1)
    features = net.forward_features(x)
    torch.testing.assert_close(net.forward_head(features), net(x))
    pooled = net.forward_head(features, pre_logits=True)
    assert pooled.shape == (1, net.num_features)
    net.reset_classifier(7)
    assert net(x).shape == (1, 7)
    net.reset_classifier(0)
    torch.testing.assert_close(net(x), pooled)


def test_num_classes_0_and_in_chans_1_at_construction(any_small_name):
    net = create(any_small_name, num_classes=0, in_chans=1).eval()
    assert net(pictures(1, channels=1)).shape == (1, net.num_features)


def test_drop_path_and_dropout_act_in_training_only(any_small_name):
    torch.manual_seed(0)
    net = create(any_small_name, num_classes=5, drop_rate=0.5, drop_path_rate=0.5)
    with torch.no_grad():
        net(pictures())  # the same statistics in both passes below
        net.eval()
        assert torch.equal(net(pictures()), net(pictures()))
        net.train()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        assert not torch.equal(net(pictures()), net(pictures()))


def test_exports_and_runs_at_another_size(net):
    net.eval()
    dynamic = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
    exported = torch.export.export(net, (pictures(),), dynamic_shapes=dynamic).module()
    x = pictures(3, height=96, width=70)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripts(net):
    net.eval()
    scripted = torch.jit.script(net)
    with torch.no_grad():
        torch.testing.assert_close(scripted(pictures(1)), net(pictures(1)))


def test_channels_last_computes_the_same(any_net):
    net = any_net
    net.eval()
    with torch.no_grad():
        expected = net(pictures())
        other = copy.deepcopy(net).to(memory_format=torch.channels_last)
        y = other(pictures().to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*NAMES, *SETTINGS, *TRANSFORMERS])
def test_full_size_is_built_on_the_meta_device(name):
    with torch.device("meta"):
        net = create(name)
    assert all(t.is_meta for t in (*net.parameters(), *net.buffers()))
    size = net.default_cfg["input_size"]
    assert count(net, size).parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", [*NAMES, *TRANSFORMERS])
def test_timm_builds_it_by_name(name):
    small = {"img_size": 32} if name in TRANSFORMERS else {"stem_stride": 1}
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=3, **small)
        assert net(torch.empty(2, 3, 32, 32)).shape == (2, 3)
    assert timm.models.get_pretrained_cfg(name).architecture == name
