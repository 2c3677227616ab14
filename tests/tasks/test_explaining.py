"""``foveal.explain``: from a run and pictures to maps over them, figures and data."""

import json
import os
import shutil
import weakref

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import foveal
from foveal.cli import main
from foveal.cli.explain import METHODS as COMMAND_METHODS
from foveal.data.transforms import Preprocess, WholePreprocess
from foveal.explanation import METHODS, deletion_insertion, read_gates
from foveal.tasks.explaining import explain
from foveal.tasks.explanation_files import explain_files, save_gates
from foveal.tasks.prediction import open_source


class Brightness(nn.Module):
    """Logits [B, 2]: the mean of a map that is the picture's red, and minus it; 40 pixels."""

    def __init__(self, crop_pct=1.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.head.weight)
        self.classes = ("red", "green")
        zero, one = (0.0,) * 3, (1.0,) * 3
        self.preprocess = Preprocess(image_size=40, mean=zero, std=one, crop_pct=crop_pct)

    def forward(self, x):
        return self.head(self.pool(self.conv(x)).flatten(1))


def half_red(width, height):
    """A picture whose right half is red and whose left half is green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :, 0] = 255
    pixels[:, : width // 2, 1] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(40, 40), (80, 80), (120, 60), (60, 120), (30, 20)])
def test_maps_lie_over_the_picture_at_its_size(size):
    picture = half_red(*size)
    red, green = (explain(Brightness(), picture, method="cam", target=t)[0] for t in (0, "green"))
    assert red.map.shape == green.map.shape == (size[1], size[0])
    assert (red.target, green.target) == (0, 1)
    middle, width = size[1] // 2, size[0]
    # Inside what the network saw, the middle square, and away from borders.
    side = min(size) // 2 - 3
    right, left = width // 2 + 2, width // 2 - 3
    assert red.map[middle, right : width // 2 + side].min() > 0.9
    assert red.map[middle, width // 2 - side : left].max() < 0.1
    assert green.map[middle, width // 2 - side : left].min() > 0.9


def test_a_map_of_a_large_picture_is_made_when_it_is_asked_for():
    found = explain(Brightness(crop_pct=0.5), half_red(3000, 2000), method="cam", target="all")
    assert [one.raw.untyped_storage().nbytes() for one in found] == [2 * 40 * 40 * 4] * 2
    assert found[1].map.shape == (2000, 3000)


def test_no_more_pictures_are_open_than_are_explained_together(tmp_path, monkeypatch):
    monkeypatch.setattr("foveal.tasks.explaining.TOGETHER", 2)
    for number in range(12):
        half_red(40, 40).save(tmp_path / f"{number}.png")
    opened, alive = [], []

    def opening(source):
        picture = open_source(source)
        opened.append(weakref.ref(picture[1]))
        alive.append(sum(one() is not None for one in opened))
        return picture

    monkeypatch.setattr("foveal.tasks.explaining.open_source", opening)
    assert len(explain(Brightness(), tmp_path, method="cam")) == 12
    assert len(opened) == 12
    assert max(alive) <= 2 + 2 + 1  # explained, being explained, and the next


def test_outside_what_the_network_sees_the_map_is_0():
    (wide,) = explain(Brightness(), half_red(160, 40), method="cam", target=0)
    assert not wide.map[:, 103:].any()  # it sees columns 60 to 99
    assert wide.map[:, 82:97].min() > 0.9
    (cropped,) = explain(Brightness(crop_pct=0.5), half_red(40, 40), method="cam", target=0)
    assert not cropped.map[:8].any()  # it sees the middle 20 rows and columns
    assert cropped.map[12:28, 23:28].min() > 0.9


def test_a_tensor_is_taken_as_prepared_and_targets_may_differ():
    x = torch.rand(3, 3, 40, 40)
    found = explain(Brightness(), x, method="cam", target=torch.tensor([0, 1, 0]))
    assert [one.target for one in found] == [0, 1, 0]
    torch.testing.assert_close(found[1].map, x[1, 1])
    pictures = [half_red(40, 40)] * 2
    found = explain(Brightness(), pictures, method="gradcam", target=["green", 0])
    assert [one.target for one in found] == [1, 0]
    found = explain(Brightness(), pictures, method="gradcam", target=np.array([1, 0]))
    assert [one.target for one in found] == [1, 0]
    assert len(explain(Brightness(), pictures, method="gradcam", target="all")) == 4
    with pytest.raises(ValueError, match=r"floating-point numbers .* not torch.uint8"):
        explain(Brightness(), (255 * x).to(torch.uint8))


def test_numbers_in_letters_are_names_of_classes_first():
    network = Brightness()
    network.classes = ("1", "0")  # as folders of digits may be in any order
    found = explain(network, [half_red(40, 40)] * 2, method="cam", target=["0", "1"])
    assert [one.target for one in found] == [1, 0]
    network.classes = ("red", "green")
    assert explain(network, half_red(40, 40), method="cam", target="1")[0].target == 1


def test_any_network_of_timm_prepares_pictures_as_timm_says():
    network = timm.create_model("test_vit", num_classes=5)
    (one,) = explain(network, half_red(100, 70), method="rollout")
    assert one.map.shape == (70, 100)
    assert one.target is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "gradcamm"}, "unknown method 'gradcamm': did you mean 'gradcam'"),
        ({"target": "gren"}, "unknown class 'gren': did you mean 'green'"),
        ({"target": 2}, "there is no class 2: the network has 2, 0 to 1"),
        ({"target": [0, 1]}, "one for each of the 1 pictures, not 2"),
        ({"target": [None]}, "cannot be asked for alone"),
        ({"method": "collapse"}, "use foveal.explanation.attention_collapse"),
        ({"method": "gates"}, "Brightness has no gates that lie over a picture"),
        ({"method": "gates", "target": 1}, "leave target out"),
        ({"layer": "conf"}, "did you mean 'conv'"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        explain(Brightness(), half_red(40, 40), **given)


def test_pictures_of_one_size_are_explained_together_and_others_apart():
    sizes, seen = [(40, 40), (80, 80), (64, 40), (40, 64)], []
    network = Brightness()
    network.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    pictures = [half_red(*size) for size in sizes]
    together = explain(network, pictures, method="scorecam", target=[[0, 1]] * 4)
    assert max(seen) >= 4  # all are prepared to 40 pixels
    assert [one.target for one in together] == [0, 1] * 4
    assert [one.size for one in together[::2]] == [(40, 40), (80, 80), (40, 64), (64, 40)]
    alone = [explain(network, p, method="scorecam", target=t)[0] for p in pictures for t in (0, 1)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.map, other.map)
    network.preprocess = WholePreprocess(image_size=40, mean=(0.0,) * 3, std=(1.0,) * 3)
    together = explain(network, pictures, method="cam", target=0)
    assert [one.map.shape for one in together] == [(40, 40), (80, 80), (40, 64), (64, 40)]
    with pytest.raises(ValueError, match="the same number of classes for each picture"):
        explain(network, pictures[:2], method="cam", target=[[0], [0, 1]])


def test_gates_are_maps_of_every_layer_that_has_some():
    network = foveal.create_model("resnet18_triplet", num_classes=5).eval()
    x = torch.rand(2, 3, 64, 96)
    found = explain(network, x, method="gates")
    read = [one for one in read_gates(network, x) if one.map is not None]
    assert [one.layer for one in found] == [one.layer for one in read] * 2
    torch.testing.assert_close(found[len(read)].raw, read[0].map[1])
    assert found[0].map.shape == (64, 96)
    assert found[0].target is None
    (first, *_) = explain(network, half_red(90, 70), method="gates", kinds=["triplet"])
    assert first.map.shape == (70, 90)


def test_the_command_knows_all_methods():
    assert set(COMMAND_METHODS) == {*METHODS, "collapse"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run on fashion whose network has triplet attention."""
    out = tmp_path_factory.mktemp("explained") / "run"
    return foveal.train(
        foveal.ClassifyConfig(
            data=foveal.config.DataConfig(image_size=32, batch_size=16, workers=0),
            model="resnet18_triplet",
            model_args={"stem_stride": 1, "channels": [8, 8, 16, 16]},
            max_steps=1,
            device="cpu",
            out=str(out),
        )
    )


def test_the_command_writes_figures_and_data(run, tmp_path):
    for name, size in (("a", (50, 40)), ("b", (32, 32))):
        half_red(*size).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    words = ["explain", str(run.path), str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main([*words, "--method", "gradcam++", "--target", "Bag", "--out", str(out)]) == 0
    rows = json.loads((out / "explanations.json").read_text())
    assert [row["class"] for row in rows] == ["Bag", "Bag"]
    with np.load(out / "explanations.npz") as arrays:
        assert [arrays[row["array"]].shape for row in rows] == [(40, 50), (32, 32)]
    with Image.open(out / "explanations.png") as drawn:
        assert drawn.size[0] > 200
    several = [*words, "--target", "Bag", "3", "--scales", "0.5", "1", "--mirror"]
    assert main([*several, "--faithfulness", "--out", str(out)]) == 0
    rows = json.loads((out / "explanations.json").read_text())
    assert [row["target"] for row in rows] == [8, 3] * 2
    network = run.load()
    with Image.open(tmp_path / "b.png") as picture:
        x = network.preprocess(picture.convert("RGB"))[None]
    with np.load(out / "explanations.npz") as arrays:  # b is as large as what the network sees
        maps = torch.from_numpy(arrays[rows[3]["array"]])[None]
    expected = deletion_insertion(network, x, maps, 3)
    assert rows[3]["deletion"] == pytest.approx(expected.deletion.item(), abs=1e-5)
    assert rows[3]["insertion"] == pytest.approx(expected.insertion.item(), abs=1e-5)
    assert main([*words, "--method", "gates", "--out", str(out)]) == 0
    with np.load(out / "gates.npz") as arrays:
        assert any(name.endswith("parts/hw") for name in arrays)
    assert (out / "gates.png").exists()


def test_faithfulness_of_several_labels_is_that_of_the_sigmoid(run, tmp_path):
    several = shutil.copytree(run.path, tmp_path / "several")
    config = (several / "config.yaml").read_text()
    (several / "config.yaml").write_text(config.replace("multi_label: false", "multi_label: true"))
    picture = half_red(32, 32)
    for folder, score in ((run.path, "softmax"), (several, "sigmoid")):
        explain_files(folder, picture, tmp_path, method="cam", target=3, faithfulness=True)
        (row,) = json.loads((tmp_path / "explanations.json").read_text())
        with np.load(tmp_path / "explanations.npz") as arrays:
            maps = torch.from_numpy(arrays[row["array"]])[None]
        network = run.load()
        x = network.preprocess(picture)[None]
        expected = deletion_insertion(network, x, maps, 3, score=score)
        assert row["deletion"] == pytest.approx(expected.deletion.item(), abs=1e-5)


def test_files_of_any_name_and_a_class_asked_for_twice(run, tmp_path):
    half_red(32, 32).save(tmp_path / "b.png")
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    try:
        os.rename(tmp_path / "b.png", odd)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    explain_files(run, os.fsdecode(odd), tmp_path / "out", method="cam", target=["Bag", 8])
    rows = json.loads((tmp_path / "out" / "explanations.json").read_text())
    with np.load(tmp_path / "out" / "explanations.npz") as arrays:
        assert arrays.files == [rows[0]["array"]] == [rows[1]["array"]]
        (expected, _) = explain(run, os.fsdecode(odd), method="cam", target=[["Bag", 8]])
        np.testing.assert_allclose(arrays[arrays.files[0]], expected.map, rtol=1e-4, atol=1e-6)


def test_the_command_refuses_what_the_network_does_not_have(run, tmp_path, capsys):
    half_red(32, 32).save(tmp_path / "a.png")
    words = ["explain", str(run.path), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--method", "collapse"]) == 2
    assert "has no attention whose maps can be read" in capsys.readouterr().err
    assert main([*words, "--method", "gates", "--target", "Bag"]) == 2
    assert "leave target out" in capsys.readouterr().err
    assert main([*words, "--method", "gates", "--mirror"]) == 2
    assert "leave mirror out" in capsys.readouterr().err
    assert main([*words, "--heads", "max"]) == 2
    assert "unknown gradcam option 'heads'" in capsys.readouterr().err
    assert main([*words, "--target", "Bagg"]) == 2
    assert "did you mean 'Bag'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_gates_of_a_network_for_several_tasks_are_the_levels_that_each_takes(tmp_path):
    network = foveal.create_model("dfi", backbone="test_resnet").eval()
    network.preprocess = WholePreprocess(image_size=64)
    written = save_gates(network, [half_red(70, 64), half_red(64, 90)], tmp_path)
    assert [path.name for path in written] == ["gates.npz", "choices.png"]
    with np.load(tmp_path / "gates.npz") as arrays:
        chosen = [arrays[name] for name in arrays.files if name.endswith("edge_selected")]
    assert chosen
    assert all(each.sum() == 3 for each in chosen)  # of six levels
