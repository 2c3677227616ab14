"""The picture of attention collapse, and which runs have one."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import foveal
from foveal.explanation import attention_collapse
from foveal.tasks import collapse_figure
from foveal.tasks.collapse_figure import draw_collapse

SMALL = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "num_heads": 3}


@pytest.fixture
def canvas(monkeypatch):
    """Return a list that gets each figure drawn."""
    kept = []
    original = collapse_figure.save_figure

    def keep(figure, *rest):
        kept.append(figure)
        return original(figure, *rest)

    monkeypatch.setattr(collapse_figure, "save_figure", keep)
    return kept


def panels(figure):
    """Return the two matrices and the three curves."""
    axes = [ax for ax in figure.axes if ax.get_title()]
    return axes[:2], axes[2:]


def test_matrices_and_curves_show_the_measures(canvas, tmp_path):
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL, depth=5)
    for block in network.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.7)
    found = attention_collapse(network, [torch.randn(3, 3, 24, 24)], window=3)
    figure = draw_collapse(found, tmp_path)
    (maps, features), (alike, rank, heads) = panels(canvas[0])
    for axes, values in ((maps, found.attention_similarity), (features, found.feature_similarity)):
        (image,) = axes.images
        drawn = np.ma.filled(image.get_array(), np.nan)
        np.testing.assert_array_equal(drawn, values.numpy())
        low, high = image.get_clim()
        assert low <= np.nanmin(drawn)
        assert high == 1
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("block", "block")
    curves = [line.get_ydata() for line in alike.lines]
    for drawn, values in zip(
        curves,
        (found.attention_similarity, found.similar_share, found.feature_similarity),
        strict=True,
    ):
        np.testing.assert_array_equal(drawn, values.diagonal(-1))
    np.testing.assert_array_equal(rank.lines[0].get_ydata(), found.effective_rank)
    np.testing.assert_array_equal(heads.lines[0].get_ydata(), found.head_diversity)
    for axes in (alike, rank, heads):  # nothing lies outside
        low, high = axes.get_ylim()
        assert all(low <= y <= high for line in axes.lines for y in line.get_ydata())
        assert axes.get_xlabel() == "block"
    assert f"above 0.9 with the block before: {found.similar_blocks} of 5 are" in figure.caption
    assert "between the patch tokens" in figure.caption
    with Image.open(tmp_path / "collapse.png") as image:
        assert min(image.size) > 500


def test_negative_similarities_have_a_scale_around_zero(canvas, tmp_path):
    torch.manual_seed(0)
    network = foveal.create_model(
        "deepvit", img_size=24, patch_size=8, embed_dim=24, depth=4, num_heads=3, num_classes=4
    )
    found = attention_collapse(network, [torch.randn(3, 3, 24, 24)])
    assert found.attention_similarity.min() < 0
    draw_collapse(found, tmp_path)
    (maps, _), (alike, *_) = panels(canvas[0])
    assert maps.images[0].get_clim() == (-1, 1)
    assert alike.get_ylim()[0] < found.with_previous.min()


def test_a_network_that_is_not_finite_is_drawn(canvas, tmp_path):
    network = VisionTransformer(**SMALL, depth=2)
    nn.init.constant_(network.blocks[0].mlp.fc2.bias, math.nan)
    draw_collapse(attention_collapse(network, [torch.randn(1, 3, 24, 24)]), tmp_path)
    assert (tmp_path / "collapse.png").stat().st_size > 0


@pytest.mark.parametrize(("depth", "drawn"), [(2, True), (1, False)])
def test_runs_of_vision_transformers_have_it(config, replaced, depth, drawn):
    args = {"patch_size": 8, "img_size": 24, "embed_dim": 24, "num_heads": 3, "depth": depth}
    run = foveal.train(replaced(config, model="vit_tiny_patch16_224", model_args=args, max_steps=1))
    assert (run.path / "figures" / "collapse.png").exists() == drawn
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert ("How alike the blocks are" in page) == drawn
    assert ("Measured on 15 test pictures" in page) == drawn  # all there are
