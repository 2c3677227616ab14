import pytest
import torch

from foveal.adaptation import PrototypeBank

K, D = 4, 3


def batches(count=5, n=8):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(n, D, generator=generator),
            torch.randint(-1, K - (step < 2), (n,), generator=generator),
        )
        for step in range(count)
    ]


def test_a_class_takes_its_first_mean_whole_and_is_averaged_after_that():
    bank = PrototypeBank(3, 1, momentum=0.9)
    assert not bank.initialized.any()
    bank.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
    bank.update(torch.tensor([[12.0], [5.0]]), torch.tensor([0, 1]))
    torch.testing.assert_close(bank.prototypes, torch.tensor([[0.9 * 2 + 0.1 * 12], [5.0], [0.0]]))
    assert bank.initialized.tolist() == [True, True, False]
    assert bank.num_updates == 2


def test_random_prototypes_are_used_as_they_are_and_first_averaged_in_the_second_step():
    torch.manual_seed(0)
    bank = PrototypeBank(2, 500, init="random")
    noise = bank.prototypes.clone()
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    assert bank.initialized.all()
    ones = torch.ones(1, 500)
    bank.update(ones, torch.tensor([0]))
    assert bank.prototypes.equal(noise)
    bank.update(ones, torch.tensor([0]))
    torch.testing.assert_close(bank.prototypes[0], 0.5 * noise[0] + 0.5)
    assert bank.prototypes[1].equal(noise[1])


def test_an_empty_batch_changes_nothing():
    bank = PrototypeBank(K, D)
    bank.update(*batches(1)[0])
    before = bank.prototypes.clone()
    bank.update(torch.zeros(0, D), torch.zeros(0, dtype=torch.int64))
    bank.update(torch.full((2, D), torch.nan), torch.full((2,), -1))
    assert bank.prototypes.equal(before)


def test_label_maps_are_read_at_the_nearest_pixel_of_each_cell():
    """Cells of 4 by 4 pixels; the one at (2, 2) of each, counted from 0, is the nearest."""
    labels = torch.full((1, 8, 8), 255)
    labels[0, 2, 2], labels[0, 2, 6], labels[0, 6, 6] = 0, 1, 0
    f = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    bank = PrototypeBank(3, 1, ignore_index=255)
    bank.update(f, labels)
    assert bank.prototypes[:, 0].tolist() == [3.0, 2.0, 0.0]
    large = PrototypeBank(3, 1, ignore_index=255)
    large.update(f.repeat_interleave(4, 2).repeat_interleave(4, 3), labels)
    assert large.prototypes.equal(bank.prototypes)


def test_the_state_is_saved_and_moved():
    bank = PrototypeBank(K, D)
    bank.update(*batches(1)[0])
    other = PrototypeBank(K, D)
    other.load_state_dict(bank.state_dict())
    assert set(bank.state_dict()) == {"prototypes", "initialized", "num_updates"}
    for one in (bank, other):
        one.update(*batches(2)[1])
    assert other.prototypes.equal(bank.prototypes)
    half = bank.half()
    half.update(batches(1)[0][0].half(), batches(1)[0][1])
    assert half.prototypes.dtype == torch.float16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PrototypeBank(K, D, init="rand"), "start of prototypes 'rand': did you mean 'ran"),
        (lambda: PrototypeBank(K, D, momentum=-1), r"momentum must lie in \[0, 1\], not -1"),
        (lambda: PrototypeBank(0, D), "must be at least 1, and are 0 and 3"),
        (
            lambda: PrototypeBank(K, D).update(torch.zeros(2, 5), torch.tensor([0, 1])),
            r"features must be 3 wide, as the prototypes are, and are \[2, 5\]",
        ),
        (
            lambda: PrototypeBank(K, D).update(torch.zeros(2, D), torch.tensor([0, 255])),
            r"be -1 \(ignored\), and one is 255",
        ),
        (
            lambda: PrototypeBank(K, D).update(torch.zeros(2, D), torch.tensor([0])),
            r"labels of features \[2, 3\] must be \[2\], not \[1\]",
        ),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
