"""Runs of vision transformers: re-attention in them, similarity of maps as a second loss."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

import foveal
from foveal.config import ClassifyConfig, Insertion
from foveal.layers import ReAttention
from foveal.tasks.classify import ClassifySetup
from foveal.tasks.run import build_model

REATTENTION = Insertion(layer="reattention", where="blocks.[45].attn", layer_args={"norm": "batch"})


@pytest.fixture
def vit(config):
    data = dataclasses.replace(config.data, image_size=32)
    return dataclasses.replace(
        config, data=data, model="test_vit", model_args={"img_size": 32}, epochs=1, ema=False
    )


def test_a_run_trains_loads_scores_and_exports_with_re_attention(vit, tmp_path, capsys):
    run = foveal.train(dataclasses.replace(vit, insert=(REATTENTION,)))
    assert "re-attention in place of attention (where: blocks.[45].attn)" in capsys.readouterr().out
    weights, model = load_file(run.path / "best.safetensors"), run.load()
    kinds = [isinstance(block.attn, ReAttention) for block in model.blocks]
    assert kinds == [False] * 4 + [True] * 2
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert weights["blocks.5.attn.tokens"] == model.patch_embed.num_patches + 1
    assert weights["blocks.5.attn.var_norm.num_batches_tracked"] == 5  # batches of 6 from 30
    assert json.loads(model.metadata["insert"])[0]["layer"] == "reattention"
    scores = foveal.evaluate(run).scores
    assert scores["test/accuracy"] == pytest.approx(run.metrics["test/accuracy"])
    report = foveal.export(run, "torch", tmp_path / "net.pt2")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        exported = torch.export.load(report.path).module()(x)
        torch.testing.assert_close(exported, model(x), rtol=1e-4, atol=1e-5)


def test_checkpoints_of_the_plain_network_and_of_one_with_re_attention(vit, tmp_path):
    plain = foveal.create_model("test_vit", img_size=32, num_classes=3)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    config = dataclasses.replace(vit, insert=(REATTENTION,), checkpoint=str(tmp_path / "plain.pth"))
    model = build_model(config, "abc")
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in plain.state_dict().items())
    model.blocks[4].attn.tokens.fill_(7)
    torch.save(model.state_dict(), tmp_path / "all.pth")
    again = build_model(dataclasses.replace(config, checkpoint=str(tmp_path / "all.pth")), "abc")
    assert all(torch.equal(own[key], value) for key, value in again.state_dict().items())
    other = dataclasses.replace(config, checkpoint=str(tmp_path / "all.pth"), insert=())
    with pytest.raises(ValueError, match=r"unexpected: blocks\.4\.attn\.\S+, "):
        build_model(other, "abc")


def test_the_similarity_of_maps_is_added_to_the_loss(vit):
    assert vit.augment.mixup > 0
    vit = dataclasses.replace(vit, model_args={"img_size": 32}, insert=(REATTENTION,))
    setup = ClassifySetup(vit)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = (x, torch.arange(6) % 3, torch.arange(6))

    def loss(**changes):
        torch.manual_seed(0)  # mixup's draw
        task = setup.task()
        task.config = dataclasses.replace(vit, **changes)
        return task.training_loss(batch)

    plain = loss()
    once, twice = loss(attention_similarity=1.0), loss(attention_similarity=2.0)
    released = loss(attention_similarity=1.0, attention_similarity_pairs=2) - plain
    torch.testing.assert_close(twice - plain, 2 * (once - plain), rtol=1e-4, atol=1e-5)
    # Maps of a fresh network are almost flat, and so the same; the last blocks' mixed ones are not.
    assert released.item() == pytest.approx(1, abs=0.05)
    assert 0 < (once - plain).item() < 0.9
    setup.model.zero_grad()
    once.backward()
    assert setup.model.blocks[5].attn.reatten_matrix.weight.grad.any()


def test_what_cannot_be_is_told_before_training(vit, config):
    with pytest.raises(
        ValueError, match=r"of 2 blocks, and those of 0 can be read in EfficientNet"
    ):
        foveal.train(dataclasses.replace(config, attention_similarity=0.1))
    few = dataclasses.replace(vit, attention_similarity=0.1, attention_similarity_pairs=6)
    with pytest.raises(ValueError, match=r"of 7 blocks, and those of 6 can be read in VisionTran"):
        foveal.train(few)
    with pytest.raises(ValueError, match="a compiled network does not show: leave compile out"):
        ClassifyConfig(attention_similarity=0.1, compile=True)
    with pytest.raises(ValueError, match="attention_similarity must be at least 0, not -1"):
        ClassifyConfig(attention_similarity=-1)
    with pytest.raises(ValueError, match="attention_similarity_pairs must be at least 1, not 0"):
        ClassifyConfig(attention_similarity_pairs=0)
