"""Label maps of single pictures: from what was mined, from activations, with a random field."""

import builtins

import numpy as np
import pytest
import torch

from foveal.config import CrfConfig, MiningConfig, PseudoLabelConfig
from foveal.mining import MiningResult
from foveal.mining.crf import dense_crf, require_crf
from foveal.mining.pseudo_labels import of_picture, pseudo_label_map, seed_label_maps


@pytest.fixture
def batch():
    """Return what was mined in two pictures of 2 x 3: classes 0 and 2, and class 1."""
    step_map = torch.tensor(
        [
            [[1, 1, 0], [2, 0, 0]],
            [[0, 1, 1], [0, 0, 0]],
            [[0, 0, 0], [0, 0, 3]],
        ],
        dtype=torch.uint8,
    )
    scores = torch.tensor(
        [
            [[0.9, 0.6, 0], [0.5, 0, 0]],
            [[0, 0.8, 0.7], [0, 0, 0]],
            [[0, 0, 0], [0, 0, 0.4]],
        ]
    )
    near = torch.zeros(3, 2, 3, dtype=torch.uint8)
    near[0, 1, 1], near[1, 1, 2] = 200, 100
    return MiningResult(
        pairs=torch.tensor([[0, 0], [0, 2], [1, 1]]),
        masks=step_map > 0,
        scores=scores,
        step_map=step_map,
        steps=torch.tensor([2, 1, 3]),
        reason=torch.tensor([1, 1, 3]),
        modulator=torch.ones(3, 3),
        forwards=torch.tensor([3, 3, 1]),
        num_images=2,
        config=MiningConfig(max_steps=3),
        near=near,
    )


def test_a_picture_of_a_batch_at_its_own_size(batch):
    found = of_picture(batch, 0, (2, 3))
    assert found.pairs.tolist() == [[0, 0], [0, 2]]
    assert torch.equal(found.step_map, batch.step_map[:2])
    assert found.num_images == 1
    large = of_picture(batch, 1, (4, 9))
    assert large.pairs.tolist() == [[0, 1]]
    assert torch.equal(
        large.step_map[0], batch.step_map[2].repeat_interleave(2, 0).repeat_interleave(3, 1)
    )
    assert torch.equal(large.scores > 0, large.masks)
    assert large.near.shape == (1, 4, 9)
    assert batch.pairs.tolist() == [[0, 0], [0, 2], [1, 1]]  # it is as it was
    nothing = of_picture(batch, 2, (5, 7))
    assert nothing.masks.shape == (0, 5, 7)
    assert pseudo_label_map(nothing, PseudoLabelConfig()).tolist() == [[0] * 7] * 5
    ignored = pseudo_label_map(nothing, PseudoLabelConfig(empty="ignore"))
    assert ignored.dtype == np.uint8
    assert (ignored == 255).all()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [[1, 3, 3], [1, 0, 0]]),
        ({"conflict": "smaller"}, [[1, 3, 3], [1, 0, 0]]),
        ({"conflict": "ignore"}, [[1, 255, 3], [1, 0, 0]]),
        ({"steps": 1}, [[1, 3, 3], [0, 0, 0]]),
        ({"band": 0.5}, [[1, 3, 3], [1, 255, 0]]),
        ({"band": 0.3}, [[1, 3, 3], [1, 255, 255]]),
    ],
)
def test_the_rules_of_label_maps(batch, config, expected):
    found = pseudo_label_map(of_picture(batch, 0, (2, 3)), PseudoLabelConfig(**config))
    assert found.tolist() == expected


def test_saliency_comes_last(batch):
    saliency = np.array([[1.0, 0.4, 0.5], [0.2, 0.9, 0.0]], np.float32)
    found = of_picture(batch, 0, (2, 3))
    labels = pseudo_label_map(found, PseudoLabelConfig(), saliency=saliency)
    assert labels.tolist() == [[1, 255, 3], [255, 255, 0]]
    lower = PseudoLabelConfig(saliency_threshold=0.2)
    assert pseudo_label_map(found, lower, saliency=saliency).tolist() == [[1, 3, 3], [1, 255, 0]]


def test_activations_alone_cut_at_thresholds():
    """Against the definition in NumPy, pixel by pixel."""
    cams = torch.tensor([[[2.0, -1.0], [1.0, 0.5]], [[0.1, 0.4], [0.2, 0.3]]])
    classes, thresholds = torch.tensor([1, 4]), torch.tensor([0.0, 0.3, 0.6, 0.9])
    found = seed_label_maps(cams, classes, (2, 2), thresholds).numpy()
    rectified = np.maximum(cams.numpy(), 0)
    shares = rectified / rectified.max((1, 2), keepdims=True)
    for t, threshold in enumerate(thresholds.tolist()):
        for y in range(2):
            for x in range(2):
                best = max(range(2), key=lambda p: (shares[p, y, x], -p))
                expected = [2, 5][best] if shares[best, y, x] > np.float32(threshold) else 0
                assert found[t, y, x] == expected
    equal = seed_label_maps(torch.ones(2, 2, 2), classes, (4, 4), thresholds)
    assert (equal == 2).all()  # the lower class
    assert (seed_label_maps(cams[:0], classes[:0], (3, 2), thresholds) == 0).all()


# The random field


@pytest.fixture
def square():
    """Return a bright square on dark ground, and labels that have only its middle."""
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 50), np.uint8)
    truth[10:30, 10:40] = 7
    pixels = np.where(truth[..., None] > 0, 200, 60) + rng.normal(0, 8, (40, 50, 3))
    labels = np.zeros_like(truth)
    labels[13:27, 14:36] = 7
    labels[0] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8), labels, truth


def test_labels_follow_the_colours(square):
    pytest.importorskip("pydensecrf", reason="the extra crf is not installed")
    image, labels, truth = square
    found = dense_crf(image, labels, CrfConfig(iterations=10))
    assert found.dtype == np.uint8
    assert {*np.unique(found)} == {0, 7, 255}
    assert (found[0] == 255).all()
    both, either = ((found == 7) & (truth == 7)).sum(), ((found == 7) | (truth == 7)).sum()
    assert both / either > 0.95  # 0.51 before


def test_nothing_to_decide_needs_no_library(square, monkeypatch):
    image, labels, _ = square
    without_library(monkeypatch)
    assert dense_crf(image, labels, CrfConfig()) is labels
    one = np.where(labels == 255, 255, 3).astype(np.uint8)
    assert dense_crf(image, one, CrfConfig(iterations=10)) is one


def test_without_the_library_one_sentence_says_what_to_do(square, monkeypatch):
    image, labels, _ = square
    without_library(monkeypatch)
    require_crf(CrfConfig())
    for call in (require_crf, lambda config: dense_crf(image, labels, config)):
        with pytest.raises(ImportError, match=r"needs an extra: pip install foveal\[crf\]; 0 does"):
            call(CrfConfig(iterations=1))


def without_library(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kw):
        if name.startswith("pydensecrf"):
            raise ImportError(name)
        return original(name, *args, **kw)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_pictures_of_another_size_are_refused(square):
    image, labels, _ = square
    with pytest.raises(
        ValueError, match=r"must be \[H, W, 3\] of the labels' size, not \[39, 50, 3"
    ):
        dense_crf(image[1:], labels, CrfConfig(iterations=1))
