import numpy as np
import pytest
import torch

from foveal.adaptation.functional import (
    class_means,
    ema_update,
    prototype_spread,
    prototypical_representation,
)

K, D = 4, 3


def batch(n=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, D, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(-1, K - 1, (n,), generator=generator)  # the last class is absent
    probs = torch.rand(n, K, generator=generator, dtype=torch.float64)
    return features, labels, (probs / probs.sum(1, keepdim=True)).to(dtype)


def dense(values, height=2):
    """Return items [n, ...] as maps of one picture [1, ..., height, n / height]."""
    maps = values.movedim(0, -1)
    return maps.reshape(1, *maps.shape[:-1], height, -1)


def test_means_of_labels_are_those_of_each_class():
    f, y, _ = batch()
    means, weight = class_means(f, y, K)
    for k in range(K):
        own = f.numpy()[y.numpy() == k]
        assert weight[k] == len(own)
        truth = own.mean(0) if len(own) else np.zeros(D)
        np.testing.assert_allclose(means[k].numpy(), truth, rtol=1e-12)
    assert not means[-1].any()


def test_means_of_weights_are_weighted():
    f, _, p = batch()
    means, weight = class_means(f, p, K)
    for k in range(K):
        truth = np.average(f.numpy(), axis=0, weights=p.numpy()[:, k])
        np.testing.assert_allclose(means[k].numpy(), truth, rtol=1e-12)
    np.testing.assert_allclose(weight.numpy(), p.numpy().sum(0))


def test_maps_are_items_one_by_one():
    f, y, p = batch(12)
    for weights in (y, p):
        flat, maps = class_means(f, weights, K), class_means(dense(f), dense(weights), K)
        for one, other in zip(flat, maps, strict=True):
            torch.testing.assert_close(one, other)
    flat = prototypical_representation(p, f[:K], is_logits=False)
    torch.testing.assert_close(
        prototypical_representation(dense(p), f[:K], is_logits=False), dense(flat)
    )


def test_what_is_ignored_counts_for_nothing_whatever_it_is():
    f, y, _ = batch()
    y[0], f[0] = 255, torch.nan
    means, weight = class_means(f, y.where(y >= 0, 255), K, ignore_index=255)
    truth, count = class_means(f[1:], y[1:], K)
    torch.testing.assert_close(means, truth)
    assert weight.equal(count)


def test_an_empty_batch_has_no_means():
    for weights in (torch.zeros(0, dtype=torch.int64), torch.zeros(0, K)):
        means, weight = class_means(torch.zeros(0, D), weights, K)
        assert not means.any()
        assert not weight.any()
    assert prototypical_representation(
        torch.zeros(0, K), torch.zeros(K, D), is_logits=True
    ).shape == (0, D)


@pytest.mark.parametrize("policy", ["first_seen", "always"])
def test_the_moving_average_is_the_recurrence(policy):
    f, y, _ = batch()
    prototypes, seen = torch.full((K, D), 2.0, dtype=torch.float64), None
    truth, known = np.full((K, D), 2.0), np.zeros(K, bool)
    for step in range(4):
        f, y, _ = batch(3, seed=step)
        prototypes, seen = ema_update(prototypes, *class_means(f, y, K), 0.7, seen, policy)
        for k in set(y.tolist()) - {-1}:
            mean = f.numpy()[y.numpy() == k].mean(0)
            whole = policy == "first_seen" and not known[k]
            truth[k] = mean if whole else 0.7 * truth[k] + 0.3 * mean
            known[k] = True
        np.testing.assert_allclose(prototypes.numpy(), truth, rtol=1e-12)
        assert seen.tolist() == known.tolist()
    assert not seen.all()


def test_prototypes_keep_their_type_and_take_no_gradient():
    f = torch.rand(2, D, requires_grad=True)
    prototypes, _ = ema_update(
        torch.zeros(K, D, dtype=torch.float16), *class_means(f, torch.tensor([0, 1]), K), 0.5
    )
    assert prototypes.dtype == torch.float16
    assert not prototypes.requires_grad


@pytest.mark.parametrize("is_logits", [True, False])
def test_unseen_classes_lose_their_probability_to_the_others(is_logits):
    f, _, p = batch()
    mask = torch.tensor([True, False, True, False])
    left = p.numpy() * mask.numpy()
    truth = left / left.sum(1, keepdims=True) @ f[:K].numpy()
    given = p.log() if is_logits else p
    found = prototypical_representation(given, f[:K], is_logits=is_logits, mask=mask)
    np.testing.assert_allclose(found.numpy(), truth, rtol=1e-12)


@pytest.mark.parametrize("is_logits", [True, False])
def test_where_nothing_is_seen_the_representation_is_0_and_so_is_its_gradient(is_logits):
    given = torch.eye(K, requires_grad=True)
    nothing = torch.zeros(K, dtype=torch.bool)
    found = prototypical_representation(given, torch.ones(K, D), is_logits=is_logits, mask=nothing)
    assert not found.any()
    found.sum().backward()
    assert not given.grad.any()
    # all the probability on a class that is not there
    sure = torch.tensor([[1.0, 0, 0, 0]])
    only = torch.tensor([False, True, True, True])
    assert not prototypical_representation(sure, torch.ones(K, D), is_logits=False, mask=only).any()


def test_gradients_are_right():
    f, _, p = batch()
    mask = torch.tensor([True, True, False, True])
    for is_logits in (True, False):

        def represent(x, m, is_logits=is_logits):
            return prototypical_representation(x, m, is_logits=is_logits, mask=mask)

        assert torch.autograd.gradcheck(
            represent, (p.clone().requires_grad_(), f[:K].clone().requires_grad_())
        )
    weights = p.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, w: class_means(f, w, K)[0], (f.clone().requires_grad_(), weights)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_summed_in_float32(dtype):
    """3000 items of 3: half precision would stop at 2048 or 6144 of them."""
    f, y = torch.full((3000, 1), 3.0, dtype=dtype), torch.zeros(3000, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        means, weight = class_means(f, y, 1)
        r = prototypical_representation(
            torch.zeros(2, 1, dtype=dtype), torch.tensor([[1 / 3]]), is_logits=True
        )
    assert means.dtype == weight.dtype == r.dtype == torch.float32
    assert means.item() == 3
    assert weight.item() == 3000
    torch.testing.assert_close(r, torch.full((2, 1), 1 / 3), rtol=1e-7, atol=0)


def test_the_spread_is_the_least_distance_over_the_mean_norm():
    rows = torch.tensor([[3.0, 0], [0, 4], [3.0, 1], [50, 50]])
    mask = torch.tensor([True, True, True, False])
    truth = 1 / ((3 + 4 + 10**0.5) / 3)
    assert prototype_spread(rows, mask).item() == pytest.approx(truth)
    same = torch.full((2, 3), 1000.1)
    assert prototype_spread(same) == 0
    assert prototype_spread(same, torch.tensor([True, False])) == torch.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: class_means(torch.zeros(3, D), torch.tensor([0, 4, 1]), K),
            r"labels must lie in \[0, 3\] or be -1 \(ignored\), and one is 4",
        ),
        (
            lambda: class_means(torch.zeros(3, D), torch.zeros(2, dtype=torch.int64), K),
            r"labels of features \[3, 3\] must be \[3\], not \[2\]",
        ),
        (
            lambda: class_means(torch.zeros(2, D, 4, 4), torch.zeros(2, 3, 4, 4), K),
            r"weights of features \[2, 3, 4, 4\] must be \[2, 4, 4, 4\], not \[2, 3, 4, 4\]",
        ),
        (
            lambda: class_means(torch.zeros(2, D, 4), torch.zeros(2, K, 4), K),
            r"features must be \[n, D\] or \[B, D, H, W\], not \[2, 3, 4\]",
        ),
        (
            lambda: ema_update(torch.zeros(K, D), torch.zeros(K, D), torch.zeros(K), 1.5),
            r"momentum must lie in \[0, 1\], not 1.5",
        ),
        (
            lambda: ema_update(
                torch.zeros(K, D), torch.zeros(K, D), torch.zeros(K), 0.5, policy="first"
            ),
            "unknown policy 'first': did you mean 'first_seen'?",
        ),
        (
            lambda: prototypical_representation(
                torch.zeros(2, 5), torch.zeros(K, D), is_logits=True
            ),
            r"predictions of 5 classes need prototypes \[5, D\], not \[4, 3\]",
        ),
        (
            lambda: prototypical_representation(
                torch.zeros(2, K), torch.zeros(K, D), is_logits=True, mask=torch.ones(3) > 0
            ),
            r"mask must be \[4\], not \[3\]",
        ),
    ],
)
def test_wrong_input_is_said_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
