import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from foveal.data.pictures import DamagedPictureError
from foveal.metrics import EDGES, count_boundaries, summarize_boundaries
from foveal.tasks import boundary_evaluation
from foveal.tasks.boundary_evaluation import evaluate_boundaries

QUICK = replace(EDGES, tolerance=0.03, thresholds=9)


class Drawn:
    """Pictures with truth in memory."""

    def __init__(self, truths):
        self.truths = truths

    def __len__(self):
        return len(self.truths)

    def name(self, index):
        return f"images/{index:04d}.jpg"

    def annotations(self, index):
        return list(self.truths[index])


def make(folder, count=4, side=40):
    """Write maps of 8 bits and return (pictures, maps as they are in the files)."""
    rng = np.random.default_rng(0)
    truths, maps = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        shape = (side, side + index)
        drawn = np.abs(gaussian_filter(rng.normal(size=(2, *shape)), (0, 4, 4))) < 0.004
        soft = gaussian_filter(drawn.mean(0), 1) + 0.1 * rng.random(shape)
        maps.append(np.rint(255 * soft / soft.max()).astype(np.uint8))
        truths.append(drawn)
        Image.fromarray(maps[-1]).save(folder / f"{index:04d}.png")
    return Drawn(truths), maps


@pytest.fixture
def scene(tmp_path):
    pictures, maps = make(tmp_path / "maps")
    return pictures, maps, tmp_path / "maps"


def expected(pictures, maps, protocol=QUICK):
    rows = [
        count_boundaries(p, t, protocol).row for p, t in zip(maps, pictures.truths, strict=True)
    ]
    return summarize_boundaries(rows), [summarize_boundaries([row]) for row in rows]


def assert_equal(found, summary):
    assert found[:5] == summary[:5]
    assert np.array_equal(found.recall, summary.recall)
    assert np.array_equal(found.precision, summary.precision)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_scores_are_those_of_the_pictures(scene, workers):
    pictures, maps, folder = scene
    steps = []
    result = evaluate_boundaries(
        folder,
        pictures,
        QUICK,
        workers=workers,
        progress=lambda done, total: steps.append((done, total)),
    )
    summary, each = expected(pictures, maps)
    assert_equal(result.summary, summary)
    assert list(result.pictures) == [f"images/000{index}.jpg" for index in range(4)]
    for found, wanted in zip(result.pictures.values(), each, strict=True):
        assert_equal(found, wanted)
    assert result.counted == 4
    assert steps == [(done, 4) for done in range(5)]
    assert 0.3 < summary.ods < 1


def test_other_files_of_the_same_maps(scene, tmp_path):
    pictures, maps, _ = scene
    summary, _ = expected(pictures, maps)
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(maps[0].astype(np.uint16) * 257).save(other / "0000.png")
    np.save(other / "0001.npy", maps[1] / 255)
    np.save(other / "0002.npy", maps[2])
    Image.fromarray(maps[3]).convert("RGB").save(other / "0003.png")
    assert_equal(evaluate_boundaries(other, pictures, QUICK, workers=1).summary, summary)
    for index, values in enumerate(maps):
        Image.fromarray(255 - values).save(other / f"{index:04d}.png")
        (other / f"{index:04d}.npy").unlink(missing_ok=True)
    dark = evaluate_boundaries(other, pictures, QUICK, workers=1, inverted=True)
    assert_equal(dark.summary, summary)


def test_finished_pictures_are_not_counted_again(scene, tmp_path, monkeypatch):
    pictures, _, folder = scene
    counts = tmp_path / "kept" / "counts.jsonl"
    first = evaluate_boundaries(folder, pictures, QUICK, workers=1, counts_file=counts)
    lines = counts.read_text().splitlines()
    assert [json.loads(line)["picture"] for line in lines] == [
        f"images/000{index}.jpg" for index in range(4)
    ]
    counts.write_text("\n".join(lines[:2]) + "\n" + lines[2][:100])  # cut off while it was written
    again = evaluate_boundaries(folder, pictures, QUICK, workers=1, counts_file=counts)
    assert again.counted == 2
    assert_equal(again.summary, first.summary)
    monkeypatch.setattr(boundary_evaluation, "count_boundaries", None)  # nothing left to count
    whole = evaluate_boundaries(folder, pictures, QUICK, workers=1, counts_file=counts)
    assert whole.counted == 0
    assert_equal(whole.summary, first.summary)


def test_what_changes_is_counted_again(scene, tmp_path):
    pictures, maps, folder = scene
    counts = tmp_path / "counts.jsonl"

    def counted(protocol=QUICK, **how):
        result = evaluate_boundaries(
            folder, pictures, protocol, workers=1, counts_file=counts, **how
        )
        return result.counted

    assert counted() == 4
    assert counted() == 0
    Image.fromarray(maps[1] // 2).save(folder / "0001.png")
    assert counted() == 1
    pictures.truths[2] = pictures.truths[2][:1]
    assert counted() == 1
    assert counted(replace(QUICK, nms=False)) == 4
    assert counted(inverted=True) == 4
    os.rename(folder / "0003.png", folder / "0009.png")
    np.save(folder / "0003.npy", maps[3])  # another file of the same map
    assert counted() == 0


def test_no_other_file_is_taken_for_one_of_counts(scene, tmp_path):
    pictures, _, folder = scene
    counts = tmp_path / "mine.txt"
    for text in ("my notes\n", "\nmine", '{"key"; "x"}\n'):
        counts.write_text(text)
        with pytest.raises(ValueError, match=r"mine.txt: is no file of counts: give another one"):
            evaluate_boundaries(folder, pictures, QUICK, workers=1, counts_file=counts)
        assert counts.read_text() == text
    for begun in ("", '{"k'):  # as a stop may leave it
        counts.write_text(begun)
        evaluate_boundaries(folder, pictures, QUICK, workers=1, counts_file=counts)
        again = evaluate_boundaries(folder, pictures, QUICK, workers=1, counts_file=counts)
        assert again.counted == 0


def test_equal_pictures_are_counted_once(scene):
    pictures, maps, folder = scene
    pictures.truths[1], maps[1] = pictures.truths[0], maps[0]
    Image.fromarray(maps[0]).save(folder / "0001.png")
    result = evaluate_boundaries(folder, pictures, QUICK, workers=1)
    assert result.counted == 3
    assert_equal(result.summary, expected(pictures, maps)[0])


def test_files_are_checked_before_anything_is_counted(scene, monkeypatch):
    pictures, maps, folder = scene
    monkeypatch.setattr(boundary_evaluation, "count_boundaries", None)
    Image.fromarray(maps[3][:, :-1]).save(folder / "0003.png")
    message = r"0003.png: the prediction has 40 rows and 42 columns, its truth 40 and 43; resize"
    with pytest.raises(ValueError, match=message):
        evaluate_boundaries(folder, pictures, QUICK, workers=1)
    (folder / "0003.png").write_bytes(b"")
    with pytest.raises(DamagedPictureError, match=r"0003.png: the file is empty"):
        evaluate_boundaries(folder, pictures, QUICK, workers=1)
    (folder / "0003.png").unlink()
    with pytest.raises(ValueError, match=r"no map of images/0003.jpg"):
        evaluate_boundaries(folder, pictures, QUICK, workers=1)
    np.save(folder / "0003.npy", np.full((40, 43), 1.5))
    with pytest.raises(ValueError, match=r"0003.npy: the prediction lies in \[1.5, 1.5\]"):
        evaluate_boundaries(folder, pictures, QUICK, workers=1)
    with pytest.raises(ValueError, match="there are no pictures to score"):
        evaluate_boundaries(folder, Drawn([]), QUICK)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_boundary_evaluation import make
from foveal.metrics import EDGES
from foveal.tasks.boundary_evaluation import evaluate_boundaries
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pictures, _ = make(folder / "maps", count=8, side=100)
    evaluate_boundaries(
        folder / "maps",
        pictures,
        EDGES,
        workers=int(sys.argv[2]),
        counts_file=folder / "counts.jsonl",
        progress=lambda done, total: print(done, flush=True),
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_what_is_done(tmp_path, workers):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    source = str(Path(boundary_evaluation.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    for line in process.stdout:
        if int(line) == 2:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes of the group
    _, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # of the parent alone
    kept = (tmp_path / "counts.jsonl").read_text().splitlines()
    assert 2 <= len(kept) < 8
    pictures, maps = make(tmp_path / "maps", count=8, side=100)
    result = evaluate_boundaries(
        tmp_path / "maps", pictures, EDGES, workers=1, counts_file=tmp_path / "counts.jsonl"
    )
    assert result.counted == 8 - len(kept)
    assert_equal(result.summary, expected(pictures, maps, EDGES)[0])
