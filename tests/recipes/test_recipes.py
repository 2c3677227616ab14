"""The recipes train."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foveal.recipes import RECIPES
from foveal.tasks import make_setup

MULTISTEP = "multistep"
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
    assert (resnet.schedule, resnet.milestones, resnet.decay_rate) == (MULTISTEP, (30, 60, 90), 0.1)
    mobile = RECIPES["triplet_mobilenetv2_imagenet"]()
    assert (mobile.epochs, mobile.data.batch_size, mobile.lr) == (400, 96, 0.045)
    assert (mobile.weight_decay, mobile.seed, mobile.warmup_epochs) == (4e-5, 1234, 0)
    assert mobile.model_args == {"drop_rate": 0.25}
    assert (mobile.schedule, len(mobile.milestones), mobile.decay_rate) == (MULTISTEP, 399, 0.98)


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


@pytest.mark.parametrize(
    ("name", "mixing", "similarity", "amp", "depth"),
    [
        ("deepvit_small_imagenet", (0.8, 1.0), (0.0, None), "no", 6),
        ("deepvit_32_imagenet", (0.1, 0.0), (0.1, 12), "fp16", 13),  # 12 pairs of blocks
    ],
)
def test_deepvit_recipes_on_a_miniature(
    name, mixing, similarity, amp, depth, miniature_imagenet, tmp_path
):
    recipe = RECIPES[name]()
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adamw", 5e-4, 0.05)
    assert (recipe.schedule, recipe.epochs, recipe.warmup_epochs) == ("cosine", 300, 5)
    assert (recipe.data.batch_size, recipe.accumulate) == (32, 8)
    augment = recipe.augment
    assert (augment.randaugment, augment.color_jitter, augment.erasing) == (9, 0.4, 0.25)
    assert (augment.mixup, augment.cutmix) == mixing
    assert recipe.loss_args == {"label_smoothing": 0.1}
    assert (recipe.attention_similarity, recipe.attention_similarity_pairs) == similarity
    assert (recipe.ema, recipe.ema_decay, recipe.amp) == (True, 0.99996, amp)
    assert recipe.model_args == {"drop_path_rate": 0.2}
    assert not recipe.clip_grad
    data = dataclasses.replace(
        recipe.data, root=str(miniature_imagenet), image_size=32, batch_size=3, workers=0
    )
    # The network of the name, but narrower, of fewer blocks and for smaller pictures.
    network = {**recipe.model_args, "img_size": 32, "embed_dim": 36, "depth": depth}
    config = dataclasses.replace(
        recipe,
        data=data,
        model_args=network,
        accumulate=1,
        max_steps=1,
        amp="no",
        device="cpu",
        out=str(tmp_path / "run"),
    )
    run = foveal.train(config)
    loaded = foveal.load(run)
    assert loaded.head.out_features == 4
    assert loaded.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert 0 <= run.metrics["test/accuracy"] <= 1


def test_the_demo_recipe_starts(tmp_path):
    demo = RECIPES["demo"]()
    assert demo.data.root is None
    data = dataclasses.replace(demo.data, workers=0, batch_size=16)
    run = foveal.train(
        dataclasses.replace(demo, data=data, max_steps=1, device="cpu", out=str(tmp_path / "demo"))
    )
    assert (run.path / "figures" / "gates.png").exists()


def test_ols_cifar100_on_a_miniature(tmp_path):
    recipe = RECIPES["ols_cifar100"]()
    assert (recipe.epochs, recipe.data.batch_size, recipe.seed) == (300, 128, 2019)
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("sgd", 0.1, 5e-4)
    assert (recipe.schedule, recipe.milestones, recipe.decay_rate) == (MULTISTEP, (150, 225), 0.1)
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        labels = [0, 1, 2] * 4
        data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        content = {"data": data, "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        (folder / name).write_bytes(pickle.dumps(content))
    names = [f"class {k}" for k in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    data = dataclasses.replace(recipe.data, root=str(tmp_path), batch_size=4, workers=0)
    run = foveal.train(
        dataclasses.replace(recipe, data=data, max_steps=1, device="cpu", out=str(tmp_path / "run"))
    )
    network = foveal.load(run)
    assert network.conv1.stride == (1, 1)
    assert network.fc.out_features == 100
    assert (run.path / "figures" / "soft_labels.png").exists()


def test_ols_finegrained_on_a_miniature(tmp_path):
    recipe = RECIPES["ols_finegrained"]()
    assert (recipe.epochs, recipe.data.batch_size, recipe.pretrained) == (100, 64, True)
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("momentum", 0.01, 1e-4)
    assert (recipe.schedule, recipe.milestones) == (MULTISTEP, (45, 80))
    root = tmp_path / "CUB_200_2011"
    (root / "images").mkdir(parents=True)
    birds = ["001.Auk", "002.Booby"]
    names = [f"{bird}/{bird[4:]}_{i}.jpg" for bird in birds for i in range(8)]
    lists: dict[str, list[str]] = {
        "images.txt": names,
        "image_class_labels.txt": [name[2] for name in names],
        "train_test_split.txt": [str(int(i % 8 < 5)) for i in range(len(names))],
        "classes.txt": birds,
    }
    for file, entries in lists.items():
        lines = [f"{i} {entry}\r\n" for i, entry in enumerate(entries, start=1)]
        (root / file).write_text("".join(lines))
    rng = np.random.default_rng(0)
    for name in names:
        (root / "images" / name).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / name)
    data = dataclasses.replace(recipe.data, root=str(root), image_size=32, batch_size=4, workers=0)
    config = dataclasses.replace(
        recipe,
        data=data,
        model="test_resnet",
        pretrained=False,
        max_steps=2,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    run = foveal.train(config)
    assert foveal.load(run).classes == ("Auk", "Booby")


def test_ols_imagenet_has_what_is_known_of_its_settings():
    recipe = RECIPES["ols_imagenet"]()
    assert (recipe.model, recipe.loss) == ("resnet50", "online_label_smoothing")
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("sgd", 0.1, 1e-4)
    assert recipe.milestones == (75, 150, 225, 250)
    assert recipe.augment.color_jitter == 0.4


def test_spnet_recipes_have_the_settings_of_the_released_configurations():
    ade, city = RECIPES["spnet_ade20k"](), RECIPES["spnet_cityscapes"]()
    assert (ade.epochs, city.epochs) == (120, 180)
    assert (ade.lr, city.lr) == (0.01, 0.005)
    assert (ade.data.image_size, city.data.image_size) == (480, 768)
    assert (ade.data.batch_size, city.data.batch_size) == (16, 8)
    assert (ade.augment.min_scale, ade.augment.max_scale, ade.augment.rotate) == (0.5, 2.0, 10)
    assert (city.augment.min_scale, city.augment.max_scale, city.augment.rotate) == (0.5, 1.75, 1)
    assert (ade.sliding.long_side, city.sliding.long_side) == (512, 2048)
    for recipe in (ade, city):
        assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("momentum", 0.9, 1e-4)
        assert (recipe.schedule, recipe.warmup_epochs) == ("poly", 0)
        assert (recipe.aux_weight, recipe.head_lr_scale) == (0.4, 10)
        assert (recipe.augment.blur, recipe.augment.hflip) == (0.5, 0.5)
        assert (recipe.sliding.flip, recipe.sliding.scales) == (True, (1.0,))
        assert recipe.sliding.window == recipe.data.image_size
        assert recipe.loss == "cross_entropy"


@pytest.mark.parametrize("name", ["spnet_ade20k", "camvid_small"])
def test_segmentation_recipes_on_a_miniature(name, tmp_path):
    """Tiny backbones and pictures; the layout is one for any folders of pictures and masks."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for folder in ("images", "masks"):
            (tmp_path / part / folder).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / "images" / f"{i}.png")
            labels = rng.integers(0, 3, (40, 50), dtype=np.uint8)
            Image.fromarray(labels).save(tmp_path / part / "masks" / f"{i}.png")
    recipe = RECIPES[name]()
    data = dataclasses.replace(
        recipe.data, root=str(tmp_path), layout="auto", image_size=32, batch_size=2, workers=0
    )
    sliding = dataclasses.replace(recipe.sliding, window=32, long_side=None)
    config = dataclasses.replace(
        recipe,
        data=data,
        sliding=sliding,
        backbone="test_resnet",
        max_steps=1,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    run = foveal.train(config)
    assert 0 <= run.metrics["test/miou"] <= 1
    assert len(foveal.load(run).classes) == 3


@pytest.mark.parametrize("name", ["spnet_ade20k", "spnet_cityscapes", "camvid_small"])
def test_networks_of_segmentation_recipes_can_be_built(name):
    recipe = RECIPES[name]()
    with torch.device("meta"):
        network = foveal.create_model(
            recipe.model, backbone=recipe.backbone, num_classes=19, **recipe.model_args
        )
    assert network.num_classes == 19


def test_dfi_joint_has_the_known_settings_of_the_authors_sibling_code():
    recipe = RECIPES["dfi_joint"]()
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adam", 5e-5, 5e-4)
    assert (recipe.data.batch_size, recipe.accumulate) == (3, 10)  # one picture of each set
    assert recipe.loss_args == {"reduction": "sum_per_image"}
    assert recipe.model_args == {"frozen_norm": True}
    assert recipe.inference.scales("saliency") == (1.0,)
    assert recipe.inference.scales("edge") == (0.5, 1.0, 1.5, 2.0)
    assert recipe.inference.scales("skeleton") == (0.5, 1.0, 1.5)


@pytest.mark.parametrize("name", ["dfi_joint", "dfi_small", "dfi_scenes"])
def test_dense_recipes_on_miniatures(name, tmp_path):
    rng = np.random.default_rng(0)
    for folder, mode in (("images", "RGB"), ("saliency", "L"), ("edge", "L"), ("skeleton", "L")):
        (tmp_path / "maps" / folder).mkdir(parents=True)
        for i in range(12):
            array = rng.integers(0, 256, (40, 50, 3) if mode == "RGB" else (40, 50))
            array = array if mode == "RGB" else 255 * (array > 200)
            picture = Image.fromarray(array.astype(np.uint8), mode)
            picture.save(tmp_path / "maps" / folder / f"{i}.png")
    recipe = RECIPES[name]()
    data = dataclasses.replace(
        recipe.data, root=str(tmp_path / "maps"), layout="auto", image_size=32, workers=0
    )
    scores = dataclasses.replace(recipe.scores, thresholds=3)
    out = str(tmp_path / "run")
    config = dataclasses.replace(
        recipe,
        data=data,
        scores=scores,
        accumulate=1,
        max_steps=1,
        backbone_args={"layers": (1, 1, 1, 1)} if name == "dfi_joint" else {},
        device="cpu",
        out=out,
    )
    run = foveal.train(config)
    assert foveal.load(run).tasks == ("saliency", "edge", "skeleton")
    assert 0 <= run.metrics["test/edge/ods"] <= 1
