import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.config import MiningConfig
from foveal.mining import MiningResult, RegionMiner
from foveal.mining.result import AREA, EMPTY, EXHAUSTED, MAX_STEPS

FIELDS = ("pairs", "masks", "scores", "step_map", "steps", "reason", "forwards")


def model(pictures):
    return 4 * pictures.mean((2, 3)), pictures


def mined(pictures=None, **changes):
    generator = torch.Generator().manual_seed(2)
    pictures = torch.rand(8, 3, 9, 10, generator=generator) ** 5
    # some with one bright part in dark, which end as empty, in the first step or later
    pictures[2] = -1.0
    pictures[3, :, 4:] = -1.0
    pictures[4] *= 0.1
    labels = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 1]]).repeat(2, 1)
    plain = {"mode": "absolute", "keep": 0.57, "tau": 0.45, "min_area": 2, "max_steps": 6}
    return RegionMiner(model, MiningConfig(**{**plain, **changes})).mine(pictures, labels)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_area_fraction": 0.1},
        {"fallback": "argmax_cell"},
        {"adaptive": False},
        {"joint_stop": True, "merged": True},
    ],
    ids=str,
)
def test_an_earlier_stop_is_read_from_the_step_map(k, options):
    earlier, mined_anew = mined(**options).at_step(k), mined(max_steps=min(k, 6), **options)
    for name in FIELDS:
        assert torch.equal(getattr(earlier, name), getattr(mined_anew, name)), name
    assert torch.equal(earlier.modulator.nan_to_num(-1), mined_anew.modulator.nan_to_num(-1))
    assert earlier.config == mined_anew.config
    assert torch.equal(earlier.to_label_map(), mined_anew.to_label_map())


def test_all_reasons_are_among_these():
    assert set(mined(max_area_fraction=0.1).reason.tolist()) == {EXHAUSTED, EMPTY, AREA}
    assert MAX_STEPS in mined().at_step(2).reason
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        mined().at_step(0)


def test_files_hold_everything(tmp_path):
    result = mined()
    folder = result.save(tmp_path / "new" / "mined")
    loaded = MiningResult.load(folder)
    for name in (*FIELDS, "near"):
        assert torch.equal(getattr(loaded, name), getattr(result, name)), name
        assert getattr(loaded, name).dtype == getattr(result, name).dtype
    assert np.array_equal(loaded.modulator, result.modulator, equal_nan=True)
    assert loaded.num_images == 8
    assert loaded.config == result.config
    assert torch.equal(loaded.to_label_map(band=0.5), result.to_label_map(band=0.5))
    n, c = result.pairs[3].tolist()
    with Image.open(folder / f"{n:04d}_{c:02d}.png") as image:
        assert np.array_equal(np.array(image), result.step_map[3].numpy())
    with np.load(folder / "mining.npz") as file:
        assert "masks" not in file
    assert not [path for path in folder.iterdir() if path.suffix not in (".png", ".npz")]


def test_files_of_nothing_and_of_an_earlier_stop(tmp_path):
    config = MiningConfig(mode="absolute")
    nothing = RegionMiner(model, config).mine(torch.rand(2, 3, 4, 5), torch.zeros(2, 3))
    loaded = MiningResult.load(nothing.save(tmp_path / "nothing"))
    assert loaded.to_label_map().shape == (2, 4, 5)
    earlier = MiningResult.load(mined().at_step(2).save(tmp_path / "earlier"))
    assert earlier.near is None
    assert earlier.steps.max() == 2


def test_a_file_that_is_missing_is_named(tmp_path):
    folder = mined().save(tmp_path)
    (folder / "0001_01.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0001_01\.png"):
        MiningResult.load(folder)


def test_the_band_is_what_almost_was_a_region_in_the_last_step():
    def one(pictures):
        return pictures.new_full((len(pictures), 1), 9.0), pictures[:, :1]

    picture = torch.zeros(1, 3, 1, 8)
    picture[0, :, 0] = torch.tensor([1.0, 0.6, 0.4, 0.26, 0.24, 0.1, 0.05, 0.01])
    config = MiningConfig(mode="absolute", min_area=1, max_steps=1)
    result = RegionMiner(one, config).mine(picture, torch.ones(1, 1))
    labels = result.to_label_map(band=0.5)
    assert labels.tolist() == [[[1, 1, 255, 255, 0, 0, 0, 0]]]
    assert result.to_label_map().tolist() == [[[1, 1, 0, 0, 0, 0, 0, 0]]]
    two = RegionMiner(one, dataclasses.replace(config, max_steps=2)).mine(picture, torch.ones(1, 1))
    # the second step takes above 0.2 and has 0.1 to 0.2 as its band
    assert two.to_label_map(band=0.49).tolist() == [[[1, 1, 1, 1, 1, 255, 0, 0]]]
    with pytest.raises(ValueError, match="leave band out, or mine with max_steps=1"):
        two.at_step(1).to_label_map(band=0.5)
    with pytest.raises(ValueError, match=r"band must lie in \(0, 1\), not 1.0"):
        two.to_label_map(band=1.0)
