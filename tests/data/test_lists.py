import pytest

from foveal.data import lists


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the bytes of a text file."""

    def save(content: bytes):
        path = tmp_path / "list.txt"
        path.write_bytes(content)
        return path

    return save


@pytest.mark.parametrize(
    "content",
    [
        b"1 F/A-18\n2 An-12 b\n",
        b"1 F/A-18\r\n2 An-12 b\r\n",
        b"1 F/A-18\n2 An-12 b",
        b"\xef\xbb\xbf1 F/A-18 \n\n  2\tAn-12 b\n\n",
    ],
)
def test_pairs_are_split_at_the_first_blank_alone(write, content):
    assert lists.read_pairs(write(content)) == {"1": "F/A-18", "2": "An-12 b"}


def test_other_characters_that_unicode_takes_for_line_ends_are_not(write):
    assert lists.read_lines(write("a\x0bb\u2028c\nd\n".encode())) == ["a\x0bb\u2028c", "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \r\n\n", "the file is empty"),
        (b"1 a\n2\n", "the line '2' must have two columns"),
        (b"1 a\n2 b\n1 c\n", "two lines begin with 1"),
        (b"1 caf\xe9\n", "must be UTF-8 text"),
    ],
)
def test_what_is_wrong_with_pairs_is_named(write, content, message):
    with pytest.raises(ValueError, match=rf"list\.txt: {message}"):
        lists.read_pairs(write(content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"list\.txt: there is no such file$"):
        lists.read_lines(tmp_path / "list.txt")


def test_class_names_stand_once(write):
    assert lists.read_names(write(b"707-320\nF/A-18")) == ("707-320", "F/A-18")
    with pytest.raises(ValueError, match=r"list\.txt: the class name 'b' stands there twice"):
        lists.read_names(write(b"b\na\nb\n"))


def test_a_picture_in_two_lists_is_named():
    lists.require_apart({"train.txt": ["a", "b"], "test.txt": ["c"]})
    with pytest.raises(ValueError, match=r"^test\.txt: picture b is in train\.txt too$"):
        lists.require_apart({"train.txt": ["a", "b"], "test.txt": ["c", "b"]})


def test_unlisted_pictures_are_found_in_subfolders(paint, tmp_path):
    for name in ("a.jpg", "sub/b.jpg", "sub/c.PNG", "sub/.hidden.jpg"):
        paint(f"images/{name}")
    (tmp_path / "images" / "Thumbs.db").touch()
    (tmp_path / "images" / "readme.txt").touch()
    assert lists.unlisted(tmp_path / "images", ["a.jpg", "sub/b.jpg"]) == (
        str(tmp_path / "images" / "sub" / "c.PNG"),
    )
    assert lists.unlisted(tmp_path / "none", ["a.jpg"]) == ()
