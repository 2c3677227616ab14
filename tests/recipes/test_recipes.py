"""The recipes train."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal.recipes import RECIPES
from foveal.tasks import make_setup

# True ImageNet-1k indices of four classes; the folders below have only two of them.
TSV = "index\twnid\tname\n0\tn01440764\ttench\n1\tn01443537\tgoldfish\n"
TSV += "2\tn01484850\tgreat white shark\n3\tn01491361\ttiger shark\n"


@pytest.fixture
def miniature_imagenet(tmp_path):
    """Write train and val with two wnids each, as ImageNet lies on disk."""
    root = tmp_path / "imagenet"
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for wnid in ("n01443537", "n01491361"):
            (root / part / wnid).mkdir(parents=True)
            for i in range(3):
                array = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(array).save(root / part / wnid / f"{wnid}_{part}_{i}.JPEG")
    (root / "classes.tsv").write_text(TSV)
    return root


def test_coordinate_imagenet_on_a_miniature_with_true_class_indices(miniature_imagenet, tmp_path):
    recipe = RECIPES["coordinate_imagenet"]()
    assert (recipe.epochs, recipe.schedule, recipe.weight_decay) == (200, "cosine", 4e-5)
    data = dataclasses.replace(
        recipe.data, root=str(miniature_imagenet), image_size=32, batch_size=3, workers=0
    )
    config = dataclasses.replace(
        recipe, data=data, max_steps=2, device="cpu", out=str(tmp_path / "run")
    )
    setup = make_setup(config)
    assert setup.classes == ("tench", "goldfish", "great white shark", "tiger shark")
    assert sorted(set(setup.splits["train"].targets.tolist())) == [1, 3]
    run = foveal.train(config)
    assert foveal.load(run).classifier.out_features == 4
    assert 0 <= run.metrics["test/accuracy"] <= 1


def test_triplet_recipes_have_the_settings_of_the_authors_scripts():
    resnet = RECIPES["triplet_resnet50_imagenet"]()
    assert (resnet.epochs, resnet.data.batch_size, resnet.lr) == (100, 256, 0.1)
    assert (resnet.weight_decay, resnet.seed, resnet.warmup_epochs) == (1e-4, 1234, 0)
    mobile = RECIPES["triplet_mobilenetv2_imagenet"]()
    assert (mobile.epochs, mobile.data.batch_size, mobile.lr) == (400, 96, 0.045)
    assert (mobile.weight_decay, mobile.seed, mobile.warmup_epochs) == (4e-5, 1234, 0)
    assert mobile.model_args == {"drop_rate": 0.25}


def test_triplet_resnet50_imagenet_on_a_miniature(miniature_imagenet, tmp_path):
    recipe = RECIPES["triplet_resnet50_imagenet"]()
    data = dataclasses.replace(
        recipe.data, root=str(miniature_imagenet), image_size=32, batch_size=3, workers=0
    )
    out = str(tmp_path / "run")
    run = foveal.train(dataclasses.replace(recipe, data=data, max_steps=1, device="cpu", out=out))
    network = foveal.load(run)
    assert type(network.layer1[0].se).__name__ == "TripletAttention"
    assert 0 <= run.metrics["test/accuracy"] <= 1


def test_mobilenext_imagenet_on_a_miniature(miniature_imagenet, tmp_path):
    recipe = RECIPES["mobilenext_imagenet"]()
    assert (recipe.model, recipe.epochs, recipe.warmup_epochs) == ("mobilenext_100", 200, 3)
    assert (recipe.lr, recipe.weight_decay, recipe.momentum) == (0.1, 1e-4, 0.9)
    assert recipe.loss_args == {"label_smoothing": 0.1}
    assert recipe.augment.color_jitter == 0.4
    assert not any([recipe.ema, recipe.augment.mixup, recipe.augment.erasing])
    data = dataclasses.replace(
        recipe.data, root=str(miniature_imagenet), image_size=32, batch_size=3, workers=0
    )
    config = dataclasses.replace(
        recipe, data=data, max_steps=1, device="cpu", out=str(tmp_path / "run")
    )
    network = foveal.load(foveal.train(config))
    assert network.classifier.out_features == 4
    assert network.drop_rate == 0.2


def test_the_demo_recipe_starts(tmp_path):
    demo = RECIPES["demo"]()
    assert demo.data.root is None
    data = dataclasses.replace(demo.data, workers=0, batch_size=16)
    run = foveal.train(
        dataclasses.replace(demo, data=data, max_steps=1, device="cpu", out=str(tmp_path / "demo"))
    )
    assert (run.path / "figures" / "gates.png").exists()
