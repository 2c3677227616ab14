import os
import pickle

import numpy as np
import pytest

from foveal.data import cifar, read_classification


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    """Return a function that pickles objects into a folder below the temporary one."""

    def save(folder: str, protocol: int = 2, **contents):
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name, content in contents.items():
            path = target / name.replace("batches_meta", "batches.meta")
            path.write_bytes(pickle.dumps(content, protocol=protocol))
        return target

    return save


@pytest.fixture
def write_10(write):
    def save(protocol: int = 2):
        return write(
            "cifar-10-batches-py",
            protocol,
            data_batch_1={"data": rows(3), "labels": [0, 1, 2]},
            data_batch_2={"data": rows(2, 1), "labels": [1, 0]},
            test_batch={"data": rows(2, 2), "labels": [2, 1]},
            batches_meta={"label_names": ["airplane", "automobile", "bird"]},
        )

    return save


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_pickle_protocol_from_both_folders(write_10, tmp_path, protocol):
    folder = write_10(protocol)
    for root in (tmp_path, folder):
        assert cifar.detect(root)
        found = cifar.read(root)
        assert found.classes == ("airplane", "automobile", "bird")
        assert found.image_size == 32
        assert found.parts["train"].targets.tolist() == [0, 1, 2, 1, 0]
        assert found.parts["test"].targets.tolist() == [2, 1]
        assert found.parts["train"].name(4) == f"{folder / 'data_batch_2'}[1]"
    assert found.origins == {
        "train": "files data_batch_1 to data_batch_2",
        "test": "file test_batch",
    }


def test_planes_are_red_green_blue_row_by_row(write_10, tmp_path):
    write_10()
    image = cifar.read(tmp_path).parts["train"].load(1)
    pixels = rows(3)[1]
    for x, y in ((0, 0), (31, 0), (0, 1), (17, 23)):
        at = 32 * y + x
        assert image.getpixel((x, y)) == (pixels[at], pixels[1024 + at], pixels[2048 + at])


def test_keys_may_be_bytes_and_the_test_batch_may_be_missing(write, tmp_path):
    write(
        "cifar-10-batches-py",
        data_batch_1={b"data": rows(2), b"labels": np.array([0, 1])},
        batches_meta={b"label_names": [b"cat", b"dog"]},
    )
    found = cifar.read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert list(found.parts) == ["train"]


def test_batches_come_in_the_order_of_their_numbers(write, tmp_path):
    batch = {f"data_batch_{k}": {"data": rows(1), "labels": [k % 10]} for k in (10, 9, 1)}
    write("cifar-10-batches-py", **batch, batches_meta={"label_names": list("abcdefghij")})
    assert cifar.read(tmp_path).parts["train"].targets.tolist() == [1, 9, 0]


def test_cifar_100_takes_fine_labels(write, tmp_path):
    content = {"data": rows(2), "fine_labels": [1, 0], "coarse_labels": [0, 0]}
    meta = {"fine_label_names": ["apple", "fish"], "coarse_label_names": ["x"]}
    folder = write("cifar-100-python", train=content, test=content, meta=meta)
    for root in (tmp_path, folder):
        found = cifar.read(root)
        assert found.classes == ("apple", "fish")
        assert found.parts["test"].targets.tolist() == [1, 0]


def test_without_meta_classes_are_numbers_and_it_is_said(write_10, tmp_path):
    (write_10() / "batches.meta").unlink()
    found = cifar.read(tmp_path)
    assert found.classes == tuple("0123456789")
    assert "batches.meta: there is no such file" in found.notes[0]


def test_both_sets_must_be_told_apart(write_10, write, tmp_path):
    write_10()
    write("cifar-100-python", train={}, meta={})
    with pytest.raises(ValueError, match=r"CIFAR-10 and CIFAR-100: choose .*cifar-10-batches-py"):
        cifar.read(tmp_path)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, r"posix\.system"), (eval, r"(builtins|__builtin__)\.eval")],
)
def test_a_pickle_that_runs_code_is_refused_without_running_it(
    write_10, tmp_path, protocol, function, name
):
    folder, trace = write_10(), tmp_path / "trace"
    code = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    evil = pickle.dumps({"data": Evil(function, code), "labels": [0]}, protocol=protocol)
    (folder / "data_batch_2").write_bytes(evil)
    message = rf"data_batch_2: will not unpickle \(it asks for {name}, which is refused\)"
    with pytest.raises(ValueError, match=message):
        cifar.read(tmp_path)
    assert not trace.exists()


def test_extension_codes_and_attributes_of_known_names_are_refused(write_10, tmp_path):
    path = write_10() / "data_batch_2"
    for payload in (
        b"cnumpy\nndarray.__class__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        b"cnumpy.core.multiarray\n_reconstruct.__self__\n.",
    ):
        path.write_bytes(payload)
        with pytest.raises(ValueError, match="which is refused"):
            cifar.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [0]}, "must hold 'data', uint8"),
        ({"data": rows(1)}, "must hold 'data', uint8"),
        ({"data": rows(1)[:, :100], "labels": [0]}, "must hold 'data', uint8"),
        ({"data": rows(0), "labels": []}, "must hold 'data', uint8"),
        ({"data": rows(2), "labels": [0]}, "2 pictures, but labels of"),
        ({"data": rows(1), "labels": [3]}, "labels must be 0 to 2, not 3"),
        ({"data": rows(1), "labels": [-1]}, "labels must be 0 to 2, not -1"),
        ([1, 2], "must hold a dict, not a list"),
    ],
)
def test_other_contents_are_named(write_10, tmp_path, content, message):
    (write_10() / "data_batch_2").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=f"data_batch_2: {message}"):
        cifar.read(tmp_path)


@pytest.mark.parametrize("keep", [0, 100])
def test_truncated_file_is_named(write_10, tmp_path, keep):
    path = write_10() / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="test_batch: will not unpickle"):
        cifar.read(tmp_path)


def test_no_files(tmp_path):
    assert not cifar.detect(tmp_path)
    with pytest.raises(ValueError, match="no CIFAR files such as"):
        cifar.read(tmp_path)


def test_cifar_100_has_coarse_labels_too(write, tmp_path):
    content = {"data": rows(6), "fine_labels": [1, 0] * 3, "coarse_labels": [0, 2] * 3}
    meta = {"fine_label_names": ["apple", "fish"], "coarse_label_names": ["x", "y", "z"]}
    write("cifar-100-python", train=content, test=content, meta=meta)
    data = read_classification(tmp_path, labels="coarse")
    assert data.classes == ("x", "y", "z")
    assert data.splits["test"].targets.tolist() == [0, 2] * 3
    with pytest.raises(ValueError, match=r"unknown labels 'corse': did you mean 'coarse'\?"):
        read_classification(tmp_path, labels="corse")


def test_cifar_10_has_one_set_of_labels(write_10, tmp_path):
    write_10()
    with pytest.raises(ValueError, match="CIFAR-10 has no coarse labels, only one set of them"):
        cifar.read(tmp_path, labels="coarse")
