import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from foveal.config import MiningConfig
from foveal.mining import Modulator, RegionMiner
from foveal.mining.result import AREA, EMPTY, EXHAUSTED, MAX_STEPS

WEIGHT = torch.tensor([[1.0, 0.2, -0.3], [-0.4, 1.0, 0.3], [0.1, -0.5, 0.9]]).double()


def linear(pictures):
    """A model of three classes whose activations are sums of the channels."""
    cams = torch.einsum("kc,nchw->nkhw", WEIGHT.to(pictures), pictures)
    return 3 * cams.mean((2, 3)) + 0.2, cams


def scenes(count=4, size=(9, 11), seed=0, dtype=torch.float64):
    """Return pictures with bright blocks, of heavy tails, and labels."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(count, 3, *size, generator=generator, dtype=torch.float64) ** 4
    pictures[:, :, 2:7, 2:8] *= 3
    labels = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0]])[torch.arange(count) % 4]
    return pictures.to(dtype), labels


def config(**changes):
    plain = {"mode": "absolute", "keep": 0.57, "min_area": 2, "tau": 0.6, "max_steps": 5}
    return MiningConfig(**{**plain, **changes})


def same(one, other):
    """Say whether two results are the same in every number."""
    names = ("pairs", "masks", "scores", "step_map", "steps", "reason", "near", "forwards")
    nan_aware = torch.equal(one.modulator.nan_to_num(-1), other.modulator.nan_to_num(-1))
    return nan_aware and all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


def reference(pictures, labels, c):
    """Mine pair by pair in NumPy, from the written algorithm; a picture's pairs in step."""
    found = {}
    for n, (picture, present) in enumerate(zip(pictures.numpy(), labels.numpy(), strict=True)):
        pairs = [k for k in range(len(present)) if present[k]]
        state = {k: {"T": np.zeros(picture.shape[1:], int), "why": MAX_STEPS} for k in pairs}
        active = list(pairs)
        for t in range(1, c.max_steps + 1):
            looked = {}
            for k in active:
                own = [j for j in pairs if c.merged or j == k]
                hidden = np.any([state[j]["T"] > 0 for j in own], axis=0)
                cam = np.tensordot(WEIGHT.numpy()[k], np.where(hidden, 0, picture), 1)
                looked[k] = hidden, cam, 1 / (1 + np.exp(-(3 * cam.mean() + 0.2)))
            yes = {k: t == 1 or not c.adaptive or q >= c.keep for k, (_, _, q) in looked.items()}
            if c.joint_stop and any(yes.values()):
                yes = dict.fromkeys(yes, True)
            for k in list(active):
                hidden, cam, _ = looked[k]
                a = np.where(hidden, 0, np.maximum(cam, 0))
                region = a > c.tau * a.max() if a.max() > 0 else np.zeros_like(hidden)
                if yes[k] and region.sum() >= c.min_area:
                    state[k]["T"][region] = t
                else:
                    state[k]["why"] = EMPTY if yes[k] else EXHAUSTED
                    active.remove(k)
        found.update({(n, k): (s["T"], s["why"]) for k, s in state.items()})
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adaptive": False},
        {"merged": True},
        {"merged": True, "adaptive": False, "max_steps": 3},
        {"joint_stop": True},
        {"merged": True, "joint_stop": True},
    ],
    ids=str,
)
def test_ablations_are_what_is_written(options):
    pictures, labels = scenes(12)
    c = config(**options)
    result = RegionMiner(linear, c).mine(pictures, labels)
    expected = reference(pictures, labels, c)
    assert [tuple(pair) for pair in result.pairs.tolist()] == list(expected)
    for p, (steps, why) in enumerate(expected.values()):
        assert np.array_equal(result.step_map[p].numpy(), steps)
        assert result.reason[p] == why
        assert result.steps[p] == steps.max()
    plain = RegionMiner(linear, config()).mine(pictures, labels)
    assert options == {} or not torch.equal(result.step_map, plain.step_map)


def test_fixed_steps_ask_no_modulator_and_need_no_calibration():
    fixed = MiningConfig(adaptive=False, max_steps=2)
    pictures, labels = scenes()
    found = RegionMiner(linear, fixed).mine(pictures, labels)
    calibrated = Modulator(3, fixed).calibrate(linear, [(pictures, torch.zeros(4, 3))])
    assert same(found, RegionMiner(linear, fixed, calibrated).mine(pictures, labels))
    assert found.modulator[0].isfinite().all()


def test_objects_take_steps_of_their_own():
    result = RegionMiner(linear, config()).mine(*scenes(12))
    assert len(set(result.steps.tolist())) >= 3
    assert {EXHAUSTED, EMPTY, MAX_STEPS} == set(result.reason.tolist())


@pytest.mark.parametrize("options", [{}, {"adaptive": False}])
def test_with_one_class_in_a_picture_a_merged_mask_is_its_own(options):
    pictures, _ = scenes(6)
    labels = torch.eye(3, dtype=torch.int64)[torch.arange(6) % 3]
    own = RegionMiner(linear, config(**options)).mine(pictures, labels)
    merged = RegionMiner(linear, config(merged=True, **options)).mine(pictures, labels)
    joint = RegionMiner(linear, config(**(options or {"joint_stop": True})))
    assert own.steps.max() > 1
    assert same(own, merged)
    assert same(own, joint.mine(pictures, labels))


@pytest.fixture(scope="module")
def network():
    """A small convolutional classifier with BatchNorm, whose maps are a quarter of the picture."""
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)
            )
            self.classifier = nn.Conv2d(8, 3, 1, bias=False)

        def features(self, x):
            return self.trunk(x)

        def head(self, features):
            cams = self.classifier(features)
            return cams.mean((2, 3)), cams

        def forward(self, x):
            return self.head(self.features(x))

    model = Network()
    model.train()(torch.rand(8, 3, 20, 24))
    return model


@pytest.mark.parametrize("options", [{}, {"merged": True}, {"erase": "feature"}], ids=str)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_chunks_do_not_matter(network, options, chunk):
    pictures, labels = scenes(6, (20, 24))
    exact = copy.deepcopy(network).double()
    shared = {"keep": 0.49, "min_area": 1, **options}
    whole = RegionMiner(exact, config(max_batch_pairs=64, **shared)).mine(pictures, labels)
    parts = RegionMiner(exact, config(max_batch_pairs=chunk, **shared)).mine(pictures, labels)
    assert whole.steps.max() > 1
    for name in ("masks", "step_map", "steps", "reason", "forwards"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    torch.testing.assert_close(whole.scores, parts.scores, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.modulator, parts.modulator, rtol=1e-12, atol=0, equal_nan=True)


def test_large_pictures_go_to_a_cpu_in_small_groups():
    """Of 400 x 300 pixels one at a time, of a quarter as many four."""
    seen = {}

    def model(pictures):
        seen.setdefault(tuple(pictures.shape[2:]), []).append(len(pictures))
        cams = torch.nn.functional.avg_pool2d(pictures[:, :2], 50).abs()
        return cams.mean((2, 3)), cams

    absolute = config(mode="absolute", keep=0.0, max_steps=2)
    for size in ((400, 300), (200, 150)):
        found = RegionMiner(model, absolute).mine(torch.rand(9, 3, *size), torch.ones(9, 2))
        assert found.steps.min() >= 1
    assert max(seen[400, 300]) == 1
    assert 4 <= max(seen[200, 150]) < 9


def test_the_network_never_sees_more_than_a_chunk():
    sizes = []

    def model(pictures):
        sizes.append(len(pictures))
        return linear(pictures)

    pictures, labels = scenes(8)
    result = RegionMiner(model, config(max_batch_pairs=3)).mine(pictures, labels)
    assert max(sizes) == 3
    # in the first step a picture is looked at once for all of its classes
    distinct = len(result.pairs[:, 0].unique())
    assert sum(sizes) == distinct + int(result.forwards[1:].sum())
    assert result.forwards[0] == len(result.pairs)


def test_the_order_of_pictures_does_not_matter():
    pictures, labels = scenes(8)
    result = RegionMiner(linear, config()).mine(pictures, labels)
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    permuted = RegionMiner(linear, config()).mine(pictures[order], labels[order])
    place = {tuple(pair): p for p, pair in enumerate(result.pairs.tolist())}
    rows = [place[int(order[n]), c] for n, c in permuted.pairs.tolist()]
    for name in ("masks", "scores", "step_map", "steps", "reason", "near"):
        assert torch.equal(getattr(permuted, name), getattr(result, name)[rows])


def test_only_the_pairs_own_mask_is_hidden_before_the_picture():
    seen = []

    def model(pictures):
        seen.append(pictures.clone())
        return linear(pictures)

    pictures, labels = scenes(2)
    miner = RegionMiner(model, config(dilation=1), fill=[5.0, 6.0, 7.0])
    state = miner.start(pictures, labels)
    miner.step(state)
    before, owners = state.masks.clone(), state.pairs[:, 0]
    miner.step(state)
    wide = nn.functional.max_pool2d(before.float(), 3, 1, 1).bool()
    for picture, mask, n in zip(seen[1], wide, owners, strict=True):
        assert torch.equal(picture[:, ~mask], pictures[n][:, ~mask])
        assert (picture[:, mask] == torch.tensor([5.0, 6.0, 7.0])[:, None]).all()
    assert torch.equal(seen[0], pictures)


def test_features_are_hidden_where_half_of_a_cell_is_mined(network):
    pictures, labels = scenes(4, (20, 24), dtype=torch.float32)
    calls = {"features": 0, "head": []}
    model = copy.deepcopy(network)
    features, head = model.features, model.head

    def counted_features(x):
        calls["features"] += len(x)
        return features(x)

    def recorded_head(x):
        calls["head"].append(x)
        return head(x)

    model.features, model.head = counted_features, recorded_head
    miner = RegionMiner(model, config(erase="feature", keep=0.3, min_area=1, tau=0.4))
    state = miner.start(pictures, labels)
    miner.step(state)
    cells = state.masks.float().unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4)) >= 0.5
    miner.step(state)
    assert cells.any()
    whole = network.eval().features(pictures).detach()[state.pairs[:, 0]]
    expected = torch.where(cells[:, None], 0, whole)
    torch.testing.assert_close(calls["head"][1], expected, rtol=1e-6, atol=1e-6)
    assert calls["features"] == len(pictures)  # once, whatever the steps
    network.train()


# Guards


def test_no_label_no_pair_and_no_look():
    def model(pictures):
        raise AssertionError("the network was asked")

    result = RegionMiner(model, config()).mine(torch.rand(2, 3, 5, 6), torch.zeros(2, 3))
    assert result.pairs.shape == (0, 2)
    assert result.forwards.tolist() == []
    assert result.to_label_map().tolist() == torch.zeros(2, 5, 6).tolist()
    assert (result.to_label_map(empty="ignore") == 255).all()
    none = RegionMiner(model, config()).mine(torch.rand(0, 3, 5, 6), torch.zeros(0, 3))
    assert none.to_label_map().shape == (0, 5, 6)


def test_a_map_without_positive_values_is_empty():
    pictures, labels = scenes(4)
    pictures[0] = -pictures[0] * torch.tensor([1, 0, 0]).view(3, 1, 1)  # of class 0 below 0
    result = RegionMiner(linear, config()).mine(pictures, labels)
    first = result.pairs.tolist().index([0, 0])
    assert result.reason[first] == EMPTY
    assert result.steps[first] == 0
    assert not result.masks[first].any()
    assert [0, 0] in result.unmined.tolist()
    assert result.modulator[1:, first].isnan().all()


def test_the_strongest_cell_may_be_the_region_instead():
    def model(pictures):  # a map of 2 x 3 cells for pictures of 6 x 9 pixels
        cams = pictures.mean(1, keepdim=True).unfold(2, 3, 3).unfold(3, 3, 3).mean((4, 5))
        return cams.mean((2, 3)), cams

    pictures = -torch.ones(2, 3, 6, 9)
    pictures[0, :, 3:, 6:] = -0.5
    pictures[1, :, :3, :3] = 1.0
    c = config(fallback="argmax_cell", min_area=1, tau=0.4)
    result = RegionMiner(model, c).mine(pictures, torch.ones(2, 1))
    assert result.reason[0] == EMPTY
    assert result.steps.tolist() == [1, 1]
    assert result.masks[0].nonzero().tolist() == [[y, x] for y in (3, 4, 5) for x in (6, 7, 8)]
    assert (result.step_map[0][result.masks[0]] == 1).all()
    assert not result.scores[0].any()  # it gives way to any region that was found
    assert len(result.unmined) == 0
    plain = RegionMiner(model, config(min_area=1, tau=0.4)).mine(pictures, torch.ones(2, 1))
    assert plain.unmined.tolist() == [[0, 0]]
    assert torch.equal(plain.step_map[1], result.step_map[1])


def test_a_mined_pixel_is_left_out_before_the_maximum():
    # A network that still sees what was hidden, as in feature erasing.
    def model(pictures):
        return pictures.new_full((len(pictures), 1), 9.0), cam.expand(len(pictures), -1, -1, -1)

    cam = torch.tensor([[[[8.0, 5.0, 2.0, 1.2, 0.1]]]])
    result = RegionMiner(model, config(tau=0.5, min_area=1)).mine(
        torch.rand(1, 3, 1, 5), torch.ones(1, 1)
    )
    assert result.step_map.tolist() == [[[1, 1, 2, 2, 3]]]
    assert result.scores[0, 0].tolist() == pytest.approx([1, 0.625, 0.9, 0.9 * 0.6, 0.81])
    assert result.reason.tolist() == [EMPTY]


def test_the_least_area_is_in_cells():
    def model(pictures):
        cams = torch.zeros(len(pictures), 1, 3, 4)
        cams[..., 1, 1] = 1.0
        return torch.ones(len(pictures), 1), cams

    def mined(min_area):
        c = config(min_area=min_area, tau=0.0, max_steps=1)
        return RegionMiner(model, c).mine(torch.rand(1, 3, 12, 16), torch.ones(1, 1))

    # Enlarged by 4, the cell is above 0 in 7 x 7 pixels, or 49 / 16 cells.
    assert mined(3).masks.sum() >= 48
    assert mined(5).reason.tolist() == [EMPTY]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_named(value):
    def model(pictures):
        logits, cams = linear(pictures)
        cams = cams.clone()
        cams[-1, 1, 0, 0] = value
        return logits, cams

    pictures, labels = scenes(2)
    with pytest.raises(
        ValueError, match=r"picture 1 of the batch, class 1: .* not finite in step 1"
    ):
        RegionMiner(model, config()).mine(pictures, labels)
    labels[1, 1] = 0  # of a class that nobody asks for it does not matter
    RegionMiner(model, config(max_steps=1)).mine(pictures, labels)


def test_a_large_mask_stops():
    pictures, labels = scenes(8)
    free = RegionMiner(linear, config()).mine(pictures, labels)
    result = RegionMiner(linear, config(max_area_fraction=0.12)).mine(pictures, labels)
    areas = result.masks.double().mean((1, 2))
    assert (result.reason == AREA).any()
    assert torch.equal(result.reason == AREA, areas >= 0.12)
    for p, (k, why) in enumerate(zip(result.steps.tolist(), result.reason.tolist(), strict=True)):
        expected = free.step_map[p] * (free.step_map[p] <= k)
        assert torch.equal(result.step_map[p], expected)
        if why == AREA and k > 1:
            assert ((expected > 0) & (expected < k)).double().mean() < 0.12


@pytest.mark.parametrize("erase", ["pixel", "feature"])
def test_the_network_is_only_lent(network, erase):
    network.train()
    network.trunk[1].eval()
    buffers = copy.deepcopy(dict(network.named_buffers()))
    modes = [module.training for module in network.modules()]
    pictures, labels = scenes(4, (20, 24), dtype=torch.float32)
    pictures.requires_grad_()
    result = RegionMiner(network, config(erase=erase)).mine(pictures, labels)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(buffers[name], value) for name, value in network.named_buffers())
    assert not result.scores.requires_grad
    again = RegionMiner(copy.deepcopy(network).eval(), config(erase=erase)).mine(pictures, labels)
    assert same(result, again)
    network.train()


def test_the_mode_comes_back_when_the_network_fails(network):
    network.train()
    with pytest.raises(RuntimeError):
        RegionMiner(network, config()).mine(torch.rand(1, 4, 8, 8), torch.ones(1, 3))
    assert network.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_full(dtype):
    # 0.6 of the maximum is rounded away from the threshold 0.6 in half precision.
    def model(pictures):
        return pictures.mean((2, 3))[:, :1] + 9, pictures[:, :1]

    pictures = torch.zeros(1, 3, 2, 4, dtype=dtype)
    pictures[:, :, 0] = torch.tensor([1000.0, 700, 602, 598]).to(dtype)
    c = config(tau=0.6, min_area=1, max_steps=1)
    result = RegionMiner(model, c).mine(pictures, torch.ones(1, 1))
    assert result.scores.dtype == torch.float32
    exact = RegionMiner(model, c).mine(pictures.double(), torch.ones(1, 1))
    assert torch.equal(result.masks, exact.masks)
    torch.testing.assert_close(result.scores.double(), exact.scores, rtol=1e-6, atol=0)


def test_under_autocast_scores_are_full(network):
    pictures, labels = scenes(4, (20, 24), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = RegionMiner(network, config(keep=0.3, min_area=1)).mine(pictures, labels)
    assert result.scores.dtype == result.modulator.dtype == torch.float32
    top = result.scores[result.steps > 0].amax((1, 2))
    assert (top == 1).all()


# Seeds, evidence, settings


def test_seeds_of_others_are_the_first_step():
    pictures, labels = scenes(4)
    seeds = torch.rand(4, 3, 3, 4, generator=torch.Generator().manual_seed(3)).double()
    plain = RegionMiner(linear, config()).mine(pictures, labels)
    result = RegionMiner(linear, config(min_area=1, tau=0.4)).mine(pictures, labels, seeds=seeds)
    large = nn.functional.interpolate(seeds, pictures.shape[2:], mode="bilinear")
    for (n, c), step_map in zip(result.pairs.tolist(), result.step_map, strict=True):
        assert torch.equal(step_map == 1, large[n, c] > 0.4 * large[n, c].max())
    assert torch.equal(result.modulator[0], plain.modulator[0])  # the network is asked all the same
    assert not torch.equal(result.modulator[1], plain.modulator[1])


def test_relative_pairs_are_held_to_their_own_first_step():
    pictures, labels = scenes(12)
    c = config(mode="relative", keep=0.85)
    result = RegionMiner(linear, c).mine(pictures, labels)
    q, steps = result.modulator, result.steps
    assert {EXHAUSTED} <= set(result.reason.tolist())
    for p, why in enumerate(result.reason.tolist()):
        taken = q[: steps[p], p]
        assert (taken >= 0.85 * q[0, p]).all()
        if why == EXHAUSTED:
            assert q[steps[p], p] < 0.85 * q[0, p]


def test_a_miner_survives_copies_and_pickles(network):
    pictures, labels = scenes(4, (20, 24), dtype=torch.float32)
    c = MiningConfig(min_area=1, tau=0.3)
    modulator = Modulator(3, c).calibrate(network, [(pictures, 1 - labels)])
    miner = RegionMiner(network, c, modulator)
    assert "modulator.thresholds" in miner.state_dict()
    result = miner.mine(pictures, labels)
    assert same(copy.deepcopy(miner).mine(pictures, labels), result)
    assert same(pickle.loads(pickle.dumps(result)), result)
    assert same(miner.mine(pictures, labels), result)  # nothing is kept between calls


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(3, 5, 5), torch.ones(3, 3), "images must be floating point"),
        (torch.ones(1, 3, 5, 5, dtype=torch.uint8), torch.ones(1, 3), "not torch.uint8"),
        (torch.rand(2, 3, 5, 5), torch.ones(1, 3), r"labels must be \[2, C\].*not \[1, 3\]"),
        (torch.rand(2, 3, 5, 5), torch.ones(2, 4), r"must return logits \[2, 4\] and activations"),
    ],
)
def test_what_does_not_fit_is_named(images, labels, message):
    with pytest.raises(ValueError, match=message):
        RegionMiner(linear, config()).mine(images, labels)


def test_settings_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"modulator has keep=0.5, and the config keep=0.57"):
        RegionMiner(linear, config(), Modulator(3, MiningConfig(mode="absolute")))
    with pytest.raises(ValueError, match="function has no features and no head: use erase='pixel'"):
        RegionMiner(linear, config(erase="feature"))
    with pytest.raises(ValueError, match="the modulator is not calibrated: give RegionMiner a"):
        RegionMiner(linear).mine(*scenes())
    with pytest.raises(ValueError, match=r"seeds must be \[4, 3, 'h', 'w'\], not \[4, 2, 3, 3\]"):
        RegionMiner(linear, config()).mine(*scenes(), seeds=torch.rand(4, 2, 3, 3))
