"""Online label smoothing against its equations, worked out in float64 with NumPy."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from foveal.losses import OnlineLabelSmoothing, create_loss

K = 5
GENERATOR = torch.Generator().manual_seed(0)


def batch(size=12, classes=K, right=0.7):
    """Return logits and labels, of which about the share ``right`` is predicted."""
    logits = 2 * torch.randn(size, classes, generator=GENERATOR)
    labels = torch.randint(classes, (size,), generator=GENERATOR)
    lucky = torch.rand(size, generator=GENERATOR) < right
    return logits, torch.where(lucky, logits.argmax(1), labels)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class Equations:
    """Section 3 of the paper, one sample at a time, rows = target class."""

    def __init__(self, classes=K, alpha=0.5):
        self.s = np.full((classes, classes), 1 / classes)
        self.sum, self.count, self.alpha = np.zeros((classes, classes)), np.zeros(classes), alpha

    def loss(self, logits, labels):
        losses = []
        for z, y in zip(logits.double().numpy(), labels.tolist(), strict=True):
            p = softmax(z[None])[0]
            soft = -sum(self.s[y, k] * math.log(p[k]) for k in range(len(p)))
            losses.append(self.alpha * -math.log(p[y]) + (1 - self.alpha) * soft)
            if int(np.argmax(z)) == y:
                self.sum[y] += p
                self.count[y] += 1
        return np.array(losses)

    def next_epoch(self):
        for k, n in enumerate(self.count):
            self.s[k] = self.sum[k] / n if n else 1 / len(self.count)
        self.sum[:], self.count[:] = 0, 0


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_losses_and_soft_labels_over_epochs_follow_the_equations(alpha):
    ours, truth = OnlineLabelSmoothing(K, alpha), Equations(alpha=alpha)
    for _ in range(4):
        for size in (12, 12, 7):
            logits, labels = batch(size)
            expected = truth.loss(logits, labels).mean()
            assert ours(logits, labels).item() == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(ours.sum, truth.sum, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(ours.count, truth.count)
        ours.next_epoch()
        truth.next_epoch()
        np.testing.assert_allclose(ours.soft_labels, truth.s, rtol=1e-6, atol=1e-7)
    assert ours.epoch == 4
    assert ours.soft_labels.sum(1).tolist() == pytest.approx([1] * K)


def test_the_gradient_is_softmax_minus_mixture():
    loss = OnlineLabelSmoothing(K)
    loss.soft_labels.copy_(torch.rand(K, K, generator=GENERATOR).softmax(1))
    logits, labels = batch()
    logits.requires_grad_()
    loss(logits, labels).backward()
    mixture = 0.5 * np.eye(K)[labels] + 0.5 * loss.soft_labels.numpy()[labels]
    expected = (softmax(logits.detach().double().numpy()) - mixture) / len(labels)
    np.testing.assert_allclose(logits.grad, expected, atol=1e-7)
    exact = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(loss.double().eval(), (exact, labels))


def test_one_hot_soft_labels_are_cross_entropy_and_uniform_ones_label_smoothing():
    logits, labels = batch()
    for alpha, start, reference in (
        (1.0, None, nn.CrossEntropyLoss()),
        (0.3, torch.eye(K), nn.CrossEntropyLoss()),
        (0.3, None, nn.CrossEntropyLoss(label_smoothing=0.7)),
    ):
        loss = OnlineLabelSmoothing(K, alpha)
        if start is not None:
            loss.soft_labels.copy_(start)
        torch.testing.assert_close(loss(logits, labels), reference(logits, labels))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_ignored_pixels_and_reductions_are_those_of_cross_entropy(
    reduction, shape, weighted
):
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0]) if weighted else None
    logits = torch.randn(6, K, *shape, generator=GENERATOR)
    labels = torch.randint(K, (6, *shape), generator=GENERATOR)
    labels[1] = 255
    options = {"weight": weight, "ignore_index": 255, "reduction": reduction}
    ours = OnlineLabelSmoothing(K, 0.9, label_smoothing=0.2, **options)
    # alpha (0.8 hard + 0.2 uniform) + 0.1 uniform
    reference = nn.CrossEntropyLoss(label_smoothing=0.9 * 0.2 + 0.1, **options)
    torch.testing.assert_close(ours(logits, labels), reference(logits, labels))


def test_pixels_are_samples():
    logits = torch.randn(2, K, 3, 4, generator=GENERATOR)
    labels = torch.randint(K, (2, 3, 4), generator=GENERATOR)
    labels[0, :2] = logits.argmax(1)[0, :2]
    labels[1, 0, 0] = 255
    dense, flat = (OnlineLabelSmoothing(K, ignore_index=255) for _ in range(2))
    value = dense(logits, labels)
    rows = [
        (logits[b, :, i, j], labels[b, i, j]) for b in (0, 1) for i in range(3) for j in range(4)
    ]
    kept = [(z, y) for z, y in rows if y != 255]
    expected = flat(torch.stack([z for z, _ in kept]), torch.stack([y for _, y in kept]))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(dense.sum, flat.sum)
    assert dense.count.equal(flat.count)
    assert dense.count.sum() >= 8


def test_counts_of_many_pixels_do_not_stop_at_16_million():
    """A float32 sum that grows by ones comes to a stand at 2^24."""
    loss = OnlineLabelSmoothing(2)
    loss.count.fill_(2.0**24)
    loss(torch.tensor([[9.0, 0.0]]).repeat(64, 1), torch.zeros(64, dtype=torch.int64))
    assert loss.count[0] == 2**24 + 64


def test_only_right_predictions_in_training_mode_are_collected():
    loss = OnlineLabelSmoothing(3)
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0]])
    loss.eval()(logits, torch.tensor([0, 1, 0]))
    assert loss.seen == 0
    assert not loss.count.any()
    loss.train()(logits, torch.tensor([0, 2, 0]))  # the third is a tie: the first class counts
    assert loss.count.tolist() == [2, 0, 0]
    loss(logits[2:], torch.tensor([1]))
    assert loss.count.tolist() == [2, 0, 0]
    assert not loss.sum.requires_grad


def test_classes_never_predicted_right_become_uniform_or_stay():
    logits = torch.tensor([[3.0, 0.0, 0.0]])
    for empty, expected in (("uniform", [1 / 3] * 3), ("keep", [0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])):
        loss = OnlineLabelSmoothing(3, init="smooth", empty=empty)
        loss(logits, torch.tensor([0]))
        loss.next_epoch()
        assert loss.soft_labels[1].tolist() == pytest.approx(expected)
        assert loss.soft_labels[0].tolist() == pytest.approx(logits.softmax(1)[0].tolist())


def test_an_epoch_without_a_right_prediction_resets_and_none_at_all_changes_nothing():
    loss = OnlineLabelSmoothing(3, init="smooth")
    before = loss.soft_labels.clone()
    loss.next_epoch()
    assert loss.soft_labels.equal(before)
    assert loss.epoch == 0
    loss(torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([1]))
    loss.next_epoch()
    assert loss.soft_labels.flatten().tolist() == pytest.approx([1 / 3] * 9)
    loss.next_epoch()
    assert loss.epoch == 1


def test_starts():
    assert OnlineLabelSmoothing(4).soft_labels.eq(0.25).all()
    assert not OnlineLabelSmoothing(4, init="zeros").soft_labels.any()
    smooth = OnlineLabelSmoothing(4, init="smooth").soft_labels
    assert smooth[0].tolist() == pytest.approx([0.925, 0.025, 0.025, 0.025])
    # From zeros the soft term is nothing: half of cross entropy, as the authors' log begins.
    logits, labels = batch()
    half = create_loss("online_label_smoothing_cifar", K)(logits, labels)
    torch.testing.assert_close(half, nn.functional.cross_entropy(logits, labels) / 2)


def test_the_finegrained_program_doubles_the_loss_and_freezes_sure_rows():
    loss = create_loss("online_label_smoothing_finegrained", 3)
    logits, labels = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([0])
    torch.testing.assert_close(loss(logits, labels), 2 * OnlineLabelSmoothing(3)(logits, labels))
    loss.next_epoch()
    frozen = loss.soft_labels[0].clone()
    assert frozen[0] == pytest.approx(math.exp(4) / (math.exp(4) + 2))  # above 0.88
    loss(torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.1, 0.0]]), torch.tensor([0, 1]))
    loss.next_epoch()
    assert loss.soft_labels[0].equal(frozen)
    assert loss.soft_labels[1, 1] < 0.88
    loss(torch.tensor([[0.0, 0.1, 0.0]]), torch.tensor([1]))
    loss.next_epoch()
    assert loss.soft_labels[0].tolist() == pytest.approx([1 / 3] * 3)  # as the authors have it


def test_momentum_keeps_a_share_of_the_old_row():
    loss = OnlineLabelSmoothing(2, momentum=0.75)
    loss(torch.tensor([[math.log(9.0), 0.0]]), torch.tensor([0]))
    loss.next_epoch()
    assert loss.soft_labels[0].tolist() == pytest.approx([0.75 * 0.5 + 0.25 * 0.9, 0.4])


def test_momentum_has_no_memory_of_zeros():
    loss = OnlineLabelSmoothing(2, init="zeros", momentum=0.75)
    loss(torch.tensor([[math.log(9.0), 0.0]]), torch.tensor([0]))
    loss.next_epoch()
    assert loss.soft_labels[0].tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_cast_to_half_keeps_the_buffers_whole(dtype):
    loss = torch.nn.Sequential(torch.nn.Linear(2, 2), OnlineLabelSmoothing(2)).to(dtype)[1]
    loss.count.fill_(4096)  # where half precision takes 4097 for 4096
    loss(torch.tensor([[9.0, 0.0]], dtype=dtype), torch.tensor([0]))
    assert loss.count[0] == 4097
    assert loss.soft_labels.dtype == torch.float32
    assert loss.double().soft_labels.dtype == torch.float64


def test_probabilities_are_mixed_with_their_soft_labels():
    loss = OnlineLabelSmoothing(K)
    loss.soft_labels.copy_(torch.rand(K, K, generator=GENERATOR).softmax(1))
    logits, labels = batch(6)
    other, share = labels.flip(0), 0.7
    target = share * np.eye(K)[labels] + (1 - share) * np.eye(K)[other]
    log_p = np.log(softmax(logits.double().numpy()))
    expected = -((0.5 * target + 0.5 * target @ loss.soft_labels.double().numpy()) * log_p).sum(1)
    value = loss(logits, torch.from_numpy(target).float())
    assert value.item() == pytest.approx(expected.mean(), rel=1e-6)
    one_hot = torch.eye(K)[labels]
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, labels))


def test_mixed_samples_are_skipped_or_collected_by_share():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    target = torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.6, 0.4, 0.0]])
    p = logits.softmax(1)
    skip, weighted = OnlineLabelSmoothing(3), OnlineLabelSmoothing(3, mixed="weighted")
    for loss in (skip, weighted):
        loss(logits, target)
    assert skip.count.tolist() == [0, 1, 0]
    torch.testing.assert_close(skip.sum[1], p[1])
    # The third says 1 where 0 has the larger share: wrong.
    assert weighted.count.tolist() == pytest.approx([0.8, 1.2, 0])
    torch.testing.assert_close(weighted.sum[0], 0.8 * p[0])
    torch.testing.assert_close(weighted.sum[1], 0.2 * p[0] + p[1])


def test_statistics_may_come_from_other_logits():
    logits, labels = batch(right=0)
    others = 5 * torch.eye(K)[labels]
    loss = OnlineLabelSmoothing(K)
    plain = OnlineLabelSmoothing(K)(logits, labels)
    torch.testing.assert_close(loss(logits, labels, statistics_logits=others), plain)
    assert loss.count.tolist() == torch.bincount(labels, minlength=K).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, labels = batch()
    half, single = OnlineLabelSmoothing(K), OnlineLabelSmoothing(K)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = half(logits.to(dtype), torch.eye(K)[labels])
    torch.testing.assert_close(value, single(logits.to(dtype).float(), labels))
    half.next_epoch()
    assert half.soft_labels.sum(1).tolist() == pytest.approx([1] * K, abs=1e-6)


def test_a_step_that_overflows_leaves_no_trace():
    loss = OnlineLabelSmoothing(3)
    bad = torch.tensor([[math.inf, 0.0, 0.0], [math.nan] * 3, [2.0, 0.0, 0.0]])
    loss(bad, torch.tensor([0, 0, 0]))
    assert loss.count.tolist() == [1, 0, 0]
    assert loss.sum.isfinite().all()


def test_no_sample_and_one_sample():
    loss = OnlineLabelSmoothing(K, reduction="sum")
    assert loss(torch.zeros(0, K), torch.zeros(0, dtype=torch.int64)) == 0
    assert loss(torch.zeros(1, K), torch.zeros(1, dtype=torch.int64)).item() == pytest.approx(
        math.log(K)
    )


def test_the_state_is_in_the_state_dict_and_goes_on():
    one = OnlineLabelSmoothing(K)
    first, second = batch(), batch()
    one(*first)
    one.next_epoch()
    one(*second)
    two = OnlineLabelSmoothing(K)
    two.load_state_dict(pickle.loads(pickle.dumps(one.state_dict())))
    three = copy.deepcopy(one)
    for loss in (one, two, three):
        loss(*first)
        loss.next_epoch()
    for other in (two, three):
        assert all(v.equal(other.state_dict()[k]) for k, v in one.state_dict().items())
    assert set(one.state_dict()) == {"soft_labels", "sum", "count", "seen", "epoch"}


def test_it_builds_on_the_meta_device():
    with torch.device("meta"):
        assert OnlineLabelSmoothing(1000).soft_labels.is_meta


@pytest.mark.slow
def test_it_compiles_as_one_graph():
    eager, compiled = OnlineLabelSmoothing(K), OnlineLabelSmoothing(K)
    step = torch.compile(compiled, fullgraph=True)
    for _ in range(2):
        logits, labels = batch()
        torch.testing.assert_close(step(logits, labels), eager(logits, labels))
    torch.testing.assert_close(compiled.sum, eager.sum)


@pytest.mark.parametrize("size", [2, 7])  # fewer and more samples than classes
@pytest.mark.parametrize("mixed", ["skip", "weighted"])
def test_nothing_is_read_back_from_the_device(size, mixed):
    """Fake tensors have no values to read: any attempt raises."""
    with FakeTensorMode():
        options = {"mixed": mixed, "freeze_at": 0.9, "weight": torch.ones(K), "momentum": 0.5}
        loss = OnlineLabelSmoothing(K, **options)
        for target in (torch.zeros(size, dtype=torch.int64), torch.zeros(size, K)):
            logits = torch.zeros(size, K, requires_grad=True)
            loss(logits, target).backward()
        loss.next_epoch()
        with pytest.raises(DataDependentOutputException):
            loss.seen.item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], not 1.5"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), not 1.0"),
        ({"freeze_at": -1.0}, r"freeze_at must lie in \(0, 1\], not -1.0"),
        ({"freeze_at": math.nan}, r"freeze_at must lie in \(0, 1\], not nan"),
        ({"freeze_at": 0.88, "init": "smooth"}, "would freeze every row at its start"),
        ({"hard_weight": -1.0}, "hard_weight must be at least 0 and finite, not -1.0"),
        ({"soft_weight": math.inf}, "soft_weight must be at least 0 and finite, not inf"),
        ({"hard_weight": 1.0, "soft_weight": 1.0, "alpha": 0.9}, "alpha means nothing beside"),
        ({"init": "unifrom"}, "init must be uniform or zeros or smooth, not 'unifrom'"),
        ({"empty": "drop"}, "empty must be uniform or keep, not 'drop'"),
        ({"mixed": "yes"}, "mixed must be skip or weighted, not 'yes'"),
        ({"reduction": "max"}, "reduction must be mean, sum, none, not 'max'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        OnlineLabelSmoothing(3, **options)


def test_logits_of_another_number_of_classes():
    with pytest.raises(ValueError, match=r"logits must be \[B, 3, ...\], not \[2, 4\]"):
        OnlineLabelSmoothing(3)(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))


def shard(rank, address, folder):
    """Collect every other sample in a process of two; save what it ends with."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    loss, batches = OnlineLabelSmoothing(K), torch.load(folder / "batches.pt")
    for number, (logits, labels) in enumerate(batches):
        loss(logits[rank::2], labels[rank::2])
        if number == 1:
            loss.gather()  # as before a checkpoint in mid-epoch
            torch.save(loss.state_dict(), folder / f"middle{rank}.pt")
        if number == 3:
            loss.next_epoch()
    torch.save(loss.state_dict(), folder / f"end{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed here")
def test_two_processes_equal_one(tmp_path):
    batches = [batch(10) for _ in range(6)]
    torch.save(batches, tmp_path / "batches.pt")
    torch.multiprocessing.spawn(shard, (f"file://{tmp_path}/meeting", tmp_path), nprocs=2)
    alone = OnlineLabelSmoothing(K)
    for number, (logits, labels) in enumerate(batches):
        alone(logits, labels)
        if number == 1:
            middle = torch.load(tmp_path / "middle0.pt")
            torch.testing.assert_close(middle["sum"], alone.sum)
            assert middle["count"].equal(alone.count)
            assert not torch.load(tmp_path / "middle1.pt")["count"].any()
        if number == 3:
            alone.next_epoch()
    ends = [torch.load(tmp_path / f"end{rank}.pt") for rank in (0, 1)]
    assert ends[0]["soft_labels"].equal(ends[1]["soft_labels"])
    torch.testing.assert_close(ends[0]["soft_labels"], alone.soft_labels)
    torch.testing.assert_close(ends[0]["sum"] + ends[1]["sum"], alone.sum)
