"""The batches of a run depend on the seed and the epoch and on nothing else."""

import numpy as np
import pytest
import torch

from foveal.config import DENSE_TASKS, DenseAugmentConfig
from foveal.data.dense import JointPictures, join, read_dense
from foveal.data.loading import TransformedMaps, make_loader
from foveal.data.map_transforms import MapTrainTransform
from foveal.data.sampling import BatchSampler, MixedBatchSampler, derive_seed, seed_torch
from foveal.data.transforms import Preprocess


def flat(batches):
    return [pair for batch in batches for pair in batch]


def test_training_order_is_a_permutation_that_changes_with_epoch_and_seed():
    sampler = BatchSampler(12, 4, shuffle=True, seed=3)
    first = flat(sampler)
    assert sorted(index for _, index in first) == list(range(12))
    assert {epoch for epoch, _ in first} == {0}
    sampler.set_epoch(1)
    second = flat(sampler)
    assert [i for _, i in second] != [i for _, i in first]
    assert {epoch for epoch, _ in second} == {1}
    other = flat(BatchSampler(12, 4, shuffle=True, seed=4))
    assert [i for _, i in other] != [i for _, i in first]
    assert flat(BatchSampler(12, 4, shuffle=True, seed=3)) == first


@pytest.mark.parametrize("start", [0, 1, 4])
def test_starting_at_a_batch_gives_the_rest_of_the_same_epoch(start):
    whole = list(BatchSampler(25, 5, shuffle=True, seed=1))
    sampler = BatchSampler(25, 5, shuffle=True, seed=1)
    sampler.set_epoch(0, start=start)
    assert list(sampler) == whole[start:]
    assert len(sampler) == 5  # the length of the whole epoch, as Lightning counts


def test_training_leaves_out_the_incomplete_rest_and_deals_ranks_equal_shares():
    samplers = [BatchSampler(23, 4, shuffle=True, rank=r, world_size=2) for r in range(2)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [2, 2] == [len(s) for s in samplers]
    assert all(len(batch) == 4 for share in shares for batch in share)
    indices = [i for share in shares for _, i in flat(share)]
    assert len(set(indices)) == 16


def test_two_processes_train_on_the_batches_that_one_with_twice_the_size_takes():
    one = list(BatchSampler(24, 6, shuffle=True, seed=5))
    a, b = (list(BatchSampler(24, 3, shuffle=True, seed=5, rank=r, world_size=2)) for r in (0, 1))
    assert [x + y for x, y in zip(a, b, strict=True)] == one


@pytest.mark.parametrize(
    ("size", "batch", "world"), [(10, 3, 2), (7, 3, 2), (2001, 64, 3), (9, 8, 2)]
)
def test_evaluation_deals_every_picture_exactly_once(size, batch, world):
    shares = [
        list(BatchSampler(size, batch, shuffle=False, rank=r, world_size=world))
        for r in range(world)
    ]
    indices = sorted(i for share in shares for _, i in flat(share))
    assert indices == list(range(size))
    assert all(shares)
    for rank, share in enumerate(shares):
        sampler = BatchSampler(size, batch, shuffle=False, rank=rank, world_size=world)
        assert len(sampler) == len(share)


def test_evaluation_batches_of_two_processes_are_those_of_one():
    one = list(BatchSampler(11, 2, shuffle=False))
    two = [list(BatchSampler(11, 2, shuffle=False, rank=r, world_size=2)) for r in range(2)]
    assert two[0] == one[0::2]
    assert two[1] == one[1::2]


def test_a_process_left_over_in_evaluation_repeats_a_batch():
    shares = [list(BatchSampler(5, 2, shuffle=False, rank=r, world_size=4)) for r in range(4)]
    one = list(BatchSampler(5, 2, shuffle=False))
    assert shares == [[one[0]], [one[1]], [one[2]], [one[0]]]
    alone = BatchSampler(1, 64, shuffle=False, rank=1, world_size=2)
    assert (len(alone), list(alone)) == (1, [[(0, 0)]])


def test_fewer_pictures_than_a_batch_form_one_batch():
    assert [len(b) for b in BatchSampler(5, 64, shuffle=True)] == [5]
    assert [len(b) for b in BatchSampler(5, 64, shuffle=True, rank=1, world_size=2)] == [2]


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="batch size must be at least 1, not 0"):
        BatchSampler(5, 0, shuffle=True)
    with pytest.raises(ValueError, match="1 pictures are too few for 2 process"):
        BatchSampler(1, 4, shuffle=True, world_size=2)
    with pytest.raises(ValueError, match="0 pictures"):
        BatchSampler(0, 4, shuffle=False)


def test_seeds_of_neighbours_differ_and_are_stable():
    seeds = {derive_seed(s, e, i) for s in range(4) for e in range(4) for i in range(50)}
    assert len(seeds) == 4 * 4 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    # The value is part of the format: a resumed run must find the same one in another version.
    assert derive_seed(0, 1, 2) == 5458876493991123480


def test_seeding_torch_depends_on_every_part():
    draws = []
    for parts in [(0, 1, 2), (0, 1, 3), (0, 1, 2)]:
        seed_torch(*parts)
        draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def mixed(*args, epoch=0, start=0, **options):
    sampler = MixedBatchSampler(*args, **options)
    sampler.set_epoch(epoch, start)
    batches = list(sampler)
    assert len(batches) == len(sampler) - start
    return [[index for _, index in batch] for batch in batches]


def shares(indices, sizes):
    """Return how many of the indices are of each set."""
    ends = np.cumsum(sizes)
    return np.bincount(np.searchsorted(ends, indices, side="right"), minlength=len(sizes)).tolist()


@pytest.mark.parametrize(
    ("sizes", "batch", "ratios", "expected"),
    [
        ((100, 40, 10), 6, None, [2, 2, 2]),
        ((100, 40, 10), 12, None, [4, 4, 4]),
        ((100, 40, 10), 8, (2, 1, 1), [4, 2, 2]),
        ((30, 700), 10, (0.3, 0.7), [3, 7]),
        ((30, 700), 10, (1, 9), [1, 9]),
        ((5, 5, 5), 3, (3, 3, 3), [1, 1, 1]),
    ],
)
def test_every_batch_holds_the_sets_in_their_ratios(sizes, batch, ratios, expected):
    for epoch in range(3):
        batches = mixed(sizes, batch, ratios=ratios, epoch=epoch)
        assert len(batches) == sum(sizes) // batch
        assert all(shares(one, sizes) == expected for one in batches)


@pytest.mark.parametrize("batch", [1, 2, 7, 16])
@pytest.mark.parametrize("ratios", [(1, 1, 1), (5, 2, 1), (0.123, 0.5, 1.7), (1, 100, 10)])
def test_ratios_that_give_no_whole_numbers_are_kept_as_near_as_may_be(batch, ratios):
    sizes = (60, 500, 33)
    batches = mixed(sizes, batch, ratios=ratios)
    share = np.array(ratios) / sum(ratios)
    for count in range(1, len(batches) + 1):
        so_far = np.array(shares(np.concatenate(batches[:count]), sizes))
        assert np.abs(so_far - share * batch * count).max() < 2
    for one in batches:
        assert np.abs(np.array(shares(one, sizes)) - share * batch).max() < 3


def test_a_set_gives_every_picture_before_any_comes_again():
    sizes = (7, 50, 23)
    drawn = [[], [], []]
    for epoch in range(9):
        for index in np.concatenate(mixed(sizes, 6, seed=2, epoch=epoch)):
            number = int(np.searchsorted(np.cumsum(sizes), index, side="right"))
            drawn[number].append(int(index))
    for number, size in enumerate(sizes):
        row = drawn[number]
        assert len(row) == 9 * 26  # 13 batches of 2 each
        rounds = [row[k : k + size] for k in range(0, len(row) - size, size)]
        first = sum(sizes[:number])
        for one in rounds:
            # The batches of an epoch end list a set's pictures in order of their draw.
            assert sorted(one) == list(range(first, first + size))
        assert rounds[0] != rounds[1]


def test_ratios_of_the_sizes_give_each_picture_once():
    sizes = (8, 24, 16)
    batches = mixed(sizes, 6, ratios=sizes)
    assert sorted(np.concatenate(batches)) == list(range(48))


def test_pictures_of_different_sets_do_not_meet_in_step():
    """Lists read modulo their lengths would repeat the same pairs."""
    sizes = (4, 4)
    partners = {k: set() for k in range(4)}
    for epoch in range(40):
        for a, b in mixed(sizes, 2, epoch=epoch):
            partners[min(a, b)].add(max(a, b))
    assert all(found == {4, 5, 6, 7} for found in partners.values())


@pytest.mark.parametrize("start", [0, 1, 5])
def test_a_mixed_epoch_goes_on_at_a_batch(start):
    options = {"ratios": (1, 2), "seed": 3, "epoch": 4}
    whole = mixed((30, 70), 6, **options)
    assert mixed((30, 70), 6, start=start, **options) == whole[start:]
    assert whole != mixed((30, 70), 6, **{**options, "epoch": 5})
    assert whole != mixed((30, 70), 6, **{**options, "seed": 4})


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_steps_of_one_and_each_gets_its_part(world):
    sizes = (40, 25, 60)
    one = mixed(sizes, 4 * world, ratios=(2, 1, 1))
    ranks = [mixed(sizes, 4, ratios=(2, 1, 1), rank=r, world_size=world) for r in range(world)]
    for step, whole in enumerate(one):
        parts = [rank[step] for rank in ranks]
        assert sorted(np.concatenate(parts)) == sorted(whole)
        for part in parts:
            assert len(part) == 4
            assert np.abs(np.array(shares(part, sizes)) - [2, 1, 1]).max() <= 1
    # No process keeps to one set, even with a picture at a time.
    single = [mixed((9, 9), 1, rank=r, world_size=2) for r in range(2)]
    assert all(0 < shares(np.concatenate(rank), (9, 9))[0] < 9 for rank in single)


def test_mixed_batches_do_not_depend_on_workers(few_scenes):
    joint = join({task: read_dense(None, task=task).splits["train"] for task in DENSE_TASKS})
    night = read_dense(None, task="edge", domain="night").splits["train"]
    both = JointPictures([*joint.sets, {"edge": night}])
    transform = MapTrainTransform(Preprocess(32), DenseAugmentConfig(), both.tasks)
    seen = []
    for workers in (0, 2):
        sampler = MixedBatchSampler(both.sizes, 3, ratios=(2, 1), seed=1)
        dataset = TransformedMaps(both, transform, seed=1)
        loader = make_loader(dataset, sampler, workers=workers)
        sampler.set_epoch(2)
        seen.append(list(loader))
    assert len(seen[0]) == 4
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[2], b[2])
        assert all(torch.equal(a[1][task], b[1][task]) for task in DENSE_TASKS)


def test_wrong_mixtures_are_refused():
    with pytest.raises(ValueError, match="batch size must be at least 1, not 0"):
        MixedBatchSampler([5], 0)
    with pytest.raises(ValueError, match=r"each set needs at least one picture, not \[5, 0\]"):
        MixedBatchSampler([5, 0], 1)
    with pytest.raises(ValueError, match="each set needs at least one picture"):
        MixedBatchSampler([], 1)
    with pytest.raises(ValueError, match="2 pictures are too few for 3 process"):
        MixedBatchSampler([1, 1], 1, world_size=3)
    for ratios in ((1,), (1, 0), (1, -1), (1, float("nan")), (1, float("inf"))):
        with pytest.raises(ValueError, match="ratios must be 2 positive numbers, one for each set"):
            MixedBatchSampler([5, 5], 1, ratios=ratios)


def test_fewer_pictures_than_a_mixed_batch_form_one():
    assert [len(b) for b in mixed((2, 3), 64)] == [5]
    assert [len(b) for b in mixed((2, 3), 64, rank=1, world_size=2)] == [2]


def test_no_picture_of_a_mixed_training_has_the_same_augmentation_twice():
    """Its draws come from the pair that the sampler yields."""
    sampler = MixedBatchSampler((1, 9, 40), 6, ratios=(3, 1, 1))
    seen = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        seen += [pair for batch in sampler for pair in batch]
    assert len(seen) == len(set(seen))
    rounds = [number for number, index in seen if index == 0]
    assert rounds == list(range(len(rounds)))  # one picture: a round each time
    assert len(rounds) > 4 * 20
