import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from foveal.layers import SelectiveIntegration
from foveal.layers.selective_integration import largest

TASKS = ("saliency", "edge", "skeleton")
WIDTHS = (8, 12, 16, 20)


def filled(layer, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (2.0 if "fcs" in key else 0.4))
    return layer


def levels(batch=1, widths=WIDTHS, size=(12, 17), dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            *(batch, width, max(1, size[0] >> i), max(1, size[1] >> i)),
            generator=generator,
            dtype=dtype,
        )
        for i, width in enumerate(widths)
    ]


def enlarged(x, height, width):
    """Bilinear, corners aligned, as a product with two matrices."""

    def matrix(old, new):
        m = torch.zeros(new, old, dtype=x.dtype)
        for i in range(new):
            place = i * (old - 1) / (new - 1) if new > 1 else 0.0
            low = min(int(place), old - 1)
            m[i, low] += 1 - (place - low)
            if place > low:
                m[i, low + 1] += place - low
        return m

    return matrix(x.shape[2], height) @ x @ matrix(x.shape[3], width).T


def description(maps, state, task, level, selected):
    """Compute one task of one picture step by step; return its map and its gates."""
    channels = state["merge.0.0.weight"].shape[0]

    def step(x, name, conv, norm, padding=0):
        x = F.conv2d(x, state[f"{name}.{conv}.weight"], padding=padding)
        affine = (state[f"{name}.{norm}.{key}"] for key in ("weight", "bias"))
        return F.group_norm(x, max(1, x.shape[1] // 4), *affine)

    size = maps[level].shape[2:]
    f = [step(enlarged(x, *size), f"merge.{i}", 0, 1) for i, x in enumerate(maps)]
    if selected is None:
        v, gates = torch.zeros_like(f[0]), None
        for part in f:
            v = v + part
    else:
        u = step(sum(f), f"merge_convs.{task}", 0, 1).relu()
        u = step(u, f"merge_convs.{task}", 3, 4)
        z = u[0].flatten(1).sum(1) / (size[0] * size[1])
        logits = state[f"fcs.{task}.2.weight"] @ (state[f"fcs.{task}.0.weight"] @ z).clamp(min=0)
        gates = [(one.exp() / logits.exp().sum()).item() for one in logits]
        order = sorted(range(len(gates)), key=lambda i: -gates[i])  # stable: the earlier level wins
        v = sum(gates[i] * f[i] for i in order[:selected])
    assert v.shape == (1, channels, *size)
    return step(v.relu(), f"convs.{task}", 0, 1, padding=1).relu(), gates


@pytest.mark.parametrize("selected", [1, 3, 4, None])
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("size", [(12, 17), (1, 9), (1, 1)])
def test_equals_the_description_picture_by_picture(selected, level, size):
    layer = filled(SelectiveIntegration(WIDTHS, 16, TASKS, level=level, selected=selected)).double()
    maps = levels(3, size=size)
    y = layer(maps)
    assert list(y) == list(TASKS)
    state = layer.state_dict()
    chosen = set()
    for task in TASKS:
        for n in range(3):
            own = [x[n : n + 1] for x in maps]
            truth, gates = description(own, state, task, level, selected)
            torch.testing.assert_close(y[task][n : n + 1], truth, rtol=1e-10, atol=1e-11)
            if gates is not None:
                ours = layer.gates(maps, (task,))[task][n].tolist()
                assert ours == pytest.approx(gates, rel=1e-9)
                chosen.add(tuple(sorted(range(4), key=lambda i: -gates[i])[:selected]))
    if selected in (1, 3) and size == (12, 17):
        assert len(chosen) > 1, "pictures and tasks choose differently in this test"


def test_keeps_the_largest_and_of_equal_ones_the_first():
    weights = torch.tensor(
        [[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25], [0.3, 0.2, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]]
    )
    expected = [[0, 0.4, 0, 0.3], [0.25, 0.25, 0, 0], [0.3, 0, 0.3, 0], [0, 0, 0.3, 0.4]]
    torch.testing.assert_close(largest(weights, 2), torch.tensor(expected))
    expected = [[0, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0], [0.3, 0.2, 0.3, 0], [0, 0.2, 0.3, 0.4]]
    torch.testing.assert_close(largest(weights, 3), torch.tensor(expected))
    assert torch.equal(largest(weights, 4), weights)
    assert largest(weights[:0], 2).shape == (0, 4)
    broken = torch.full((1, 3), float("nan"))
    assert largest(broken, 1).isnan().all(), "it stays visible"


def test_gradients_flow_through_the_kept_weights_only():
    weights = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    largest(weights, 2).sum().backward()
    top = weights.detach().topk(2, dim=1).indices
    expected = torch.zeros(3, 6, dtype=torch.float64).scatter(1, top, 1.0)
    assert torch.equal(weights.grad, expected)


def test_derivatives_reach_all_logits_of_a_choice():
    layer = filled(SelectiveIntegration((4, 4, 4), 8, ("edge",), selected=1)).double()
    with torch.no_grad():  # one of the two hidden units is active, whatever they see
        layer.fcs["edge"][0].weight[1] = -layer.fcs["edge"][0].weight[0]
    maps = [x.requires_grad_() for x in levels(2, widths=(4, 4, 4), size=(4, 3))]
    assert torch.autograd.gradcheck(lambda *x: layer(x)["edge"], tuple(maps))
    layer.zero_grad()
    layer(maps)["edge"].square().sum().backward()
    assert layer.fcs["edge"][2].weight.grad.abs().sum(1).min() > 0


def test_all_gates_are_equal_where_no_hidden_unit_is_active():
    layer = filled(SelectiveIntegration(WIDTHS, 16, ("edge",), selected=2)).double()
    with torch.no_grad():
        layer.fcs["edge"][0].weight.zero_()
    maps = levels(2)
    assert torch.equal(layer.gates(maps)["edge"], torch.full((2, 4), 0.25, dtype=torch.float64))
    truth = torch.cat(
        [
            description([x[n : n + 1] for x in maps], layer.state_dict(), "edge", 0, 2)[0]
            for n in range(2)
        ]
    )
    torch.testing.assert_close(layer(maps)["edge"], truth)


def test_any_subset_of_tasks_equals_all_of_them():
    layer, maps = filled(SelectiveIntegration(WIDTHS, 16, TASKS)).double(), levels(2)
    everything = layer(maps)
    for tasks in [("edge",), ("skeleton", "saliency")]:
        some = layer(maps, tasks)
        assert list(some) == list(tasks)
        assert all(torch.equal(some[task], everything[task]) for task in tasks)


@pytest.mark.parametrize("selected", [2, None])
def test_batches_of_every_size(selected):
    layer = filled(SelectiveIntegration(WIDTHS, 16, TASKS, selected=selected)).double()
    maps = levels(5)
    y = layer(maps)["edge"]
    alone = [layer([x[n : n + 1] for x in maps])["edge"] for n in range(5)]
    torch.testing.assert_close(y, torch.cat(alone))
    assert layer([x[:0] for x in maps])["edge"].shape == (0, *y.shape[1:])


def test_many_levels_and_tasks():
    names = [f"task{i}" for i in range(5)]
    layer = SelectiveIntegration([4] * 9, 16, names, level=3, selected=5)
    y = layer(levels(2, widths=[4] * 9, dtype=torch.float32))
    assert list(y) == names
    assert y["task4"].shape == (2, 16, 1, 2)


def test_without_selection_there_is_nothing_to_choose_by():
    layer = SelectiveIntegration(WIDTHS, 16, TASKS, selected=None)
    assert not any(key.startswith(("fcs", "merge_convs")) for key in layer.state_dict())
    with pytest.raises(ValueError, match="there are no gates with selected=None"):
        layer.gates(levels(dtype=torch.float32))


def test_exports_with_free_batch_and_sizes():
    layer = filled(SelectiveIntegration(WIDTHS, 16, TASKS)).eval()
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    maps = tuple(levels(2, size=(40, 56), dtype=torch.float32))
    dynamic = {"levels": tuple(dict(free) for _ in maps), "tasks": None}
    exported = torch.export.export(layer, (maps,), {"tasks": None}, dynamic_shapes=dynamic).module()
    for batch, size in [(1, (24, 17)), (4, (56, 40)), (3, (33, 70))]:
        maps = tuple(levels(batch, size=size, dtype=torch.float32))
        for task, y in exported(maps, tasks=None).items():
            torch.testing.assert_close(y, layer(maps)[task], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same(duplicate):
    layer, maps = filled(SelectiveIntegration(WIDTHS, 16, TASKS)).double(), levels(2)
    assert torch.equal(duplicate(layer)(maps)["edge"], layer(maps)["edge"])


def test_type_and_device():
    layer = SelectiveIntegration(WIDTHS, 16, TASKS, device="meta", dtype=torch.float64)
    assert all(p.is_meta and p.dtype == torch.float64 for p in layer.parameters())
    maps = [x.to("meta") for x in levels(2)]
    assert layer(maps)["edge"].shape == (2, 16, 12, 17)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": ()}, r"in_channels must be at least 1 for each level, not \(\)"),
        ({"in_channels": (8, 0)}, r"in_channels must be at least 1 for each level, not \(8, 0\)"),
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"tasks": ()}, r"tasks must be different names, at least one, not \(\)"),
        ({"tasks": ("edge", "edge")}, "tasks must be different names"),
        ({"tasks": "edge"}, "tasks must be different names, at least one, not 'edge'"),
        ({"level": 4}, "level must be the index of one of 4 levels, not 4"),
        ({"selected": 5}, "selected must be 1 to 4 levels, or None, not 5"),
        ({"selected": 0}, "selected must be 1 to 4 levels, or None, not 0"),
    ],
)
def test_impossible_layers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SelectiveIntegration(**{"in_channels": WIDTHS, "channels": 16, "tasks": TASKS} | arguments)


def test_unknown_tasks_and_other_numbers_of_levels_are_refused():
    layer, maps = SelectiveIntegration(WIDTHS, 16, TASKS), levels(dtype=torch.float32)
    with pytest.raises(ValueError, match="unknown task 'edges': did you mean 'edge'"):
        layer(maps, ("edges",))
    with pytest.raises(ValueError, match="the layer takes 4 levels, not 3"):
        layer(maps[:3])
