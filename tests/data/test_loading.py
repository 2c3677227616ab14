"""Samples do not depend on workers, order or what was read before."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.config import AugmentConfig, DenseAugmentConfig, SegmentAugmentConfig
from foveal.data.joint import JointPictures
from foveal.data.loading import (
    MapsToScore,
    TransformedMaps,
    TransformedMasks,
    TransformedPictures,
    leave_out_damaged,
    leave_out_damaged_maps,
    leave_out_damaged_masks,
    make_loader,
    probe_all,
)
from foveal.data.map_transforms import MapTrainTransform
from foveal.data.maps import Truth
from foveal.data.mask_transforms import MaskTrainTransform, WholePicture
from foveal.data.pictures import DamagedPictureError
from foveal.data.sampling import BatchSampler
from foveal.data.transforms import Preprocess, TrainTransform, WholePreprocess


class Noise:
    """Ten random pictures; those in ``damaged`` do not open."""

    def __init__(self, damaged=()):
        rng = np.random.default_rng(0)
        self.arrays = rng.integers(0, 256, (10, 12, 16, 3), dtype=np.uint8)
        self.targets = np.arange(10) % 3
        self.damaged = damaged

    def __len__(self):
        return 10

    def load(self, index):
        if index in self.damaged:
            raise DamagedPictureError(self.name(index), "truncated")
        return Image.fromarray(self.arrays[index])

    def probe(self, index):
        self.load(index)

    def name(self, index):
        return f"noise/{index}.png"


def augmented(seed=0):
    augment = AugmentConfig(min_scale=0.3, randaugment=9, erasing=0.5, color_jitter=0.2)
    return TransformedPictures(Noise(), TrainTransform(Preprocess(8), augment), seed)


def test_a_sample_depends_on_seed_epoch_and_index_only():
    data = augmented()
    first = data[(2, 5)][0]
    data[(0, 1)]
    torch.rand(7)
    assert torch.equal(data[(2, 5)][0], first)
    assert not torch.equal(data[(3, 5)][0], first)
    assert not torch.equal(augmented(seed=1)[(2, 5)][0], first)


def test_reading_a_sample_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    augmented()[(0, 0)]
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers):
    def batches(n):
        sampler = BatchSampler(10, 3, shuffle=True, seed=4)
        state = torch.random.get_rng_state()
        result = list(make_loader(augmented(), sampler, workers=n))
        assert torch.equal(torch.random.get_rng_state(), state)
        return result

    for alone, helped in zip(batches(0), batches(workers), strict=True):
        for a, b in zip(alone, helped, strict=True):
            assert torch.equal(a, b)


def test_a_first_look_names_the_first_damaged_picture_and_counts_them():
    probe_all(10, Noise().probe)
    with pytest.raises(ValueError, match=r"^noise/2\.png: truncated \(2 of 10 pictures cannot be"):
        probe_all(10, Noise(damaged=(2, 7)).probe)


def test_damaged_pictures_are_left_out_and_named():
    seen = []
    sound = leave_out_damaged(Noise(damaged=(0, 4)), lambda done, total: seen.append((done, total)))
    assert len(sound.pictures) == 8
    assert sound.pictures.name(0) == "noise/1.png"
    assert sound.damaged == ("noise/0.png: truncated", "noise/4.png: truncated")
    assert seen[-1] == (10, 10)


def test_nothing_is_copied_where_all_is_sound():
    pictures = Noise()
    assert leave_out_damaged(pictures).pictures is pictures


def test_no_sound_picture_at_all_is_an_error():
    with pytest.raises(
        ValueError, match=r"none of the 10 pictures can be used; the first: noise/0\.png"
    ):
        leave_out_damaged(Noise(damaged=range(10)))


def test_a_damaged_picture_stops_the_loader_with_its_path():
    data = TransformedPictures(Noise(damaged=(1,)), Preprocess(8))
    loader = make_loader(data, BatchSampler(10, 5, shuffle=False), workers=1)
    with pytest.raises(ValueError, match=r"noise/1\.png: truncated"):
        list(loader)


class NoiseWithMasks:
    """Ten random pictures with masks; those in ``damaged`` do not open; sizes as given."""

    def __init__(self, damaged=(), sizes=((16, 12),)):
        self.rng, self.damaged, self.sizes = np.random.default_rng(0), damaged, sizes

    def __len__(self):
        return 10

    def size(self, index):
        if index in self.damaged:
            raise DamagedPictureError(self.name(index), "truncated")
        return self.sizes[index % len(self.sizes)]

    def load(self, index):
        width, height = self.size(index)
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels), rng.integers(0, 5, (height, width), dtype=np.uint8)

    def probe(self, index):
        self.size(index)

    def name(self, index):
        return f"noise/{index}.png"

    def mask_name(self, index):
        return f"mask/{index}.png"


def with_masks(seed=0, **options):
    transform = MaskTrainTransform(Preprocess(8), SegmentAugmentConfig())
    return TransformedMasks(NoiseWithMasks(**options), transform, seed)


def test_a_sample_with_its_mask_depends_on_seed_epoch_and_index_only():
    data = with_masks()
    first = data[(2, 5)]
    data[(0, 1)]
    torch.rand(7)
    for a, b in zip(data[(2, 5)], first, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(data[(3, 5)][1], first[1])
    assert not torch.equal(with_masks(seed=1)[(2, 5)][1], first[1])
    assert first[2] == 5


def test_worker_processes_change_nothing_of_masks():
    def batches(n):
        return list(make_loader(with_masks(), BatchSampler(10, 3, shuffle=True, seed=4), workers=n))

    for alone, helped in zip(batches(0), batches(1), strict=True):
        assert alone[0].shape == (3, 3, 8, 8)
        assert alone[1].shape == (3, 8, 8)
        assert alone[1].dtype == torch.int64
        for a, b in zip(alone, helped, strict=True):
            assert torch.equal(a, b)


def test_masks_that_are_wrong_stop_the_loader_or_are_left_out():
    loader = make_loader(with_masks(damaged=(1,)), BatchSampler(10, 5, shuffle=False), workers=1)
    with pytest.raises(ValueError, match=r"noise/1\.png: truncated"):
        list(loader)
    with pytest.raises(ValueError, match=r"^noise/2\.png: truncated \(2 of 10 pictures cannot be"):
        probe_all(10, NoiseWithMasks(damaged=(2, 7)).probe)
    sound = leave_out_damaged_masks(NoiseWithMasks(damaged=(0, 4)))
    assert len(sound.pictures) == 8
    assert sound.pictures.mask_name(0) == "mask/1.png"
    assert sound.damaged == ("noise/0.png: truncated", "noise/4.png: truncated")


def test_whole_pictures_of_different_sizes_stay_apart():
    dataset = TransformedMasks(
        NoiseWithMasks(sizes=((16, 12), (12, 16))), WholePicture(Preprocess(8))
    )
    loader = make_loader(dataset, BatchSampler(3, 2, shuffle=False), workers=0, stacked=False)
    (pictures, targets, index), (rest, _, last) = loader
    assert [tuple(x.shape) for x in pictures] == [(3, 12, 16), (3, 16, 12)]
    assert [tuple(target.shape) for target in targets] == [(12, 16), (16, 12)]
    assert (index.tolist(), last.tolist(), len(rest)) == ([0, 1], [2], 1)


class NoiseWithMaps(Noise):
    """Random pictures whose maps are their green channel."""

    def decode(self, index):
        return self.load(index), self.truth(index), "RGB"

    def truth(self, index):
        return Truth.of_one(self.arrays[index][..., 1].astype(np.float32) / 255, "L")

    def probe(self, index):
        Noise.load(self, index)


def with_maps(seed=0, **options):
    joint = JointPictures([{"edge": NoiseWithMaps(**options)}, {"saliency": NoiseWithMaps()}])
    transform = MapTrainTransform(Preprocess(8), DenseAugmentConfig(), joint.tasks)
    return TransformedMaps(joint, transform, seed)


def test_a_sample_with_its_maps_depends_on_seed_epoch_and_index_only():
    data = with_maps()
    x, targets, index = data[(2, 5)]
    data[(0, 1)]
    torch.rand(7)
    again = data[(2, 5)]
    assert torch.equal(again[0], x)
    assert all(torch.equal(again[1][task], targets[task]) for task in ("saliency", "edge"))
    assert not torch.equal(data[(3, 5)][1]["edge"], targets["edge"])
    assert not torch.equal(with_maps(seed=1)[(2, 5)][1]["edge"], targets["edge"])
    assert index == 5
    assert len(data) == 20


def test_batches_of_maps_have_every_task_and_damage_is_raised_as_it_was_said():
    loader = make_loader(with_maps(), BatchSampler(20, 4, shuffle=True), workers=0)
    x, targets, index = next(iter(loader))
    assert x.shape == (4, 3, 8, 8)
    assert {task: tuple(t.shape) for task, t in targets.items()} == dict.fromkeys(
        ("saliency", "edge"), (4, 1, 8, 8)
    )
    for k, place in enumerate(index.tolist()):
        assert (targets["saliency" if place < 10 else "edge"][k] == -1).all()
    damaged = with_maps(damaged=(3,))
    with pytest.raises(DamagedPictureError, match=r"^noise/3\.png: truncated$"):
        list(make_loader(damaged, BatchSampler(20, 4, shuffle=False), workers=0))
    with pytest.raises(ValueError, match=r"^noise/3\.png: truncated \(1 of 20 pictures can"):
        probe_all(len(damaged), damaged.pictures.probe)
    sound = leave_out_damaged_maps(damaged.pictures)
    assert sound.damaged == ("noise/3.png: truncated",)
    assert sound.pictures.sizes == (9, 10)
    assert sound.pictures.name(3) == "noise/4.png"


class TwoAnnotators(NoiseWithMaps):
    """The second marks what the first leaves out."""

    def truth(self, index):
        values = self.arrays[index][..., 0].astype(np.float32) / 255
        return Truth(values, (values >= 0.5, values < 0.5), "2 annotators")


def test_what_is_scored_is_whole_and_has_what_each_annotator_drew():
    """Of saliency the values as they are stored, of lines what is marked, whoever reads them."""
    joint = JointPictures([{"edge": TwoAnnotators(), "saliency": NoiseWithMaps()}])
    dataset = MapsToScore(joint, WholePreprocess(8))
    assert len(dataset) == 10
    batches = BatchSampler(10, 4, shuffle=False)
    for workers in (0, 1):
        loader = make_loader(dataset, batches, workers=workers, stacked=False)
        found = [sample for batch in loader for sample in zip(*batch, strict=True)]
        assert [int(index) for _, _, index in found] == list(range(10))
        for x, truths, index in found:
            pixels = NoiseWithMaps().arrays[index]
            assert torch.equal(x, WholePreprocess(8)(Image.fromarray(pixels)))
            assert x.shape == (3, 12, 16)
            assert list(truths) == ["saliency", "edge"]
            assert truths["saliency"].dtype == torch.float32
            assert (truths["saliency"].numpy() == pixels[..., 1].astype(np.float32) / 255).all()
            assert truths["edge"].dtype == torch.bool
            marked = pixels[..., 0] >= 128
            assert (truths["edge"].numpy() == np.stack([marked, ~marked])).all()


def test_what_is_scored_has_the_labels_of_its_own_set_only():
    joint = JointPictures([{"edge": NoiseWithMaps()}, {"saliency": NoiseWithMaps()}])
    dataset = MapsToScore(joint, WholePreprocess(8))
    assert [list(dataset[(0, index)][1]) for index in (9, 10)] == [["edge"], ["saliency"]]
    assert dataset[(0, 9)][1]["edge"].shape == (1, 12, 16)
    damaged = JointPictures([{"edge": NoiseWithMaps(damaged=(1,))}])
    loader = make_loader(
        MapsToScore(damaged, WholePreprocess(8)), BatchSampler(10, 4, shuffle=False), workers=0
    )
    with pytest.raises(DamagedPictureError, match=r"^noise/1\.png: truncated$"):
        list(loader)


def test_a_reading_process_heeds_the_training_process_only():
    loader = make_loader(augmented(), BatchSampler(10, 2, shuffle=False), workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = loader._iterator._workers
    for name in ("TERM", "INT"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert len(list(batches)) == 4
    assert worker.is_alive()
    loader._iterator._shutdown_workers()
    assert worker.exitcode == 0


def test_a_program_that_ends_with_a_loader_open_does_not_wait_for_its_workers():
    """Python's exit sends them SIGTERM and joins them: workers that ignore it hang it for ever."""
    code = (
        "from test_loading import *\n"
        "sampler = BatchSampler(10, 2, shuffle=False)\n"
        "batches = iter(make_loader(augmented(), sampler, workers=1))\n"
        "next(batches)\n"
        "keep = [batches]\n"
        "keep.append(keep)\n"  # a cycle: not freed before Python's exit
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, timeout=30, capture_output=True
    )
    assert done.returncode == 0, done.stderr
