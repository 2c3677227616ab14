import dataclasses
import subprocess
import sys

import pytest

import foveal.config
import foveal.explanation
import foveal.metrics
import foveal.mining
from foveal.config import MiningConfig
from foveal.config.values import build
from foveal.mining import functional


def test_it_is_one_class_whose_defaults_are_those_of_the_page():
    assert foveal.mining.MiningConfig is foveal.config.MiningConfig
    assert dataclasses.asdict(MiningConfig()) == {
        "tau": 0.5,
        "keep": 0.5,
        "mode": "calibrated",
        "quantile": 0.95,
        "min_area": 4,
        "max_steps": 8,
        "decay": 0.9,
        "erase": "pixel",
        "dilation": 0,
        "statistic": "topk",
        "top_k": 9,
        "max_area_fraction": None,
        "fallback": "none",
        "max_batch_pairs": 64,
        "adaptive": True,
        "merged": False,
        "joint_stop": False,
    }


def test_it_survives_a_file():
    config = MiningConfig(tau=0.3, mode="relative", max_area_fraction=0.9, statistic="logit")
    assert build(MiningConfig, dataclasses.asdict(config), "mining.") == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "absolut"}, r"unknown mining.mode 'absolut': did you mean 'absolute'"),
        ({"erase": "pixels"}, "did you mean 'pixel'"),
        ({"statistic": "top"}, "did you mean 'topk'"),
        ({"fallback": "argmax"}, "did you mean 'argmax_cell'"),
        ({"tau": 1.0}, r"mining.tau must lie in \[0, 1\), not 1.0"),
        ({"tau": float("nan")}, r"mining.tau must lie in \[0, 1\), not nan"),
        ({"keep": 1.5}, r"mining.keep must lie in \[0, 1\], not 1.5"),
        ({"quantile": 95}, r"mining.quantile must lie in \[0, 1\], not 95"),
        ({"max_steps": 256}, r"mining.max_steps must lie in \[1, 255\], not 256"),
        ({"decay": 0.0}, r"mining.decay must be above 0, not 0.0"),
        ({"min_area": 0}, r"mining.min_area must be at least 1, not 0"),
        ({"top_k": 0}, r"mining.top_k must be at least 1, not 0"),
        ({"max_batch_pairs": 0}, r"mining.max_batch_pairs must be at least 1, not 0"),
        ({"max_area_fraction": 0.0}, r"mining.max_area_fraction must be above 0"),
        ({"adaptive": False, "joint_stop": True}, "leave one of the two out"),
    ],
)
def test_what_cannot_be_is_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        MiningConfig(**changes)


def test_the_functions_of_the_contract_are_in_one_place():
    assert set(functional.__all__) == {
        *("class_activation", "erase", "feature_mask", "enumerate_pairs", "compose_label_map"),
        *("iou_by_object_size", "spearman"),
    }
    assert functional.class_activation is foveal.explanation.class_activation
    assert functional.spearman is foveal.metrics.spearman


def test_mining_needs_no_lightning():
    code = "import sys, foveal.mining; assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
