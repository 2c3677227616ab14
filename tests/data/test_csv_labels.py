import numpy as np
import pytest

from foveal.data import csv_labels


@pytest.fixture
def write(tmp_path, paint):
    """Return a function that writes labels.csv beside four pictures."""
    for k, name in enumerate(("a.png", "sub/b c.PNG", "größe.png", "d,e.png")):
        paint(name, k)

    def save(text: str, encoding: str = "utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return save


def test_path_and_name_without_header(write, tmp_path):
    path = write("a.png,dog\nsub/b c.PNG,cat\n")
    for root in (tmp_path, path):
        assert csv_labels.detect(root)
        found = csv_labels.read(root)
        assert found.classes == ("cat", "dog")
        assert found.parts["all"].targets.tolist() == [1, 0]
        assert found.parts["all"].targets.dtype == np.int64
        assert found.parts["all"].name(1) == str(tmp_path / "sub" / "b c.PNG")
        assert not found.problems


def test_the_first_line_is_data_where_its_path_is_a_file(write, tmp_path):
    for name in ("scan1", "scan2"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    found = csv_labels.read(write("scan1,dog\nscan2,cat\n"))
    assert found.classes == ("cat", "dog")
    assert found.parts["all"].targets.tolist() == [1, 0]
    assert csv_labels.read(write("scan,kind\nscan1,dog\n")).classes == ("dog",)


def test_header_byte_order_mark_windows_lines_quotes_and_blank_lines(write):
    text = 'Label,Path\r\n\r\n"big, dog","d,e.png"\r\n cat , größe.png\r\n'
    found = csv_labels.read(write(text, "utf-8-sig"))
    assert found.classes == ("big, dog", "cat")
    assert found.parts["all"].targets.tolist() == [0, 1]
    assert [found.parts["all"].load(k).size for k in (0, 1)] == [(10, 8)] * 2


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters(write, delimiter):
    found = csv_labels.read(
        write(f"path{delimiter}label\na.png{delimiter}x\ngröße.png{delimiter}y\n")
    )
    assert found.classes == ("x", "y")


def test_whole_numbers_are_sorted_as_numbers(write):
    found = csv_labels.read(write("a.png,10\nsub/b c.PNG,9\ngröße.png,10\n"))
    assert found.classes == ("9", "10")
    assert found.parts["all"].targets.tolist() == [1, 0, 1]


@pytest.mark.parametrize("header", ["", "path,label,split\n"])
def test_third_column_is_the_split(write, header):
    text = f"{header}a.png,x,train\nsub/b c.PNG,y,Training\ngröße.png,x,valid\nd e.png,x,test\n"
    found = csv_labels.read(write(text))
    assert {part: p.targets.tolist() for part, p in found.parts.items()} == {
        "train": [0, 1],
        "val": [0],
        "test": [0],
    }
    assert found.origins["val"] == "lines 'val' of labels.csv"


def test_several_labels_or_none(write):
    found = csv_labels.read(
        write("path,labels\na.png,dog;cat\nsub/b c.PNG,\ngröße.png,dog | bird\n"), True
    )
    assert found.classes == ("bird", "cat", "dog")
    assert found.multi_label
    targets = found.parts["all"].targets
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1]]


def test_a_column_of_0_and_1_for_each_class(write):
    text = "image,dog,cat,split\na.png,1,0,train\ngröße.png,1,1,val\nsub/b c.PNG,0,0,train\n"
    found = csv_labels.read(write(text), True)
    assert found.classes == ("dog", "cat")
    assert found.parts["train"].targets.tolist() == [[1, 0], [0, 0]]
    assert found.parts["val"].targets.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match=r"no column called label.*--multi_label"):
        csv_labels.read(write(text))


@pytest.mark.parametrize(
    ("text", "multi_label", "message"),
    [
        ("", False, "lists no pictures"),
        ("path,label\n", False, "lists no pictures"),
        ("a.png,x\nb.png\n", False, "line 2: has 1 columns where 2 are expected"),
        ("a.png,x\n,y\n", False, "line 2: the path is empty"),
        ("a.png,x\nb.png,\n", False, "line 2: the label is empty"),
        ("a.png,x;y\n", False, "line 1: several labels in 'x;y' need --multi_label"),
        ("a.png\n", False, "line 1: must be path,label or path,label,split"),
        ("a.png,x,tset\n", False, "line 1: unknown split 'tset': did you mean 'test'"),
        ("path,p,q\na.png,1,2\n", True, "line 2: column 'q' must be 0 or 1, not '2'"),
        ("path,p,p\na.png,1,1\n", True, "line 1: the class columns must have different names"),
        ('a.png,x\n"b.png,y\n', False, "not valid CSV"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, text, multi_label, message):
    with pytest.raises(ValueError, match=rf"labels\.csv(, |: ).*{message}"):
        csv_labels.read(write(text), multi_label)


def test_missing_and_repeated_files_are_problems_with_their_lines(write, tmp_path):
    path = write("path,label\na.png,x\n\nmissing.png,y\na.png,x\n")
    assert csv_labels.read(path).problems == (
        f"{path}, line 4: there is no picture {tmp_path / 'missing.png'}",
        f"{path}, line 5: a.png is already in line 2",
    )


def test_other_encoding_is_named(write):
    with pytest.raises(ValueError, match=r"labels\.csv: must be UTF-8 text"):
        csv_labels.read(write("größe.png,x\n", "latin-1"))


def test_a_folder_with_no_or_several_lists(write, tmp_path):
    with pytest.raises(ValueError, match=r"no \.csv file in it, or several"):
        csv_labels.read(tmp_path)
    write("a.png,x\n")
    (tmp_path / "other.CSV").write_text("a.png,x\n")
    assert not csv_labels.detect(tmp_path)
    assert not csv_labels.lists_pictures(tmp_path)
