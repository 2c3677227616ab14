"""The similarity of attention maps, against cosines written out entry by entry.

The authors' loss is replayed from their fixture by tests/replay_fixture.py.
"""

import itertools

import numpy as np
import pytest
import torch

from foveal.losses import attention_similarity, released_attention_similarity


def softmax_maps(blocks, heads=3, tokens=5, batch=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(blocks, batch, heads, tokens, tokens, generator=generator).double()
    return [m.requires_grad_() for m in (2 * logits).softmax(4).unbind()]


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_a_token_is_compared_by_what_it_contributes():
    maps = softmax_maps(3)
    arrays = [m.detach().numpy() for m in maps]
    cosines = [
        cosine(before[i, h, :, t], after[i, h, :, t])
        for before, after in itertools.pairwise(arrays)
        for i, h, t in np.ndindex(2, 3, 5)
    ]
    assert attention_similarity(maps).item() == pytest.approx(np.mean(cosines), rel=1e-12)


def test_the_released_one_compares_entries_over_the_heads_of_the_first_pairs():
    maps = softmax_maps(4)
    arrays = [m.detach().numpy() for m in maps]
    cosines = [
        cosine(arrays[p][i, :, q, t], arrays[p + 1][i, :, q, t])
        for p in range(2)
        for i, q, t in np.ndindex(2, 5, 5)
    ]
    loss = released_attention_similarity(maps, 2)
    assert loss.item() == pytest.approx(np.mean(cosines), rel=1e-12)
    loss.backward()
    assert [m.grad is not None and bool(m.grad.any()) for m in maps] == [True] * 3 + [False]


def test_gradients_by_finite_differences():
    maps = softmax_maps(3, heads=2, tokens=3, batch=1)
    assert torch.autograd.gradcheck(lambda *m: attention_similarity(m), maps)
    assert torch.autograd.gradcheck(lambda *m: released_attention_similarity(m, 2), maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_entries_of_half_precision_count(dtype):
    # 1 / N^2 is below what float16 has.
    maps = [torch.full((1, 2, 900, 900), 1 / 900).to(dtype) for _ in range(2)]
    assert attention_similarity(maps).item() == pytest.approx(1, abs=1e-5)
    assert released_attention_similarity(maps, 1).item() == pytest.approx(1, abs=1e-5)


def test_signs_count():
    maps = softmax_maps(1)
    assert attention_similarity([maps[0], -maps[0]]).item() == pytest.approx(-1)


def test_errors():
    one = torch.rand(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"^one pair of successive maps need.* 2 blocks, not of 1"):
        attention_similarity([one])
    with pytest.raises(ValueError, match=r"^3 pairs of .* need the maps of 4 blocks, not of 2"):
        released_attention_similarity([one, one], 3)
    with pytest.raises(ValueError, match="pairs must be at least 1, not 0"):
        released_attention_similarity([one, one], 0)
    with pytest.raises(ValueError, match=r"blocks 1 and 2 are \[1, 2, 4, 4\] and \[1, 2, 5, 5\]"):
        attention_similarity([one, one, torch.rand(1, 2, 5, 5)])
