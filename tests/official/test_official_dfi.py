"""The authors' checkpoints against a reference in plain torch, written from the description."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from comparison import filled
from torch import nn

from foveal import official
from foveal.layers import SelectiveIntegration, TaskAdaptiveAttention
from foveal.models import create_model
from foveal.models.dfi import TASKS
from foveal.models.dfi_decoder import Converter, DFIDecoder, Predictor
from foveal.official import coordinate_attention, dfi, mobilenext, spnet, triplet_attention

KEYS = Path(__file__).parents[1] / "fixtures" / "dfi" / "official_keys.json"
up = partial(F.interpolate, mode="bilinear", align_corners=True)
NAMES = ("edge", "saliency", "skeleton")


def gn(c):
    return nn.GroupNorm(min(c // 4, 32), c)


def conv_gn(a, b, kernel=1):
    return nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False), gn(b)


def narrow(k):
    return nn.Sequential(*conv_gn(k, k // 4), nn.ReLU(), *conv_gn(k // 4, k))


class Bottleneck(nn.Module):
    def __init__(self, inplanes, planes, stride=1, dilation=1, downsample=False):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(planes), nn.BatchNorm2d(planes)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        if downsample:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(nn.Module):
    def __init__(self, depths, planes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (depth, width) in enumerate(zip(depths, planes, strict=True), start=1):
            blocks = []
            for i in range(depth):
                stride = 2 if stage in (2, 3) and i == 0 else 1
                dilation = 2 if stage == 4 else 1
                blocks.append(Bottleneck(channels, width, stride, dilation, i == 0))
                channels = 4 * width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x):
        maps = [F.relu(self.bn1(self.conv1(x)))]
        x = F.max_pool2d(maps[0], 3, 2, 1, ceil_mode=True)
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps


class Base(nn.Module):
    def __init__(self, depths, planes, k):
        super().__init__()
        self.resnet = ResNet(depths, planes)
        self.ppm_pre = nn.Sequential(*conv_gn(4 * planes[-1], k))
        self.ppms = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), *conv_gn(k, k)) for n in (1, 3, 5)
        )
        self.ppm_cat = nn.Sequential(*conv_gn(k, k, 3))

    def forward(self, x):
        maps = self.resnet(x)
        p = self.ppm_pre(maps[-1])
        s = p + sum(up(ppm(p), p.shape[2:]) for ppm in self.ppms)
        return [*maps, self.ppm_cat(F.relu(s))]


class TheirConverter(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.convert = nn.ModuleList(
            nn.Sequential(*conv_gn(i, o), nn.ReLU()) for i, o in zip(a, b, strict=True)
        )

    def forward(self, maps):
        return [convert(x) for convert, x in zip(self.convert, maps, strict=True)]


class DFIM(nn.Module):
    def __init__(self, list_k, k, size_id, modes=3):
        super().__init__()
        self.size_id = size_id
        self.merge = nn.ModuleList(nn.Sequential(*conv_gn(width, k)) for width in list_k)
        self.merge_convs = nn.ModuleList(narrow(k) for _ in range(modes))
        self.fcs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(k, k // 4, bias=False), nn.ReLU(), nn.Linear(k // 4, len(list_k), False)
            )
            for _ in range(modes)
        )
        self.convs = nn.ModuleList(nn.Sequential(*conv_gn(k, k, 3)) for _ in range(modes))

    def one(self, maps, t):
        """A single picture, as the official code does it."""
        size = maps[self.size_id].shape[2:]
        f = [merge(up(x, size)) for merge, x in zip(self.merge, maps, strict=True)]
        z = self.merge_convs[t](sum(f)).mean((2, 3))
        gates = self.fcs[t](z).softmax(1)[0]
        kept = gates.topk(min(3, len(f))).indices.tolist()
        return F.relu(self.convs[t](F.relu(sum(gates[i] * f[i] for i in kept))))

    def forward(self, maps, t):
        batch = range(len(maps[0]))
        return torch.cat([self.one([x[n : n + 1] for x in maps], t) for n in batch])


class TAM(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.attention = narrow(k)
        self.block = nn.Sequential(*conv_gn(k, k, 3))

    def forward(self, x):
        return F.relu(self.block(x + x * self.attention(x).sigmoid()))


class TheirPredictor(nn.Module):
    def __init__(self, list_k):
        super().__init__()
        self.trans = nn.ModuleList(nn.Conv2d(k, 1, 1) for k in list_k)
        self.fuse = nn.Conv2d(len(list_k), 1, 1)

    def forward(self, maps, size):
        sides = [up(trans(x), size) for trans, x in zip(self.trans, maps, strict=True)]
        return (self.fuse(torch.cat(sides, 1)), *sides)


class Tail(nn.Module):
    def __init__(self, a, converted, widths, modes=3):
        super().__init__()
        self.converter = TheirConverter(a, converted)
        self.dfims = nn.ModuleList(DFIM(converted, k, d, modes) for d, k in enumerate(widths))
        self.tams = nn.ModuleList(TAM(k) for k in widths)
        self.predictors = nn.ModuleList(TheirPredictor(widths) for _ in range(modes))

    def tail(self, maps, size):
        maps = self.converter(maps)
        scales = [
            [tam(dfim(maps, t)) for dfim, tam in zip(self.dfims, self.tams, strict=True)]
            for t in range(len(self.predictors))
        ]
        return [p(s, size) for p, s in zip(self.predictors, scales, strict=True)]


class TheirDFI(Tail):
    def __init__(self, depths=(1, 1, 2, 2), planes=(8, 8, 12, 16), k=32, widths=(16, 32, 16, 32)):
        maps = [64, *(4 * p for p in planes), k]
        super().__init__(maps, [16, 16, 32, 16, 32, 16], widths)
        self.base = Base(depths, planes, k)

    def forward(self, x):
        return self.tail(self.base(x), x.shape[2:])


def picture(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def levels(widths, batch=2, size=(13, 10)):
    return [picture(batch, w, size[0] // (i + 1), size[1] // (i + 1)) for i, w in enumerate(widths)]


def loaded(reference, **hints):
    """Return foveal's module with the reference's weights, both in float64."""
    filled(reference)
    module = official.load_official(reference.float().state_dict(), **hints)
    reference.double()
    assert not module.training
    return module.double()


def test_whole_networks_with_the_prefixes_of_training():
    reference = filled(TheirDFI()).float()
    state = {f"module.{key}": value for key, value in reference.state_dict().items()}
    network = official.load_official({"state_dict": state, "optimizer": {"state": {}}}).double()
    x = picture(3, 3, 33, 50)
    with torch.no_grad():
        truth = reference.double()(x)
        ours = network(x, sides=True)
    assert network.tasks == TASKS
    for task, logits in zip(NAMES, truth, strict=True):
        expected = logits if task != "saliency" else logits[:1]
        torch.testing.assert_close(ours[task], expected, rtol=1e-8, atol=1e-9)
    assert network.default_cfg["channel_order"] == "bgr"
    assert not network.frozen_norm
    state = reference.float().state_dict()
    assert official.load_official(state, frozen_norm=True).frozen_norm


@pytest.mark.parametrize("modes", [1, 3, 4])
def test_what_follows_the_trunk(modes):
    reference = Tail((8, 12, 16, 20), (16, 16, 32, 32), (32, 16), modes)
    module = loaded(reference)
    assert isinstance(module, DFIDecoder)
    maps = levels((8, 12, 16, 20), batch=3)
    names = dfi.task_names(modes)
    assert names == (*NAMES, "task3")[:modes]
    ours = module(maps, (40, 30), names)
    for task, logits in zip(names, reference.tail(maps, (40, 30)), strict=True):
        torch.testing.assert_close(ours[task], logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("list_k", "k", "modes", "level"),
    [
        ((8, 8, 8, 8, 8, 8), 32, 3, 0),
        ((8, 4, 12), 16, 2, 1),
        ((4,) * 9, 16, 1, 8),
        ((8, 8), 16, 3, 0),
    ],
)
def test_selective_integration_of_any_levels_and_tasks(list_k, k, modes, level):
    reference = DFIM(list_k, k, level, modes)
    module = loaded(reference, **({"level": level} if level else {}))
    assert isinstance(module, SelectiveIntegration)
    maps = levels(list_k, batch=3)
    for t, y in enumerate(module(maps).values()):
        torch.testing.assert_close(y, reference(maps, t), rtol=1e-9, atol=1e-9)


def test_the_number_of_selected_levels_is_a_hint():
    state = DFIM((8, 8, 8, 8), 16, 0).state_dict()
    assert official.load_official(state).selected == 3
    assert official.load_official(state, selected=2).selected == 2


def test_the_other_parts():
    reference, x = TAM(16), picture(2, 16, 5, 7)
    module = loaded(reference)
    assert isinstance(module, TaskAdaptiveAttention)
    torch.testing.assert_close(module(x), reference(x))

    reference, maps = TheirConverter((8, 12), (16, 8)), levels((8, 12))
    module = loaded(reference)
    assert isinstance(module, Converter)
    torch.testing.assert_close(module(maps), reference(maps))

    reference = TheirPredictor((8, 12))
    module = loaded(reference)
    assert isinstance(module, Predictor)
    torch.testing.assert_close(module(maps, (9, 20)), reference(maps, (9, 20)))


@pytest.mark.parametrize(
    ("inplanes", "arguments"),
    [
        (32, {}),
        (32, {"dilation": 2}),
        (12, {"downsample": True, "stride": 2}),
        (12, {"downsample": True, "stride": 2, "dilation": 4}),
    ],
)
def test_bottlenecks(inplanes, arguments):
    reference = filled(Bottleneck(inplanes, 8, **arguments))
    state = reference.float().state_dict()
    block = dfi.bottleneck(state, arguments.get("stride", 1), arguments.get("dilation", 1))
    x = picture(2, inplanes, 9, 10)
    torch.testing.assert_close(block.double().eval()(x), reference.double().eval()(x))


def test_keys_and_shapes_are_the_official_ones():
    shapes = json.loads(KEYS.read_text())
    with torch.device("meta"):
        network = create_model("dfi")
    back = {ours: theirs for theirs, ours in dfi.modules(network).items()}
    own = {}
    for key, value in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        own[f"{back[module]}.{leaf}"] = list(value.shape)
    assert own == shapes


def test_weights_fit_the_network_of_that_name():
    """Whatever the order of the tasks: a key says which it is of."""
    arguments = {"layers": (1, 1, 1, 1), "channels": (8, 8, 12, 16)}
    network = create_model("dfi", backbone_args=arguments)
    back = {ours: theirs for theirs, ours in dfi.modules(network).items()}
    theirs = {}
    for key, value in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        theirs[f"{back[module]}.{leaf}"] = value
    other = official.load_official(theirs)
    network.load_state_dict(other.state_dict(), strict=True)
    x = torch.rand(1, 3, 32, 32)
    ours, same = network.eval()(x), other(x)
    assert all(torch.equal(ours[task], same[task]) for task in NAMES)


def test_missing_unexpected_and_misshapen_tensors_are_named():
    with torch.device("meta"):
        state = TheirDFI().state_dict()
    broken = {k: v for k, v in state.items() if k != "dfims.1.fcs.2.0.weight"}
    with pytest.raises(ValueError, match=r"fit DFI: missing: dfims\.1\.fcs\.2\.0\.weight$"):
        official.load_official(broken)
    broken = {k: v for k, v in state.items() if not k.startswith("converter.")}
    with pytest.raises(ValueError, match=r"fit DFI: missing: .*converter\.convert\.0\.0\.weight"):
        official.load_official(broken)
    with pytest.raises(ValueError, match=r"fit DFI: unexpected: base\.fc\.weight"):
        official.load_official({**state, "base.fc.weight": torch.zeros(2)})
    part = TAM(16).state_dict()
    with pytest.raises(
        ValueError, match=r"shapes: block.1.bias \[5\] where the network has \[16\]"
    ):
        official.load_official({**part, "block.1.bias": torch.zeros(5)})
    part = TheirPredictor((8, 8)).state_dict()
    with pytest.raises(ValueError, match=r"fit a predictor alone: missing: fuse.bias"):
        official.load_official({k: v for k, v in part.items() if k != "fuse.bias"})


def test_hints_are_for_what_no_weight_tells():
    integration, attention = DFIM((8, 8, 8), 16, 0).state_dict(), TAM(16).state_dict()
    for state, hints, message in [
        (attention, {"level": 0}, "the hint level is only for selective integration alone"),
        (
            attention,
            {"selected": 2},
            "the hint selected is only for DFI or DFI without its trunk or",
        ),
        (integration, {"frozen_norm": True}, "the hint frozen_norm is only for DFI"),
        (integration, {"level": 3}, "level must be the index of one of 3 levels, not 3"),
        (integration, {"selected": 4}, "selected must be 1 to 3 levels, or None, not 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            official.load_official(state, **hints)
    block = Bottleneck(32, 8).state_dict()
    with pytest.raises(
        ValueError, match="the hint stride must be 1 for a block without projection"
    ):
        dfi.bottleneck(block, 2, 1)
    with pytest.raises(ValueError, match="the hint dilation must be at least 1, not 0"):
        dfi.bottleneck(block, 1, 0)


def test_sources_are_not_confused():
    with torch.device("meta"):
        theirs = [TheirDFI(), Tail((8, 8, 8), (16, 16, 16), (16, 16)), DFIM((8, 8, 8), 16, 0)]
        theirs += [TAM(16), TheirConverter((8,), (8,)), TheirPredictor((8, 8))]
        foreign = [create_model(name) for name in ("resnet18", "resnet50d", "resnet50_triplet")]
        foreign += [create_model("mobilenext_035"), create_model("spnet"), nn.Conv2d(3, 4, 3)]
        foreign += [create_model("dfi"), Bottleneck(32, 8)]
    for module in theirs:
        assert dfi.recognise(module.state_dict())
        for other in (coordinate_attention, triplet_attention, mobilenext, spnet):
            assert not other.recognise(module.state_dict()), (type(module), other)
    for module in foreign:
        assert not dfi.recognise(module.state_dict()), type(module)
