import copy
import pickle

import numpy as np
import pytest
import timm.layers
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils._python_dispatch import TorchDispatchMode

from foveal.layers import ReAttention

DIM, HEADS = 24, 4


def make(seed=0, tokens=7, dim=DIM, num_heads=HEADS, **kw):
    """Return a layer whose parameters and statistics are all away from their initial values."""
    torch.manual_seed(seed)
    layer = ReAttention(dim, num_heads, qkv_bias=True, **kw)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for key, buffer in layer.named_buffers():
            if "var" in key and buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) * 0.02 + (0.01 if "running_var" in key else 0))
            elif key == "tokens":
                buffer.fill_(tokens)
    return layer


def sequence(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def deviation(y, truth):
    return ((y.double() - truth.double()).abs().max() / truth.double().abs().max()).item()


def formula(layer, x, mode):
    """Compute the layer as the paper and its code define it, in float64, step by step.

    Returns (y, maps, mean, unbiased variance).
    """
    w = {key: value.detach().double().numpy() for key, value in layer.state_dict().items()}
    x = x.detach().double().numpy()
    heads, d = layer.num_heads, x.shape[2] // layer.num_heads
    qkv = x @ w["qkv.weight"].T + w["qkv.bias"]
    q, k, v = np.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, d), (2, 3), (0, 2))  # [B, H, N, d]
    logits = layer.scale * q @ np.swapaxes(k, 2, 3)
    maps = np.exp(logits - logits.max(3, keepdims=True))
    maps /= maps.sum(3, keepdims=True)
    mean = variance = None
    if layer.apply_transform:
        theta, b = w["reatten_matrix.weight"][:, :, 0, 0], w["reatten_matrix.bias"]
        maps = np.einsum("gh,bhij->bgij", theta, maps) + b[:, None, None]
        if mode == "layer":
            centred = maps - maps.mean(1, keepdims=True)
            maps = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
            weight, bias = w["var_norm.weight"], w["var_norm.bias"]
            maps = maps * weight[:, None, None] + bias[:, None, None]
        elif mode in ("train", "eval"):
            mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
            by = (mean, variance)
            if mode == "eval":
                by = (w["var_norm.running_mean"], w["var_norm.running_var"])
            gain = w["var_norm.weight"] / np.sqrt(by[1] + 1e-5)
            maps = (maps - by[0][:, None, None]) * gain[:, None, None]
            maps = maps + w["var_norm.bias"][:, None, None]
            count = maps[:, 0].size
            variance = variance * count / (count - 1)
        maps = maps * layer.reatten_scale
    y = np.swapaxes(maps @ v, 1, 2).reshape(x.shape) @ w["proj.weight"].T + w["proj.bias"]
    return y, maps, mean, variance


@pytest.mark.parametrize("save_memory", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval", "layer", "none"])
def test_equals_the_formula_in_float64(mode, scaled, save_memory):
    norm = mode if mode in ("layer", "none") else "batch"
    layer = make(norm=norm, transform_scale=scaled, save_memory=save_memory).double()
    layer.train(mode != "eval")
    x = sequence(3, 7, DIM, dtype=torch.float64)
    y, maps, mean, variance = formula(layer, x, mode)
    before = copy.deepcopy(layer.state_dict())
    np.testing.assert_allclose(layer.attention_maps(x).detach().numpy(), maps, atol=1e-12)
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    np.testing.assert_allclose(layer(x).detach().numpy(), y, atol=1e-11)
    if mode == "train":  # the running statistics took a step of 0.1
        for key, batch in (("running_mean", mean), ("running_var", variance)):
            expected = 0.9 * before[f"var_norm.{key}"].numpy() + 0.1 * batch
            now = getattr(layer.var_norm, key).numpy()
            np.testing.assert_allclose(now, expected, atol=1e-14)
        assert layer.var_norm.num_batches_tracked == 1


@pytest.mark.parametrize("scale", [None, 0.3])
def test_without_the_transform_it_is_plain_attention(scale):
    layer = make(apply_transform=False, qk_scale=scale).double()
    assert {key.partition(".")[0] for key in layer.state_dict()} == {"qkv", "proj"}
    x = sequence(2, 5, DIM, dtype=torch.float64)
    y, maps, *_ = formula(layer, x, "none")
    np.testing.assert_allclose(layer(x).detach().numpy(), y, atol=1e-12)
    np.testing.assert_allclose(layer.attention_maps(x).detach().numpy(), maps, atol=1e-12)


def test_identity_without_norm_is_timms_attention():
    for more in ({}, {"attn_head_dim": 5}, {"qk_norm": True, "norm_layer": nn.LayerNorm}):
        plain = timm.layers.Attention(DIM, HEADS, qkv_bias=True, **more)
        x = sequence(2, 9, DIM)
        expected = plain(x)
        layer = ReAttention.replacing(plain, norm="none", theta_init="identity")
        assert layer.qkv is plain.qkv
        assert deviation(layer(x), expected) < 1e-6


def test_theta_is_drawn_as_a_convolution_and_adds_180_parameters_at_12_heads():
    torch.manual_seed(0)
    layer, plain = ReAttention(384, 12), ReAttention(384, 12, apply_transform=False)
    count = [sum(p.numel() for p in m.parameters()) for m in (layer, plain)]
    assert count[0] - count[1] == 180  # H^2 + 3 H
    largest = layer.reatten_matrix.weight.abs().max()
    assert 0.25 < largest < 12**-0.5


def test_the_mean_needs_no_look_and_rows_of_a_contrast_sum_to_zero():
    layer = make().double()
    nn.init.zeros_(layer.var_norm.bias)
    x = sequence(2, 7, DIM, dtype=torch.float64)
    assert layer.attention_maps(x).sum(3).abs().max() < 1e-11
    # The bias b has no effect in training.
    y = layer(x)
    nn.init.normal_(layer.reatten_matrix.bias)
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-12)


def test_attention_dropout_changes_the_mean_and_the_statistics_see_it():
    layer = make(attn_drop=0.5).double()
    layer.var_norm.momentum = 1.0
    x = sequence(2, 7, DIM, dtype=torch.float64)
    dropped = []
    layer.attn_drop.register_forward_hook(lambda _, args, maps: dropped.append(maps.detach()))
    layer(x)
    theta, b = layer.reatten_matrix.weight[:, :, 0, 0].detach(), layer.reatten_matrix.bias.detach()
    mixed = torch.einsum("gh,bhij->gbij", theta, dropped[0]).flatten(1) + b[:, None]
    torch.testing.assert_close(layer.var_norm.running_mean, mixed.mean(1))
    torch.testing.assert_close(layer.var_norm.running_var, mixed.var(1))


def test_maps_are_read_without_dropout_and_draw_no_random_numbers():
    layer = make(attn_drop=0.5)
    x, state = sequence(2, 7, DIM), torch.get_rng_state()
    expected = formula(layer, x, "train")[1]
    np.testing.assert_allclose(layer.attention_maps(x).detach().numpy(), expected, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_number_of_tokens_moves_the_mean_by_the_closed_form():
    layer = ReAttention(DIM, HEADS).double()
    x = sequence(64, 9, DIM, dtype=torch.float64)
    update_bn([x], layer)  # one cumulative step: the statistics of these pictures
    assert layer.tokens == 9
    layer.eval()
    longer = sequence(64, 36, DIM, dtype=torch.float64)
    theta, b = layer.reatten_matrix.weight[:, :, 0, 0], layer.reatten_matrix.bias
    maps = layer.attention_maps(longer)
    # Centred: in every row the normalised maps sum to beta * N = 0, at 36 tokens too.
    assert maps.sum(3).abs().max() < 1e-9
    moved = copy.deepcopy(layer)
    moved.var_norm.running_mean.copy_(theta.detach().sum(1) / 36 + b.detach())
    moved.tokens.fill_(36)
    torch.testing.assert_close(layer(longer), moved(longer), rtol=0, atol=1e-11)
    # What the authors' code does there: as if the mean belonged to 36 tokens.
    official = copy.deepcopy(layer)
    official.tokens.fill_(36)
    assert deviation(official(longer), layer(longer)) > 1


def test_training_at_changing_numbers_of_tokens_keeps_one_running_mean():
    layer = ReAttention(DIM, HEADS).double()
    theta, b = layer.reatten_matrix.weight[:, :, 0, 0].detach(), layer.reatten_matrix.bias.detach()
    layer.var_norm.momentum = None
    for tokens in (4, 16, 9):
        layer(sequence(2, tokens, DIM, dtype=torch.float64))
    # theta stood still, so however many tokens there were, the mean is the closed form of the last.
    torch.testing.assert_close(layer.var_norm.running_mean, theta.sum(1) / 9 + b)
    assert layer.tokens == 9


def test_frozen_statistics_normalise_in_training_and_stay():
    layer = make()
    layer.var_norm.eval()
    before = copy.deepcopy(layer.state_dict())
    x = sequence(2, 7, DIM)
    torch.testing.assert_close(layer(x), copy.deepcopy(layer).eval()(x))
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


class LargestTensor(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_saving_memory_keeps_no_map_and_in_evaluation_makes_none_whole():
    n = 600
    x = sequence(1, n, DIM).requires_grad_()
    results = {}
    for save_memory in (False, True):
        layer = make(save_memory=save_memory)
        kept = []

        def keep(t, kept=kept):
            kept.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            y = layer(x)
        y.square().sum().backward()
        results[save_memory] = (y.detach(), x.grad, layer.qkv.weight.grad, layer.state_dict())
        x.grad = None
        assert (max(kept) >= HEADS * n * n) is not save_memory
        with torch.no_grad(), LargestTensor() as largest:
            layer.eval()(x)
        assert (largest.numel >= HEADS * n * n) is not save_memory
    for a, b in zip(results[False][:3], results[True][:3], strict=True):
        assert deviation(a, b) < 1e-5
    for key, value in results[False][3].items():  # and the statistics took one step, not two
        torch.testing.assert_close(value, results[True][3][key])


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("save_memory", [False, True])
def test_gradients_of_first_and_second_order(norm, training, save_memory):
    layer = make(dim=6, num_heads=2, tokens=3, norm=norm, save_memory=save_memory).double()
    layer.train(training)
    x = sequence(2, 3, 6, dtype=torch.float64).requires_grad_()
    keys, parameters = zip(*layer.named_parameters(), strict=True)

    def run(x, *values):
        own = {key: buffer.clone() for key, buffer in layer.named_buffers()}
        given = dict(zip(keys, values, strict=True))
        return torch.func.functional_call(layer, {**given, **own}, (x,))

    inputs = (x, *[p.detach().requires_grad_() for p in parameters])
    assert torch.autograd.gradcheck(run, inputs)
    if norm == "batch" and not save_memory:
        assert torch.autograd.gradgradcheck(run, inputs, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("save_memory", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 9])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_any_number_of_tokens_and_pictures(batch, tokens, save_memory):
    layer = make(save_memory=save_memory)
    before = copy.deepcopy(layer.state_dict())
    x = sequence(batch, tokens, DIM).requires_grad_()
    assert layer.eval()(x).shape == x.shape
    layer.train()
    if (batch, tokens) == (1, 1):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            layer(x)
        return
    y = layer(x)
    y.square().sum().backward()
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    if batch == 0:  # nothing was seen, so nothing was learned
        assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_no_parameter_is_left_out_of_the_graph():
    layer = make()
    layer(sequence(2, 7, DIM)).sum().backward()
    assert [key for key, p in layer.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_low_precision_and_autocast_stay_near_float64(dtype, training, norm):
    # Variances of 1e-6 and entries near 1 / N, as they are at the start of training, and values
    # with a mean, which normalised maps have to cancel.
    torch.manual_seed(0)
    layer = ReAttention(96, HEADS, qkv_bias=True, norm=norm)
    nn.init.constant_(layer.qkv.bias, 0.5)
    x = sequence(2, 197, 96)
    if norm == "batch":
        update_bn([x], layer)
        assert layer.var_norm.running_var.max() < 1e-5
    layer.train(training)
    truth = copy.deepcopy(layer).double()(x.double())
    bound = {torch.float16: 0.01, torch.bfloat16: 0.08}[dtype]
    y = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert deviation(y, truth) < bound
    with torch.autocast("cpu", dtype):
        y = layer(x)
    assert deviation(y, truth) < bound
    y.float().mean().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_what_mixes_stays_in_float32_whatever_the_layer_is_converted_to():
    for layer in (
        ReAttention(DIM, HEADS).half(),
        ReAttention(DIM, HEADS, dtype=torch.bfloat16),
        nn.Sequential(ReAttention(DIM, HEADS)).to(torch.bfloat16)[0],
        ReAttention.replacing(timm.layers.Attention(DIM, HEADS).half()),
    ):
        kinds = {key: tensor.dtype for key, tensor in layer.state_dict().items()}
        assert kinds["qkv.weight"] in (torch.float16, torch.bfloat16)
        for key in ("reatten_matrix.weight", "var_norm.weight", "var_norm.running_var"):
            assert kinds[key] == torch.float32
    assert ReAttention(DIM, HEADS).double().var_norm.running_mean.dtype == torch.float64


def test_statistics_are_float32_under_autocast():
    layers = [make(), make()]
    x = sequence(2, 50, DIM)
    layers[0](x)
    with torch.autocast("cpu", torch.bfloat16):
        layers[1](x)
    for key in ("running_mean", "running_var"):
        exact, other = (getattr(layer.var_norm, key) for layer in layers)
        assert other.dtype == torch.float32
        assert deviation(other, exact) < 2e-3  # Q and K are bfloat16


def test_is_deterministic_under_deterministic_algorithms():
    layer, x = make(), sequence(2, 9, DIM)

    def gradients():
        fresh, leaf = copy.deepcopy(layer), x.clone().requires_grad_()
        fresh(leaf).square().sum().backward()
        return [leaf.grad, *[p.grad for p in fresh.parameters()]]

    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradients(), gradients()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_meta_device_and_type(norm):
    layer = ReAttention(DIM, HEADS, norm=norm, device="meta")
    assert all(t.is_meta for t in (*layer.parameters(), *layer.buffers()))
    x = torch.empty(2, 5, DIM, device="meta")
    assert layer(x).shape == layer.eval()(x).shape == x.shape
    double = ReAttention(DIM, HEADS, norm=norm, dtype=torch.float64)
    assert all(p.dtype == torch.float64 for p in double.parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_the_same_and_share_nothing(duplicate):
    layer, x = make().eval(), sequence(2, 5, DIM)
    expected = layer(x)
    other = duplicate(layer)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize("save_memory", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_exports_with_dynamic_sizes(norm, save_memory):
    layer = make(norm=norm, save_memory=save_memory).eval()
    dynamic = {"x": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    x = sequence(2, 10, DIM)
    with torch.no_grad():
        program = torch.export.export(layer, (x,), dynamic_shapes=dynamic).module()
        for shape in [(2, 10), (3, 7), (5, 333)]:
            x = sequence(*shape, DIM)
            torch.testing.assert_close(program(x), layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("save_memory", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_compiles_at_changing_sizes(norm, save_memory):
    torch.compiler.reset()
    layer = make(norm=norm, save_memory=save_memory)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True)
    for batch, tokens in [(4, 9), (3, 12)]:
        x, leaf = (sequence(batch, tokens, DIM).requires_grad_() for _ in range(2))
        y, truth = compiled(x), layer(leaf)
        assert deviation(y, truth) < 1e-5
        y.square().sum().backward()
        truth.square().sum().backward()
        assert deviation(x.grad, leaf.grad) < 1e-4
    with torch.no_grad():
        for batch, tokens in [(4, 9), (3, 12), (1, 30)]:
            x = sequence(batch, tokens, DIM)
            assert deviation(compiled.eval()(x), layer.eval()(x)) < 1e-5


@pytest.mark.parametrize("strict", [False, True])
def test_a_state_dict_without_the_number_of_tokens_is_refused_in_one_sentence(strict):
    state = make().state_dict()
    del state["tokens"]
    with pytest.raises(RuntimeError, match="tokens is missing, the number of tokens") as error:
        nn.Sequential(ReAttention(DIM, HEADS)).load_state_dict(
            {f"0.{key}": value for key, value in state.items()}, strict=strict
        )
    assert "Missing key" not in str(error.value)


def test_resetting_forgets_statistics_and_their_number_of_tokens():
    layer = make()
    layer.reset_parameters()
    assert layer.tokens == 0
    assert not layer.var_norm.running_mean.any()


def _statistics_of_one_process(rank, file, whole, results):
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(make())
    x = whole[3 * rank : 3 * rank + 3].clone().requires_grad_()
    layer(x).square().sum().backward()
    state = {key: value for key, value in layer.state_dict().items() if "running" in key}
    torch.save((x.grad, layer.reatten_matrix.weight.grad, state), f"{results}{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_synchronised_statistics_of_two_processes_are_those_of_all_pictures(tmp_path):
    whole = sequence(6, 7, DIM)
    arguments = (str(tmp_path / "rendezvous"), whole, str(tmp_path / "result"))
    torch.multiprocessing.spawn(_statistics_of_one_process, arguments, nprocs=2)
    parts = [torch.load(tmp_path / f"result{rank}") for rank in range(2)]
    layer, x = make(), whole.clone().requires_grad_()
    layer(x).square().sum().backward()
    assert deviation(torch.cat([part[0] for part in parts]), x.grad) < 1e-5
    assert deviation(parts[0][1] + parts[1][1], layer.reatten_matrix.weight.grad) < 1e-5
    for part in parts:
        for key, value in part[2].items():
            torch.testing.assert_close(value, layer.state_dict()[key])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 100, "num_heads": 12}, "multiple of num_heads=12, as 96 and 108 are, not 100"),
        ({"dim": 3, "num_heads": 4}, "multiple of num_heads=4, as 4 is, not 3"),
        ({"dim": 8, "num_heads": 0}, "must be at least 1, not 8 and 0"),
        ({"dim": 8, "num_heads": 2, "norm": "bach"}, "norm must be 'batch', 'layer' or 'none'"),
        ({"dim": 8, "num_heads": 2, "theta_init": "eye"}, "must be 'conv' or 'identity'"),
    ],
)
def test_refuses_impossible_values_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReAttention(**arguments)


def test_refuses_what_is_no_sequence_of_tokens():
    with pytest.raises(ValueError, match=r"needs tokens \[B, N, C\], not \[2, 24, 3, 3\]"):
        make()(sequence(2, DIM, 3, 3))


def test_refuses_masks():
    layer = make()
    with pytest.raises(ValueError, match="takes no mask"):
        layer(sequence(2, 7, DIM), attn_mask=torch.zeros(7, 7))
    with pytest.raises(ValueError, match="takes no mask"):
        layer(sequence(2, 7, DIM), is_causal=True)
