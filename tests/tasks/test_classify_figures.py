"""Figures of classes and files with any name."""

import os

import pytest
from PIL import Image

import foveal


def paint_classes(root, names, file="{}.png"):
    for part in ("train", "val"):
        for k, name in enumerate(names):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(4):
                path = os.path.join(os.fsencode(folder), os.fsencode(file.format(i)))
                with open(path, "wb") as stream:
                    color = (90 * k + i, 200 * (part == "val"), 9)
                    Image.new("RGB", (24, 24), color).save(stream, "PNG")


@pytest.mark.parametrize("multi_label", [False, True])
def test_class_names_that_matplotlib_would_read_as_mathematics(
    config, replaced, tmp_path, multi_label
):
    names = ("$a^$", "$_$b", "c")
    root = tmp_path / "data"
    paint_classes(root, names)
    if multi_label:
        lines = [
            f"{p.relative_to(root)},{p.parent.name},{p.parts[-3]}" for p in root.rglob("*.png")
        ]
        root = root / "labels.csv"
        root.write_text("path,labels,split\n" + "\n".join(lines))
    run = foveal.train(replaced(config, root=str(root), max_steps=1, multi_label=multi_label))
    figures = {path.name for path in (run.path / "figures").iterdir()}
    assert figures >= {"predictions.png", *([] if multi_label else ["confusion.png"])}


def test_letters_that_the_font_lacks_are_told_in_the_caption(config, replaced, tmp_path):
    paint_classes(tmp_path / "data", ("\u4e2d\u6587", "b"))
    run = foveal.train(replaced(config, root=str(tmp_path / "data"), max_steps=1))
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "(column), counts. The font lacks letters of some names: boxes stand for them." in page
    assert "(the training loss includes augmentation). Right: validation scores.</fig" in page


def test_files_whose_names_are_not_utf_8_train(config, replaced, tmp_path):
    try:
        paint_classes(tmp_path / "data", ("a", "b"), "caf\udce9{}.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    damaged = os.fsencode(tmp_path) + b"/data/train/a/caf\xe90.png"
    with open(damaged, "wb"):
        pass
    data = {"root": str(tmp_path / "data"), "on_error": "skip"}
    run = foveal.train(replaced(config, max_steps=1, **data))
    assert "test/accuracy" in run.metrics
    assert r"a/caf\udce90.png: the file is empty" in (run.path / "skipped.txt").read_text()
