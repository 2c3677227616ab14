import shutil

import numpy as np
import pytest

from foveal.config import DENSE_TASKS
from foveal.data.check_maps import check_dense


def rows(*marked, shape=(8, 10)):
    pixels = np.zeros(shape, np.uint8)
    pixels[list(marked)] = 1
    return pixels


@pytest.fixture
def paint_maps(paint, paint_mask):
    def save(name, stems, values, seed=0):
        for k, stem in enumerate(stems):
            paint(f"{name}/images/{stem}.png", seed + k)
            paint_mask(f"{name}/maps/{stem}.png", values)

    return save


def test_sound_data(paint_maps, tmp_path):
    paint_maps("train", "abcd", [0, 0, 0, 51, 255, 0, 0, 0])
    paint_maps("val", "ef", [255, 0], seed=50)
    calls = []
    report = check_dense(
        tmp_path, task="edge", progress=lambda done, total: calls.append((done, total))
    )
    assert report.problems == ()
    assert not report.damaged
    assert report.positive == {"train": pytest.approx(1.2 / 8), "val": 0.5}
    assert report.empty == {"train": 0, "val": 0}
    assert report.pictures == {"train": 4, "val": 2, "test": 2}
    assert report.sizes == {(10, 8): 6}
    assert (report.modes, report.kinds) == ({"RGB": 6}, {"L": 6})
    assert calls == [(k, 6) for k in range(1, 7)]
    lines = str(report).splitlines()
    for line in (
        f"{tmp_path}: layout pairs, edge maps",
        "  val           2 pictures  folders val/images/ and val/maps/",
        "share of positive pixels, and pictures without any",
        "  train   15.000 %      0",
        "  val     50.000 %      0",
        "maps: L 6",
    ):
        assert line in lines
    assert lines[-1] == "no problems"


def test_everything_that_is_wrong(paint_maps, paint, paint_mask, tmp_path):
    stems = [f"{k:02}" for k in range(12)]
    paint_maps("train", stems, [0, 255])
    paint_maps("val", "xy", [0, 255], seed=50)
    images, maps = tmp_path / "train" / "images", tmp_path / "train" / "maps"
    (images / "00.png").write_bytes(b"")
    (maps / "01.png").write_bytes(b"no picture")
    paint("train/maps/02.png")  # colours
    paint_mask("train/maps/03.png", [0], size=(8, 10))
    (maps / "04.png").unlink()
    (images / "05.png").unlink()
    paint_mask("train/maps/06.png", [0])
    paint_mask("train/maps/07.png", [0, 255], size=(10, 9))
    shutil.copy(images / "08.png", tmp_path / "val" / "images" / "y.png")
    (images / "list.txt").touch()
    report = check_dense(tmp_path, task="saliency")
    assert report.damaged
    assert report.damaged_files == (
        f"{images}/00.png: the file is empty",
        f"{maps}/01.png: not a picture (of JPEG, PNG, GIF, BMP, TIFF, WEBP, PPM)",
    )
    assert report.wrong_values == (f"{maps}/02.png: has colours (mode RGB), where a map is grey",)
    assert len(report.sizes_differ) == 1
    assert report.sizes_differ[0].startswith(f"{images}/03.png: 10 by 8 pixels, but its map")
    assert report.problems == (
        f"{images}/04.png: there is no saliency map 04 in {maps}",
        f"{maps}/05.png: there is no picture 05 in {images}",
        "pictures or maps that will not open: 2",
        "pictures whose maps are of another size: 1",
        "maps with wrong values: 1",
        f"pictures found in more than one split: 1, such as {images}/08.png (train) = "
        f"{tmp_path}/val/images/y.png (val)",
    )
    assert report.notes == (
        f"pictures without any positive pixel: 1, such as {images}/06.png",
        "pictures scaled to their map, which is a pixel larger or smaller: 1, such as "
        f"{images}/07.png",
    )
    assert report.empty == {"train": 1, "val": 0}
    assert report.ignored == (f"{images}/list.txt",)
    text = str(report)
    assert f"wrong values: 1\n  {maps}/02.png: has colours" in text
    assert f"sizes that differ: 1\n  {images}/03.png" in text
    assert f"damaged: 2\n  {images}/00.png" in text


def test_annotators(paint, write_edges, tmp_path):
    data = "BSDS500/data"
    for split, stem in (
        ("train", "a"),
        ("train", "b"),
        ("train", "c"),
        ("val", "d"),
        ("test", "e"),
    ):
        paint(f"{data}/images/{split}/{stem}.jpg", ord(stem))
        write_edges(f"{data}/groundTruth/{split}/{stem}.mat", rows(1, 2), rows(1))
    write_edges(f"{data}/groundTruth/train/b.mat", rows(1), rows(), rows(1))
    write_edges(f"{data}/groundTruth/train/c.mat", rows(), rows())
    (tmp_path / data / "groundTruth" / "val" / "d.mat").write_bytes(b"x" * 200)
    report = check_dense(tmp_path / "BSDS500")
    assert (report.layout, report.task) == ("bsds500", "edge")
    # a: 1.5 of 8 rows, b: two thirds of a row, c: nothing
    assert report.positive["train"] == pytest.approx((1.5 + 2 / 3) / 24)
    assert report.kinds == {"2 annotators": 3, "3 annotators": 1}
    images = tmp_path / data / "images" / "train"
    assert report.notes == (
        f"pictures without any positive pixel: 1, such as {images}/c.jpg",
        f"annotators who marked nothing: 1, such as one of {images}/b.jpg",
    )
    assert len(report.damaged_files) == 1
    assert "d.mat: will not read as a MATLAB file" in report.damaged_files[0]


def test_too_few_to_divide_is_listed_not_raised(paint_maps, tmp_path):
    paint_maps(".", "a", [0, 255])
    report = check_dense(tmp_path, task="skeleton")
    assert len(report.problems) == 1
    assert "too few pictures for the splits" in report.problems[0]
    assert report.pictures == {"all": 1}


def test_nothing_but_partners_missing(paint, tmp_path):
    paint("images/a.png")
    (tmp_path / "maps").mkdir()
    report = check_dense(tmp_path, task="edge")
    assert report.problems == (
        f"{tmp_path}/images/a.png: there is no edge map a in {tmp_path}/maps",
    )
    assert "layout pairs, edge maps" in str(report)


@pytest.mark.parametrize("task", DENSE_TASKS)
def test_scenes(task, few_scenes):
    report = check_dense(None, task=task)
    assert report.root is None
    assert report.pictures == {"train": 6, "val": 4, "test": 4}
    assert all(0 < share < 0.6 for share in report.positive.values())
    assert str(report).startswith(f"built-in pictures: layout scenes, {task} maps")


def test_real_packs(pack):
    report = check_dense(pack("saliency-standin"))
    assert report.problems == ()
    assert report.kinds == {"L": 162}
    report = check_dense(pack("skeleton-standin"))
    assert report.problems == ()
    assert report.kinds == {"1 annotator": 162}
