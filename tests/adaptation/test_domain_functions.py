"""The functions that are neither of prototypes nor of modules, by formulas in float64."""

import math

import numpy as np
import pytest
import torch

from foveal.adaptation import functional as F

N, C, D = 7, 4, 5


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(n=N, seed=1):
    return drawn(n, C, seed=seed).softmax(1)


def dense(values, height=1):
    """Return items [n, c] as maps of one picture [1, c, height, n / height]."""
    return values.T.reshape(1, values.shape[1], height, -1)


def test_the_coefficient_rises_as_written():
    for step, end, alpha, low, high in ((0, 100, 10, 0, 1), (37, 100, 10, 0, 1), (5, 9, 3, 0.1, 2)):
        truth = 2 * (high - low) / (1 + math.exp(-alpha * step / end)) - (high - low) + low
        assert F.grl_coefficient(step, end, alpha, low, high) == pytest.approx(truth, abs=1e-15)
    assert F.grl_coefficient(10**9, 1) == 1
    assert F.grl_coefficient(1, 10_000) == pytest.approx(5e-4, rel=1e-6)
    with pytest.raises(ValueError, match="max_steps must be above 0, not 0"):
        F.grl_coefficient(1, 0)


@pytest.mark.parametrize("coeff", [0.3, torch.tensor(0.3, dtype=torch.float64)])
def test_the_gradient_is_reversed_and_nothing_else_changes(coeff):
    x = drawn(3, 2).requires_grad_()
    y = F.grad_reverse(x, coeff)
    assert y.equal(x)
    (grad,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    torch.testing.assert_close(grad, -0.3 * 3 * x**2)
    (second,) = torch.autograd.grad(grad.sum(), x)
    torch.testing.assert_close(second, 0.3**2 * 6 * x)  # y is reversed as well


def test_entropy_and_its_weights():
    p = probabilities()
    h = -(p.numpy() * np.log(p.numpy() + 1e-5)).sum(1)
    np.testing.assert_allclose(F.entropy(p).numpy(), h, rtol=1e-12)
    e = 1 + np.exp(-h)
    by_domain = np.concatenate([e[:3] / e[:3].sum() / 2, e[3:] / e[3:].sum() / 2])
    np.testing.assert_allclose(F.entropy_weights(p, 3).numpy(), by_domain, rtol=1e-12)
    joint = F.entropy_weights(p, 3, "joint")
    np.testing.assert_allclose(joint.numpy(), e / e.mean(), rtol=1e-12)
    maps = p[:, :, None, None]  # each item a picture of one position
    np.testing.assert_allclose(F.entropy_weights(maps, 3).numpy().ravel(), by_domain)


@pytest.mark.parametrize("normalize", ["domain", "joint"])
def test_the_normalisers_of_the_weights_are_constants(normalize):
    p = probabilities()
    weight = F.entropy_weights(p, 3, normalize)
    ratio = weight / (1 + (-F.entropy(p)).exp())
    factor = drawn(N, seed=3)
    q = p.clone().requires_grad_()
    (factor * F.entropy_weights(q, 3, normalize)).sum().backward()
    e = np.exp(-F.entropy(p).numpy())[:, None]
    slope = np.log(p.numpy() + 1e-5) + p.numpy() / (p.numpy() + 1e-5)
    np.testing.assert_allclose(q.grad, (factor * ratio).numpy()[:, None] * e * slope, rtol=1e-10)


def test_an_empty_domain_has_no_weights():
    p = probabilities()
    assert F.entropy_weights(p, 0).sum().item() == pytest.approx(0.5)
    assert F.entropy_weights(p, N).sum().item() == pytest.approx(0.5)
    assert F.entropy_weights(p[:0], 0, "joint").shape == (0,)


def test_the_histogram_of_classes():
    p = torch.eye(C)[[0, 0, 1, 1, 1, 1, 2, 2]]
    truth = -(0.25 * math.log(0.25) * 2 + 0.5 * math.log(0.5))
    assert F.class_histogram_entropy(p).item() == pytest.approx(truth)
    assert F.class_histogram_entropy(p[:0]) == 0


def test_a_condition_gets_the_norm_of_its_reference_and_no_gradient():
    cond, ref = drawn(N, C).requires_grad_(), drawn(N, D, seed=2).requires_grad_()
    scaled, scale = F.norm_matched(cond, ref, 3.0)
    truth = 3 * np.linalg.norm(ref.detach()) / np.linalg.norm(cond.detach())
    assert scale.item() == pytest.approx(truth, rel=1e-12)
    np.testing.assert_allclose(scaled, truth * cond.detach(), rtol=1e-12)
    assert not scaled.requires_grad
    assert not scale.requires_grad


def test_a_condition_of_next_to_nothing_stays_finite():
    ref = torch.ones(3, 2)
    for cond in (torch.zeros(3, 2), torch.full((3, 2), 1e-20), torch.full((3, 2), 1e-6)):
        scaled, scale = F.norm_matched(cond, ref)
        assert scale == 1e4
        assert scaled.isfinite().all()
    scaled, scale = F.norm_matched(torch.zeros(0, 2), torch.zeros(0, 3))
    assert scaled.shape == (0, 2)
    assert scale == 0


def test_norms_of_half_precision_do_not_overflow():
    ref = torch.full((100, 100), 300.0, dtype=torch.float16)  # 9e8 is beyond float16
    _, scale = F.norm_matched(torch.ones(100, 100, dtype=torch.float16), ref)
    assert scale.item() == pytest.approx(300)
    assert scale.dtype == torch.float32


def test_multilinear_maps():
    f, p = drawn(N, D), probabilities()
    truth = np.stack([np.outer(c, d).ravel() for c, d in zip(p.numpy(), f.numpy(), strict=True)])
    np.testing.assert_allclose(F.multilinear_map(f, p).numpy(), truth, rtol=1e-12)
    np.testing.assert_allclose(F.multilinear_map(dense(f), dense(p))[0, :, 0].T, truth)
    r_f, r_g = drawn(D, 6, seed=4), drawn(C, 6, seed=5)
    sums = (f.numpy() @ r_f.numpy()) * (p.numpy() @ r_g.numpy()) / np.sqrt(6)
    found = F.randomized_multilinear_map(f, p, r_f, r_g)
    np.testing.assert_allclose(found.numpy(), sums, rtol=1e-12)
    maps = F.randomized_multilinear_map(dense(f), dense(p), r_f, r_g)
    np.testing.assert_allclose(maps[0, :, 0].T, sums)


def test_randomised_products_are_right_on_average():
    """The scalar product of two randomised maps is that of the full ones, on average."""
    f, p = drawn(2, D), probabilities(2)
    full = F.multilinear_map(f, p)
    r_f, r_g = drawn(D, 400_000, seed=6), drawn(C, 400_000, seed=7)
    few = F.randomized_multilinear_map(f, p, r_f, r_g)
    assert (few[0] @ few[1]).item() == pytest.approx((full[0] @ full[1]).item(), abs=0.02)


@pytest.mark.parametrize("mode", ["norm", "sq", "mse", "cos"])
def test_intra_class_variance(mode):
    f, r, s = drawn(N, D), drawn(N, D, seed=2), drawn(3, D, seed=3)
    a, b = f.numpy(), r.numpy()
    squares = ((a - b) ** 2).sum(1)
    of_items = {
        "sq": squares,
        "norm": squares / (s.numpy() ** 2).sum(1).mean(),
        "mse": squares / D,
        "cos": 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1),
    }[mode]
    reference = s if mode == "norm" else None
    found = F.intra_class_variance(f, r, mode, reference)
    assert found.item() == pytest.approx(of_items.mean(), rel=1e-12)
    maps = F.intra_class_variance(dense(f), dense(r), mode, reference)
    assert maps.item() == pytest.approx(of_items.mean(), rel=1e-12)
    w = torch.tensor([0, 1, 2, 0, 0, 1, 0.5], dtype=torch.float64)
    weighed = F.intra_class_variance(f, r, mode, reference, w)
    assert weighed.item() == pytest.approx(np.average(of_items, weights=w.numpy()), rel=1e-12)
    assert F.intra_class_variance(f, r, mode, reference, 0 * w) == 0
    assert F.intra_class_variance(f[:0], r[:0], mode, reference) == 0
    leaves = f.clone().requires_grad_(), r.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, r: F.intra_class_variance(f, r, mode, reference), leaves
    )


def test_the_scale_of_features_does_not_matter_to_the_normed_variance():
    f, r = drawn(N, D), drawn(N, D, seed=2)
    one, other = F.intra_class_variance(f, r), F.intra_class_variance(100 * f, 100 * r)
    torch.testing.assert_close(one, other)
    assert F.intra_class_variance(torch.zeros(2, D), torch.zeros(2, D)) == 0


def test_minimum_class_confusion():
    z, t = drawn(N, C), 2.0
    p = np.exp(z.numpy() / t)
    p /= p.sum(1, keepdims=True)
    w = 1 + np.exp((p * np.log(p + 1e-5)).sum(1))
    w *= N / w.sum()
    a = p.T @ np.diag(w) @ p
    a = np.stack([a[:, j] / a[j].sum() for j in range(C)], 1)
    truth = (a.sum() - np.trace(a)) / C
    assert F.mcc_loss(z, t).item() == pytest.approx(truth, rel=1e-12)
    assert F.mcc_loss(dense(z), t).item() == pytest.approx(truth, rel=1e-12)
    assert F.mcc_loss(100 * torch.eye(C), 1).item() == pytest.approx(0, abs=1e-6)
    assert F.mcc_loss(torch.zeros(3, C)).item() == pytest.approx((C - 1) / C)
    assert F.mcc_loss(z[:0]) == 0
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        F.mcc_loss(z, 0)


@pytest.mark.parametrize("n", [2, N])
def test_batch_nuclear_norm(n):
    p = probabilities(n)
    values = np.linalg.svd(p.numpy(), compute_uv=False)
    assert len(values) == min(n, C)
    assert F.bnm_loss(p).item() == pytest.approx(-values.mean(), rel=1e-12)
    columns = np.sort(np.sqrt((p.numpy() ** 2).sum(0)))[::-1][: min(n, C)]
    assert F.bnm_loss(p, fast=True).item() == pytest.approx(-columns.mean(), rel=1e-12)
    assert F.bnm_loss(dense(p)).item() == pytest.approx(-values.mean(), rel=1e-12)
    for fast in (False, True):
        assert F.bnm_loss(p[:0], fast) == 0
        leaf = p.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda p, fast=fast: F.bnm_loss(p, fast), leaf)
    same = torch.full((3, C), 1 / C, requires_grad=True)  # equal columns, repeated values
    F.bnm_loss(same).backward()
    assert same.grad.isfinite().all()


def test_the_discrepancy_of_two_classifiers():
    p, q = probabilities(), probabilities(seed=2)
    truth = np.abs(p.numpy() - q.numpy()).mean()
    assert F.mcd_discrepancy(p, q).item() == pytest.approx(truth, rel=1e-12)
    assert F.mcd_discrepancy(p[:0], q[:0]) == 0


def everything(f, z, r_f, r_g):
    p = z.softmax(1)
    return (
        F.norm_matched(p, f)[1],
        F.multilinear_map(f, p).sum(),
        F.randomized_multilinear_map(f, p, r_f, r_g).sum(),
        F.entropy_weights(p, 3).square().sum(),
        F.entropy_weights(p, 3, "joint").square().sum(),
        F.intra_class_variance(f, f.flip(0)),
        F.intra_class_variance(f, f.flip(0), "cos"),
        F.mcc_loss(z),
        F.bnm_loss(p),
        F.bnm_loss(p, fast=True),
        F.mcd_discrepancy(p, p.flip(0)),
        F.prototypical_representation(z, r_f[:C], is_logits=True).sum(),
        F.class_means(f, p, C)[0].sum(),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """Under autocast too: only the inputs are rounded."""
    given = [x.to(dtype) for x in (drawn(N, D), drawn(N, C), drawn(D, 6), drawn(C, 6))]
    with torch.autocast("cpu", torch.bfloat16):
        found = everything(*given)
    truth = everything(*[x.double() for x in given])
    for one, other in zip(found, truth, strict=True):
        assert one.dtype == torch.float32
        # probabilities of half-precision logits are rounded before they come here
        torch.testing.assert_close(one.double(), other, rtol=2e-2, atol=2e-2)


def test_float32_agrees_with_float64():
    given = [x.float() for x in (drawn(N, D), drawn(N, C), drawn(D, 6), drawn(C, 6))]
    for one, other in zip(
        everything(*given), everything(*[x.double() for x in given]), strict=True
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_all_compile_whole():
    given = [x.float() for x in (drawn(N, D), drawn(N, C), drawn(D, 6), drawn(C, 6))]
    found = torch.compile(everything, fullgraph=True)(*given)
    for one, other in zip(found, everything(*given), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, p: F.entropy_weights(p, 9), r"n_source must lie in \[0, 7\], not 9"),
        (lambda f, p: F.entropy_weights(p, 3, "domains"), "did you mean 'domain'"),
        (lambda f, p: F.multilinear_map(f[:2], p), r"same items, and are \[2, 5\] and \[7, 4\]"),
        (lambda f, p: F.intra_class_variance(f, f, "nrom"), "did you mean 'norm'"),
        (lambda f, p: F.intra_class_variance(f, p), r"one shape, not \[7, 5\] and \[7, 4\]"),
        (
            lambda f, p: F.intra_class_variance(f, f, weight=p),
            r"weight must be \[7\], not \[7, 4\]",
        ),
        (lambda f, p: F.mcd_discrepancy(p, p[:2]), r"one shape, not \[7, 4\] and \[2, 4\]"),
        (lambda f, p: F.bnm_loss(p[0]), r"probabilities must be \[n, D\]"),
    ],
)
def test_wrong_input_is_said_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(drawn(N, D), probabilities())
