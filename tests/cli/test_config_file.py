import io

import pytest
import yaml

from foveal.cli import config_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("1e-3", 0.001),
        ("-2.5E+4", -25000.0),
        (".5", 0.5),
        ("7", 7),
        ("-0", 0),
        ("010", "010"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("1e3x", "1e3x"),
        ("null", None),
        ("~", None),
        ("'1'", "1"),
        ("[a, 1]", ["a", 1]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    result = config_file.parse(f"key: {text}", "here")["key"]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "word", ["1e3", "no", "on", "012", "null", "2026-01-01", "1:30", "", "ä b", "'", "- x", "0x1f"]
)
def test_written_words_are_read_as_words_by_either_yaml_version(word):
    stream = io.StringIO()
    config_file.write({"key": word}, stream)
    assert config_file.parse(stream.getvalue(), "here") == {"key": word}
    assert yaml.safe_load(stream.getvalue()) == {"key": word}


def test_write_keeps_the_order():
    stream = io.StringIO()
    config_file.write({"task": "classify", "b": 1, "a": {"z": 2, "y": 3}}, stream)
    assert stream.getvalue() == "task: classify\nb: 1\na:\n  z: 2\n  y: 3\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1,\n", r"c\.yaml, line 3: not YAML: "),
        (b"a: 1\nb: 2\na: 3\n", r"c\.yaml, line 3: not YAML: key 'a' is given twice"),
        (b"a:\n  x: 1\n  x: 1\n", r"c\.yaml, line 3: not YAML: key 'x' is given twice"),
        (b"- 1\n", r"c\.yaml: a config file must hold lines such as 'epochs: 20'"),
        (b"\xff\xfe\x00", r"c\.yaml: not a YAML file, as it is not UTF-8 text"),
        (b"a: \x07\n", r"c\.yaml: not YAML"),
        (b"a: !!python/object/apply:os.getpid []\n", r"c\.yaml, line 1: not YAML: could not"),
        (b"a: " + b"[" * 5000, r"c\.yaml: not YAML"),
    ],
)
def test_read_names_file_and_line(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        config_file.read(str(path))
    assert "\n" not in str(caught.value)


def test_read_takes_an_empty_file_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("# nothing\n")
    assert config_file.read(str(path)) == {}
    path.write_bytes(b"\xef\xbb\xbfepochs: 3\n")
    assert config_file.read(str(path)) == {"epochs": 3}


def test_read_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        config_file.read(str(tmp_path / "absent.yaml"))
