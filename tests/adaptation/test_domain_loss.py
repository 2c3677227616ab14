import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from foveal.adaptation import ConditionalDomainLoss
from foveal.adaptation import functional as F

N_S, N_T, C, D, Q = 5, 3, 4, 6, 7  # domains of different size
WIDTHS = {
    "none": D,
    "concat": D + C,
    "noun": D + C,
    "pronoun": 2 * D,
    "multilinear": D * C,
    "randomized": Q,
}
EVERY = [(name, entropy) for name in WIDTHS for entropy in (False, True)]


def given(dtype=torch.float64, spatial=()):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, *spatial, generator=generator, dtype=torch.float64).to(dtype)

    parts = [drawn(N_S, D), drawn(N_S, C), drawn(N_T, D), drawn(N_T, C)]
    prototypes = torch.randn(C, D, generator=generator, dtype=torch.float64).to(dtype)
    return parts, prototypes


def made(conditioning, entropy=False, dtype=torch.float64, **kw):
    torch.manual_seed(1)
    loss = ConditionalDomainLoss(
        D, C, conditioning, entropy=entropy, hidden=8, random_dim=Q, **{"factor": 2.0, **kw}
    )
    return loss.to(dtype)


def in_numpy(loss, parts, prototypes):
    """Return loss, scale and discriminator's logits by the formulas."""
    f_s, z_s, f_t, z_t = [x.detach().numpy() for x in parts]
    f, z = np.concatenate([f_s, f_t]), np.concatenate([z_s, z_t])
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    kind, scale = loss.conditioning, 1.0
    if kind in ("noun", "pronoun"):
        q = p if kind == "noun" else p @ prototypes.numpy()
        scale = 2 * np.linalg.norm(f) / np.linalg.norm(q)
        x = np.hstack([f, scale * q])
    elif kind == "multilinear":
        x = (p[:, :, None] * f[:, None]).reshape(len(f), -1)
    elif kind == "randomized":
        x = (f @ loss.r_f.numpy()) * (p @ loss.r_g.numpy()) / np.sqrt(Q)
    else:
        x = np.hstack([f, p]) if kind == "concat" else f
    w0, b0, w2, b2 = [v.detach().numpy() for v in loss.discriminator.parameters()]
    logits = (np.maximum(x @ w0.T + b0, 0) @ w2.T + b2)[:, 0]
    source = np.arange(len(f)) < len(f_s)
    losses = np.logaddexp(0, logits) - source * logits
    weight = np.full(len(f), 1 / len(f))
    if loss.entropy:
        e = 1 + np.exp((p * np.log(p + 1e-5)).sum(1))
        weight = e / e.sum()
        if loss.normalize == "domain":
            weight = e / np.where(source, e[source].sum(), e[~source].sum()) / 2
    return (weight * losses).sum(), scale, logits, ((logits > 0) == source).mean()


@pytest.mark.parametrize("normalize", ["domain", "joint"])
@pytest.mark.parametrize(("conditioning", "entropy"), EVERY)
def test_the_loss_is_that_of_the_formulas(conditioning, entropy, normalize):
    parts, prototypes = given()
    loss = made(conditioning, entropy, normalize=normalize)
    assert loss.discriminator[0].in_features == WIDTHS[conditioning]
    found = loss.outcome(*parts, 0.3, prototypes)
    truth, scale, logits, accuracy = in_numpy(loss, parts, prototypes)
    assert found.loss.item() == pytest.approx(truth, rel=1e-12)
    assert found.scale.item() == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(found.logits.detach(), logits, rtol=1e-10)
    assert found.accuracy.item() == pytest.approx(accuracy)
    assert loss(*parts, 0.3, prototypes).equal(found.loss)


@pytest.mark.parametrize(("conditioning", "entropy"), EVERY)
def test_gradients_are_those_of_the_reversed_parts(conditioning, entropy):
    """By central differences of a loss in which all that is a constant is held."""
    parts, prototypes = given()
    loss, coeff = made(conditioning, entropy), 0.3
    leaves = [x.clone().requires_grad_() for x in parts]
    loss(*leaves, coeff, prototypes).backward()
    f0, z0 = torch.cat(parts[::2]), torch.cat(parts[1::2])
    with torch.no_grad():
        condition = loss.outcome(*parts, coeff, prototypes)
        e0 = 1 + (-F.entropy(z0.softmax(1))).exp()
        over = F.entropy_weights(z0.softmax(1), N_S) / e0

    def held(f, z):
        p0, x = z0.softmax(1), condition.inputs.clone()
        if conditioning == "multilinear":
            x = F.multilinear_map(f, p0)
        elif conditioning == "randomized":
            x = F.randomized_multilinear_map(f, p0, loss.r_f, loss.r_g)
        else:
            x[:, :D] = f
        is_source = (torch.arange(N_S + N_T) < N_S).double()
        losses = binary_cross_entropy_with_logits(
            loss.discriminator(x), is_source, reduction="none"
        )
        weight = over * (1 + (-F.entropy(z.softmax(1))).exp()) if entropy else 1 / len(f)
        return (weight * losses).sum()

    for which, (base, found) in enumerate(((f0, leaves[::2]), (z0, leaves[1::2]))):
        truth = torch.zeros_like(base)
        for index in np.ndindex(*base.shape):
            step = torch.zeros_like(base)
            step[index] = 1e-6
            ends = [held(*((f0 + s, z0) if which == 0 else (f0, z0 + s))) for s in (step, -step)]
            truth[index] = -coeff * (ends[0] - ends[1]).item() / 2e-6
        grads = [x.grad if x.grad is not None else torch.zeros_like(x) for x in found]
        torch.testing.assert_close(torch.cat(grads), truth, rtol=1e-6, atol=1e-8)
    if not entropy:
        assert all(x.grad is None for x in leaves[1::2])


def test_the_discriminators_own_gradient_is_not_reversed():
    parts, _ = given()
    grads = []
    for coeff in (0.0, 0.7):
        loss = made("noun")
        loss(*parts, coeff).backward()
        grads.append([p.grad for p in loss.discriminator.parameters()])
    for zero, some in zip(*grads, strict=True):
        torch.testing.assert_close(zero, some)
    weight = loss.discriminator[2].bias
    before = loss(*parts, 0.7)
    with torch.no_grad():
        weight -= 1e-3 * weight.grad
    assert loss(*parts, 0.7) < before


@pytest.mark.parametrize(("conditioning", "entropy"), EVERY)
def test_maps_are_items(conditioning, entropy):
    """A dense loss of maps is the flat one of all their positions."""
    parts, prototypes = given(spatial=(2, 3))
    flat, dense = made(conditioning, entropy), made(conditioning, entropy, dense=True)
    state = zip(flat.state_dict().items(), dense.state_dict().values(), strict=True)
    dense.load_state_dict({k: v.reshape(w.shape) for (k, v), w in state})
    items = [x.movedim(1, -1).flatten(0, 2) for x in parts]
    found = dense.outcome(*parts, 0.3, prototypes)
    truth = flat.outcome(*items, 0.3, prototypes)
    torch.testing.assert_close(found.loss, truth.loss)
    torch.testing.assert_close(found.scale, truth.scale)
    assert found.logits.shape == (N_S + N_T, 2, 3)


def test_unseen_prototypes_are_left_out():
    parts, prototypes = given()
    mask = torch.tensor([True, False, True, True])
    loss = made("pronoun")
    prototypes[1] = torch.nan
    assert loss(*parts, 0.3, prototypes).isnan()
    found = loss(*parts, 0.3, prototypes.where(mask[:, None], 0), mask)
    z = torch.cat(parts[1::2])
    with_mask = [*parts]
    with_mask[1], with_mask[3] = z.masked_fill(~mask, -1e9).split([N_S, N_T])
    prototypes[1] = 0
    torch.testing.assert_close(found, loss(*with_mask, 0.3, prototypes))


@pytest.mark.parametrize(("conditioning", "entropy"), EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(conditioning, entropy, dtype):
    parts, prototypes = given(dtype)
    loss = made(conditioning, entropy, dtype)
    leaves = [x.clone().requires_grad_() for x in parts]
    found = loss(*leaves, 0.3, prototypes)
    assert found.dtype == torch.float32
    found.backward()
    truth, *_ = in_numpy(
        copy.deepcopy(loss).double(), [x.double() for x in parts], prototypes.double()
    )
    assert found.item() == pytest.approx(truth, rel=3e-2)
    assert all(x.grad.isfinite().all() for x in leaves[::2])
    wide, _ = given(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        under = made(conditioning, entropy, torch.float32)(*wide, 0.3, prototypes.float())
    assert under.dtype == torch.float32
    assert under.item() == pytest.approx(truth, rel=3e-2)


def test_the_loss_of_extreme_logits_stays_finite():
    """A sigmoid and a logarithm would give infinity."""
    parts, _ = given(torch.float32)
    loss = made("none", dtype=torch.float32)
    found = loss(*[1e6 * x for x in parts], 0.3)
    assert found.isfinite()
    assert found > 1e3


@pytest.mark.parametrize(("conditioning", "entropy"), EVERY)
@pytest.mark.parametrize("n_source", [0, N_S])
def test_an_empty_domain_or_two(conditioning, entropy, n_source):
    parts, prototypes = given()
    loss = made(conditioning, entropy)
    parts = [x[:n_source] for x in parts[:2]] + [x[:0] for x in parts[2:]]
    found = loss(*[x.requires_grad_() for x in parts], 0.3, prototypes)
    assert found.isfinite()
    assert (found == 0) == (n_source == 0)
    found.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


def test_random_matrices_are_saved_and_the_module_pickled():
    loss = made("randomized")
    assert {"r_f", "r_g"} <= set(loss.state_dict())
    parts, _ = given()
    assert pickle.loads(pickle.dumps(loss))(*parts, 0.3).equal(loss(*parts, 0.3))
    assert loss(*parts, 0.3).equal(loss(*parts, 0.3))
    assert "r_f" not in made("noun").state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(("conditioning", "entropy"), EVERY)
def test_the_loss_compiles_whole(conditioning, entropy):
    parts, prototypes = given(torch.float32)
    loss = made(conditioning, entropy, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for value in (0.1, 0.2):
        coeff = torch.tensor(value)
        torch.testing.assert_close(
            compiled(*parts, coeff, prototypes), loss(*parts, coeff, prototypes)
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: made("nuon"), "unknown conditioning 'nuon': did you mean 'noun'"),
        (lambda p: made("noun", normalize="joints"), "did you mean 'joint'"),
        (lambda p: made("pronoun")(*p, 0.1), r"conditioning 'pronoun' needs prototypes \[C, D\]"),
        (
            lambda p: made("noun")(p[0][:, :2], p[1], p[2][:, :2], p[3], 0.1),
            r"the source's features must be \[n, 6\], not \[5, 2\]",
        ),
        (
            lambda p: made("noun")(p[0], p[1][:2], p[2], p[3], 0.1),
            r"the source's features and the source's logits must have the same items",
        ),
        (
            lambda p: made("noun", dense=True)(*p, 0.1),
            r"the source's features must be \[B, 6, H, W\], not \[5, 6\]",
        ),
    ],
)
def test_wrong_input_to_the_loss(call, message):
    with pytest.raises(ValueError, match=message):
        call(given()[0])
