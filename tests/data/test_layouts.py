import pytest

from foveal.data.layouts import LAYOUTS, detect, layouts_of, wrong_task


def test_every_layout_of_classification_has_a_reader():
    for name, row in LAYOUTS.items():
        assert (row.task == "classify") <= (row.read is not None), name


def test_a_layout_may_serve_several_tasks():
    scenes = LAYOUTS["scenes"]
    assert scenes.serves("classify")
    assert scenes.serves("segment")
    assert not scenes.serves("detect")
    assert scenes.reader("segment") is not scenes.reader("classify")
    assert LAYOUTS["coco"].serves("detect")
    assert LAYOUTS["coco"].reader("detect") is None


def test_layouts_of_a_task_are_those_that_it_reads():
    known = ["scenes", "context", "voc", "camvid", "cityscapes", "ade20k", "pairs", "pseudo_labels"]
    assert sorted(layouts_of("segment")) == sorted(known)
    assert "coco" not in layouts_of("detect")
    assert {"fashion", "scenes", "csv", "imagefolder"} < {*layouts_of("classify")}
    dense = ["scenes", "bsds500", "sk_large", "saliency", "pair_list", "pairs"]
    assert sorted(layouts_of("dense")) == sorted(dense)
    assert all(LAYOUTS[name].maps for name in dense)


def test_nothing_there_names_the_nearest(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"no folder or file .*flower: did you mean .*/flowers\?"
    ):
        detect(tmp_path / "flower")
    with pytest.raises(FileNotFoundError, match=r"no folder or file .*/x/y$"):
        detect(tmp_path / "x" / "y")


def test_empty_folder_flat_folder_and_other_file(paint, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures in it"):
        detect(tmp_path / "empty")
    paint("flat/a.jpg")
    paint("flat/b.jpg", 1)
    with pytest.raises(ValueError, match=r"flat: 2 pictures such as a\.jpg, but no class folders"):
        detect(tmp_path / "flat")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        ValueError, match=r"notes\.txt: not a \.csv, \.h5 or \.lst file, nor a folder"
    ):
        detect(tmp_path / "notes.txt")


def test_one_folder_too_high_is_told(paint_classes, tmp_path):
    paint_classes("outer/inner", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"holds nothing but inner/: did you mean .*outer/inner\?"):
        detect(tmp_path / "outer")


def test_train_alone_is_not_one_folder_too_high(paint_classes, tmp_path):
    paint_classes("data/train", {"a": 1, "b": 1})
    assert detect(tmp_path / "data") == "imagefolder"


def test_one_class_folder_is_an_imagefolder(paint_classes, tmp_path):
    paint_classes("data", {"a": 2})
    assert detect(tmp_path / "data") == "imagefolder"


def test_a_list_is_the_layout_unless_it_comes_along(paint_classes, paint, tmp_path):
    paint("listed/pictures/a.png")
    (tmp_path / "listed" / "labels.csv").write_text("pictures/a.png,x\n")
    assert detect(tmp_path / "listed") == "csv"
    paint_classes("folders", {"a": 1, "b": 1})
    (tmp_path / "folders" / "authors.csv").write_text("name,year\nx,2001\n")
    assert detect(tmp_path / "folders") == "imagefolder"
    paint_classes("divided/train", {"a": 1, "b": 1})
    (tmp_path / "divided" / "all.csv").write_text("train/a/000.png,a\n")
    assert detect(tmp_path / "divided") == "imagefolder"


def test_two_sets_side_by_side_must_be_told_apart(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"x")
    (tmp_path / "usps.h5").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"choose one with --data\.layout idx or --data\.layout usps"
    ):
        detect(tmp_path)


def test_a_folder_of_several_fine_grained_sets_is_not_taken_for_one_of_them(paint, tmp_path):
    (tmp_path / "flowers-102").mkdir()
    (tmp_path / "flowers-102" / "setid.mat").touch()
    (tmp_path / "fgvc-aircraft-2013b" / "data").mkdir(parents=True)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "images_family_test.txt").touch()
    paint("stanford_cars/cars_train/00001.jpg")
    assert detect(tmp_path / "stanford_cars") == "cars"
    with pytest.raises(
        ValueError, match=r"data\.layout cars or --data\.layout aircraft or --data\.layout flowers"
    ):
        detect(tmp_path)


def test_sentences_for_other_tasks(tmp_path):
    assert wrong_task(tmp_path, "voc") == (
        f"{tmp_path}: this looks like the VOC layout: did you mean `foveal train segment`?"
    )
