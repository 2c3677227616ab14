import warnings

import numpy as np
import pytest
import torch
from torch import nn

from foveal.adaptation import ConditionalDomainLoss, PandaLoss, check_batch_sizes

N_S, N_T, C, D = 6, 4, 3, 5
LOSSES = ("feature", "prototype", "variance", "total")
LOGGED = (
    "scale",
    "disc_acc",
    "prototype_disc_acc",
    "prototype_spread",
    "target_class_entropy",
    "skipped",
)


def given(dtype=torch.float64, spatial=(), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, *spatial, generator=generator, dtype=torch.float64).to(dtype)

    labels = torch.randint(0, C, (N_S, *spatial), generator=generator)
    return drawn(N_S, D), drawn(N_S, C), labels, drawn(N_T, D), drawn(N_T, C)


def made(dtype=torch.float64, **kw):
    torch.manual_seed(1)
    return PandaLoss(D, C, **{"hidden": 8, **kw}).to(dtype)


def test_the_objectives_are_those_of_the_formulas():
    """``feature`` is PRONOUN's loss; the others are written out."""
    f_s, z_s, y, f_t, z_t = given()
    loss = made(factor=2.0, prototype_weight=0.7, variance_weight=0.3)
    found = loss(f_s, z_s, y, f_t, z_t, 0.4)
    assert set(found) == {*LOSSES, *LOGGED}
    m = np.stack([f_s.numpy()[y.numpy() == k].mean(0) for k in range(C)])
    pronoun = ConditionalDomainLoss(D, C, "pronoun", factor=2.0, hidden=8).double()
    pronoun.load_state_dict(loss.feature_loss.state_dict())
    feature = pronoun(f_s, z_s, f_t, z_t, 0.4, torch.from_numpy(m))
    torch.testing.assert_close(found["feature"], feature)

    f = np.concatenate([f_s.numpy(), f_t.numpy()])
    r = torch.cat([z_s, z_t]).softmax(1).numpy() @ m
    x = np.hstack([r, 2 * np.linalg.norm(r) / np.linalg.norm(f) * f])
    w0, b0, w2, b2 = [v.detach().numpy() for v in loss.prototype_discriminator.parameters()]
    logits = (np.maximum(x @ w0.T + b0, 0) @ w2.T + b2)[:, 0]
    prototype = (np.logaddexp(0, logits) - (np.arange(N_S + N_T) < N_S) * logits).mean()
    assert found["prototype"].item() == pytest.approx(prototype, rel=1e-12)

    spread = ((f[N_S:] - r[N_S:]) ** 2).sum(1).mean() / (f[:N_S] ** 2).sum(1).mean()
    assert found["variance"].item() == pytest.approx(spread, rel=1e-12)
    total = feature.item() + 0.7 * prototype + 0.4 * 0.3 * spread
    assert found["total"].item() == pytest.approx(total, rel=1e-12)
    scale = 2 * np.linalg.norm(f) / np.linalg.norm(r)
    assert found["scale"].item() == pytest.approx(scale, rel=1e-12)
    assert not any(found[name].requires_grad for name in LOGGED)
    assert found["skipped"] == 0


def test_gradients_of_each_objective_reach_what_they_should():
    reached = {"feature": (1, 0, 1, 0), "prototype": (0, 1, 0, 1), "variance": (0, 0, 1, 1)}
    for name, expected in reached.items():
        f_s, z_s, y, f_t, z_t = given()
        leaves = [x.requires_grad_() for x in (f_s, z_s, f_t, z_t)]
        loss = made()
        loss(f_s, z_s, y, f_t, z_t, 0.4)[name].backward()
        assert tuple(int(x.grad is not None and bool(x.grad.any())) for x in leaves) == expected
        assert not loss.bank.prototypes.requires_grad


def test_prototypes_follow_in_training_alone():
    loss = made()
    f_s, z_s, y, f_t, z_t = given()
    loss(f_s, z_s, y, f_t, z_t, 0.4)
    before = loss.bank.prototypes.clone()
    loss.eval()(2 * f_s, z_s, y, f_t, z_t, 0.4)
    assert loss.bank.prototypes.equal(before)
    assert loss.bank.num_updates == 1


@pytest.mark.parametrize("source", ["source", "target", "both", "both_confident"])
@pytest.mark.parametrize("spatial", [(), (2, 3)])
def test_prototypes_are_means_of_what_was_asked_for(source, spatial):
    f_s, z_s, y, f_t, z_t = given(spatial=spatial)
    y.view(-1)[0] = 255
    loss = made(prototypes_from=source, confidence=0.5, ignore_index=255, dense=bool(spatial))
    loss(f_s, z_s, y, f_t, z_t, 0.4)
    rows = [x.movedim(1, -1).reshape(-1, x.shape[1]).numpy() for x in (f_s, f_t, z_t)]
    hot = (y.numpy().reshape(-1, 1) == np.arange(C)).astype(float)
    p = np.exp(rows[2])
    p /= p.sum(1, keepdims=True)
    sure = (p.argmax(1)[:, None] == np.arange(C)) & (p.max(1, keepdims=True) >= 0.5)
    f, w = {
        "source": (rows[0], hot),
        "target": (rows[1], p),
        "both": (np.vstack(rows[:2]), np.vstack([hot, p])),
        "both_confident": (np.vstack(rows[:2]), np.vstack([hot, sure])),
    }[source]
    np.testing.assert_allclose(loss.bank.prototypes, w.T @ f / w.sum(0)[:, None], rtol=1e-10)


def test_labels_of_pictures_are_read_at_the_features_size():
    f_s, z_s, y, f_t, z_t = given(spatial=(2, 3))
    large = y.repeat_interleave(4, 1).repeat_interleave(4, 2)
    one, other = (made(dense=True)(f_s, z_s, labels, f_t, z_t, 0.4) for labels in (y, large))
    assert one["total"].equal(other["total"])


def test_as_long_as_nothing_is_seen_the_losses_are_skipped_and_this_is_logged():
    f_s, z_s, y, f_t, z_t = given()
    leaves = [x.requires_grad_() for x in (f_s, z_s, f_t, z_t)]
    loss = made()
    found = loss(f_s, z_s, torch.full_like(y, -1), f_t, z_t, 0.4)
    assert [float(found[name].detach()) for name in LOSSES] == [0, 0, 0, 0]
    assert found["skipped"] == 1
    found["total"].backward()
    for value in (*leaves, *loss.parameters()):
        assert value.grad is None or not value.grad.any()
    assert loss(f_s, z_s, y, f_t, z_t, 0.4)["skipped"] == 0


def test_classes_that_are_not_seen_yet_are_left_out():
    """The same as with a third class that no prediction names."""
    f_s, z_s, y, f_t, z_t = given()
    y = y % 2
    found = made()(f_s, z_s, y, f_t, z_t, 0.4)
    z_s[:, 2], z_t[:, 2] = -1e9, -1e9
    torch.testing.assert_close(found["total"], made()(f_s, z_s, y, f_t, z_t, 0.4)["total"])


def test_collapsing_prototypes_are_warned_of_once():
    f_s, z_s, y, f_t, z_t = given()
    close = torch.ones_like(f_s) + 1e-3 * f_s
    loss = made()
    with pytest.warns(UserWarning, match=r"below 0.1: classes are collapsing"):
        found = loss(close, z_s, y, f_t, z_t, 0.4)
    assert found["prototype_spread"] < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(close, z_s, y, f_t, z_t, 0.4)
        made()(f_s, z_s, y, f_t, z_t, 0.4)
        made()(close, z_s, y * 0, f_t, z_t, 0.4)  # one class alone is near no other


def test_the_entropy_of_the_targets_classes_is_logged():
    f_s, z_s, y, f_t, _ = given()
    z_t = torch.eye(C, dtype=torch.float64)[[0, 0, 1, 1]]
    found = made()(f_s, z_s, y, f_t, z_t, 0.4)
    assert found["target_class_entropy"].item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    parts = given(dtype)
    loss = made(dtype)
    for x in (parts[0], parts[1], parts[3], parts[4]):
        x.requires_grad_()
    found = loss(*parts, 0.4)
    found["total"].backward()
    assert found["total"].dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in loss.parameters())
    truth = made().requires_grad_(False)(*given(), 0.4)
    with torch.autocast("cpu", torch.bfloat16):
        under = made(torch.float32)(*given(torch.float32), 0.4)
    for name in LOSSES:
        assert found[name].item() == pytest.approx(truth[name].item(), rel=3e-2)
        assert under[name].item() == pytest.approx(truth[name].item(), rel=3e-2)


def test_an_empty_batch_is_finite():
    parts = [x[:0] for x in given()]
    assert made()(*parts, 0.4)["total"] == 0


def test_a_resumed_training_goes_on_as_if_nothing_had_been():
    loss, other = made(), made()
    loss(*given(), 0.1)
    other.load_state_dict(loss.state_dict())
    found = [one(*given(seed=2), 0.2)["total"] for one in (loss, other)]
    assert found[0].equal(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
def test_the_objectives_compile_whole(dense):
    parts = given(torch.float32, (2, 3) if dense else ())
    loss, other = made(torch.float32, dense=dense), made(torch.float32, dense=dense)
    torch.compiler.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for value in (0.1, 0.2):
        one, two = loss(*parts, torch.tensor(value)), compiled(*parts, torch.tensor(value))
        for name, number in one.items():
            torch.testing.assert_close(number, two[name])
    torch.testing.assert_close(loss.bank.prototypes, other.bank.prototypes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: made(prototypes_from="targets"), "source of prototypes 'targets': did you mean"),
        (lambda: made(variance_mode="cosine"), "mode of the variance 'cosine': did you mean 'cos'"),
        (lambda: made(confidence=1.2), r"confidence must lie in \[0, 1\], not 1.2"),
        (
            lambda: made()(*given()[:2], torch.zeros(2, dtype=torch.int64), *given()[3:], 0.4),
            r"labels of features \[6, 5\] must be \[6\], not \[2\]",
        ),
        (lambda: made()(*given()[:2], given()[2] + C, *given()[3:], 0.4), r"must lie in \[0, 2\]"),
    ],
)
def test_wrong_input_to_the_objectives(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_batches_that_cannot_be_trained_with_are_refused():
    norm = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_batch_sizes(norm, 2, 2, joint=False)
    check_batch_sizes(norm, 1, 1, joint=True)
    check_batch_sizes(norm.eval(), 1, 1, joint=False)
    check_batch_sizes(nn.Linear(2, 2), 1, 1, joint=False)
    for sizes, joint, message in (
        ((4, 1), False, r"the target domain has one item, of which BatchNorm \(1\) has no var"),
        ((0, 4), True, "the batch of the source domain is empty"),
        ((4, 0), False, "the batch of the target domain is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            check_batch_sizes(norm.train(), *sizes, joint=joint)


def share(rank, address, folder):
    """Take a part of each batch in a process of two, and save losses, gradients and prototypes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    loss, saved = made(), []
    for seed in range(3):
        f_s, z_s, y, f_t, z_t = given(seed=seed)
        # of the source 4 and 2 items, of the target 1 and 3
        parts = [x[:4] if rank == 0 else x[4:] for x in (f_s, z_s, y)]
        parts += [x[:1] if rank == 0 else x[1:] for x in (f_t, z_t)]
        loss.zero_grad()
        found = loss(*parts, 0.4)
        found["total"].backward()
        for p in loss.parameters():
            torch.distributed.all_reduce(p.grad)
            p.grad /= 2  # as distributed training does
        weighed = ConditionalDomainLoss(D, C, "noun", entropy=True, hidden=8).double()
        weighed.load_state_dict(noun().state_dict())
        f_s, z_s, _, f_t, z_t = parts
        saved.append(
            (
                {name: value.detach() for name, value in found.items()},
                [p.grad.clone() for p in loss.parameters()],
                loss.bank.prototypes.clone(),
                weighed(f_s, z_s, f_t, z_t, 0.4).detach(),
            )
        )
    torch.save(saved, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def noun():
    torch.manual_seed(3)
    return ConditionalDomainLoss(D, C, "noun", entropy=True, hidden=8).double()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed here")
def test_two_processes_with_unequal_batches_equal_one(tmp_path):
    torch.multiprocessing.spawn(share, (f"file://{tmp_path}/meeting", tmp_path), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    alone = made()
    for seed in range(3):
        alone.zero_grad()
        f_s, z_s, y, f_t, z_t = given(seed=seed)
        found = alone(f_s, z_s, y, f_t, z_t, 0.4)
        found["total"].backward()
        first, second = (ranks[seed] for ranks in both)
        for name in (*LOSSES, "disc_acc", "prototype_disc_acc"):
            torch.testing.assert_close((first[0][name] + second[0][name]) / 2, found[name].detach())
        for name in ("scale", "prototype_spread"):
            torch.testing.assert_close(first[0][name], found[name])
        for one, other, p in zip(first[1], second[1], alone.parameters(), strict=True):
            torch.testing.assert_close(one, p.grad)
            torch.testing.assert_close(other, p.grad)
        for ranks in (first, second):
            torch.testing.assert_close(ranks[2], alone.bank.prototypes)
        weighed = noun()(f_s, z_s, f_t, z_t, 0.4).detach()
        torch.testing.assert_close((first[3] + second[3]) / 2, weighed)
