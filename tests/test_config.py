"""Configs as values: round trips and one-sentence errors."""

import dataclasses
import inspect
import re
import subprocess
import sys

import pytest

from foveal.config import (
    ClassifyConfig,
    DataConfig,
    DenseAugmentConfig,
    Insertion,
    SegmentAugmentConfig,
    SegmentConfig,
    SlidingConfig,
    from_dict,
    task_of,
    to_dict,
    updated,
)
from foveal.recipes import RECIPES


def test_round_trip_of_a_changed_config():
    config = ClassifyConfig(data=DataConfig(root="x y", batch_size=3), lr=1e-4, ema=True)
    values = to_dict(config)
    assert values["task"] == "classify"
    assert next(iter(values)) == "task"
    assert from_dict(values) == config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_returns_a_config_that_survives_yaml(name):
    import yaml

    config = RECIPES[name]()
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "has no 'task': it must be one of classify"),
        ({"task": "clasify"}, "unknown task 'clasify': did you mean 'classify'?"),
        ({"task": "classify", "epoch": 3}, "unknown config key 'epoch': did you mean 'epochs'?"),
        (
            {"task": "classify", "data": {"rot": "x"}},
            "unknown config key 'data.rot': did you mean 'data.root'?",
        ),
        ({"task": "classify", "data": 3}, "'data' must hold keys, not 3"),
        ({"task": "classify", "epochs": "many"}, "'epochs' must be int, not 'many'"),
        ({"task": "classify", "epochs": True}, "'epochs' must be int, not True"),
        ({"task": "classify", "amp": "fp8"}, "'amp' must be no or bf16 or fp16, not 'fp8'"),
        ({"task": "classify", "max_steps": 1.5}, "'max_steps' must be int"),
        ({"task": "classify", "max_steps": 0}, "max_steps must be at least 1, not 0"),
        ({"task": "classify", "epochs": 0}, "epochs must be at least 1, not 0"),
        ({"task": "classify", "lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"task": "classify", "data": {"batch_size": 0}}, "data.batch_size must be at least 1"),
        ({"task": "classify", "data": {"val_fraction": 1.5}}, "must lie in (0, 1), not 1.5"),
        ({"task": "classify", "data": {"val_fraction": 0.0}}, "data.val_fraction must lie in (0"),
        ({"task": "classify", "data": {"test_fraction": 1.0}}, "data.test_fraction must lie in (0"),
        ({"task": "classify", "data": {"label_noise": 1.0}}, "must lie in [0, 1), not 1.0"),
        ({"task": "classify", "data": {"label_noise": -0.1}}, "data.label_noise must lie in [0, 1"),
        (
            {"task": "classify", "data": {"label_noise_kind": "flip"}},
            "'data.label_noise_kind' must be symmetric or pair, not 'flip'",
        ),
        (
            {"task": "classify", "data": {"label_noise_seed": -1}},
            "data.label_noise_seed must be at least 0, not -1",
        ),
        ({"task": "classify", "fgsm": 8.0}, "fgsm must lie in [0, 1], not 8.0"),
        (
            {"task": "classify", "augment": {"padding": 4}},
            "augment.padding needs augment.min_scale 1, not 0.35",
        ),
        ({"task": "classify", "augment": {"hflip": -1.0}}, "augment.hflip must lie in [0, 1]"),
        ({"task": "classify", "augment": {"min_scale": 0.0}}, "must lie in (0, 1], not 0.0"),
        ({"task": "classify", "insert": "blocks"}, "config key 'insert' must be a list, not 'bl"),
        ({"task": "classify", "insert": ["x"]}, "config key 'insert[0]' must hold keys, not 'x'"),
        ({"task": "classify", "insert": [{"layer": "se"}]}, "config key 'insert[0]' needs 'where'"),
        (
            {"task": "classify", "insert": [{"layer": "se", "where": "x", "identty": True}]},
            "unknown config key 'insert[0].identty': did you mean 'insert[0].identity'?",
        ),
        (
            {"task": "classify", "insert": [{"layer": "se", "where": "x", "reduction": 4}]},
            "unknown config key 'insert[0].reduction': it must be one of insert[0].layer",
        ),
        (
            {"task": "classify", "insert": [{"layer": "se", "where": 3}]},
            "config key 'insert[0].where' must be str, not 3",
        ),
    ],
)
def test_wrong_values_name_the_key_and_what_would_be_right(values, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        from_dict(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bare_no_in_yaml_is_the_word():
    assert from_dict({"task": "classify", "amp": False}).amp == "no"


def test_model_args_keep_their_types():
    args = {"stem_stride": 1, "drop_rate": 0.5, "flag": True, "name": "x"}
    config = from_dict({"task": "classify", "model_args": args})
    assert {k: type(v) for k, v in config.model_args.items()} == {
        "stem_stride": int,
        "drop_rate": float,
        "flag": bool,
        "name": str,
    }


def test_whole_numbers_are_accepted_where_a_float_is_wanted():
    config = from_dict({"task": "classify", "lr": 1})
    assert config.lr == 1.0
    assert isinstance(config.lr, float)


def test_only_task_configs_have_a_task():
    with pytest.raises(TypeError, match="ClassifyConfig or SegmentConfig, not DataConfig"):
        task_of(DataConfig())


def test_every_field_is_documented():
    for config_class in (ClassifyConfig, *ClassifyConfig.__mro__[1:-1], DataConfig, Insertion):
        own = inspect.get_annotations(config_class)
        missing = [name for name in own if f"\n        {name}: " not in config_class.__doc__]
        assert missing == []


def test_config_and_recipes_import_the_standard_library_only():
    code = (
        "import sys, foveal.config, foveal.recipes\n"
        "heavy = {'torch', 'timm', 'lightning', 'jsonargparse', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_insertions_survive_yaml_and_are_compared_by_value():
    import yaml

    insertion = Insertion(layer="coordinate", where="layer[34].*", layer_args={"reduction": 16})
    config = ClassifyConfig(insert=(insertion,))
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    assert from_dict(to_dict(config)).insert[0] is not insertion
    assert ClassifyConfig(insert=[insertion]) == config
    with pytest.raises(TypeError, match="the where of an Insertion must be str, not <function"):
        Insertion(layer="se", where=lambda name, module: True)
    with pytest.raises(TypeError, match=r"insert must be a tuple of foveal\.Insertion, not Inser"):
        ClassifyConfig(insert=insertion)
    with pytest.raises(TypeError, match=r"insert must hold foveal\.Insertion objects, not a dict"):
        ClassifyConfig(insert=({"layer": "se", "where": "blocks"},))


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClassifyConfig().lr = 1.0


@pytest.mark.parametrize("ignored", [{"loss": "other"}, {"loss_args": {"label_smoothing": 0.1}}])
def test_multi_label_takes_no_other_loss(ignored):
    with pytest.raises(ValueError, match="multi_label trains the binary cross entropy"):
        ClassifyConfig(multi_label=True, **ignored)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": DataConfig(label_noise=0.2)}, "data.label_noise swaps the one class"),
        ({"fgsm": 0.1}, "fgsm attacks the one class"),
    ],
)
def test_multi_label_takes_nothing_that_needs_one_class_a_picture(values, message):
    with pytest.raises(ValueError, match=message):
        ClassifyConfig(multi_label=True, **values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "multistep"}, "multistep needs milestones, such as 30,60,90"),
        ({"milestones": (3,)}, r"for the schedule multistep, not cosine: .* --milestones '\[\]'"),
        (
            {"schedule": "multistep", "milestones": (3, 9), "epochs": 9},
            "the milestone 9 is never reached in 9 epochs",
        ),
        ({"schedule": "multistep", "milestones": (3, 3)}, "rising numbers .* above 0, not 3, 3"),
        ({"schedule": "multistep", "milestones": (0, 3)}, "rising numbers .* above 0, not 0, 3"),
        ({"decay_rate": 0.0}, r"decay_rate must lie in \(0, 1\], not 0.0"),
    ],
)
def test_milestones_that_mean_nothing(changes, message):
    with pytest.raises(ValueError, match=message):
        ClassifyConfig(**changes)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"min_scale": 0.0}, "augment.min_scale must be above 0 and at most augment.max_scale 2.0"),
        ({"min_scale": 1.5, "max_scale": 1.2}, "at most augment.max_scale 1.2, not 1.5"),
        ({"rotate": -1.0}, "augment.rotate must lie in [0, 180], not -1.0"),
        ({"blur": 2.0}, "augment.blur must lie in [0, 1], not 2.0"),
        ({"hflip": float("nan")}, "augment.hflip must lie in [0, 1], not nan"),
    ],
)
def test_changes_of_pictures_with_masks_are_checked(fields, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SegmentAugmentConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_scale": 1.3}, "augment.min_scale must be above 0 and at most augment.max_scale 1.2"),
        ({"rotate": 181.0}, "augment.rotate must lie in [0, 180], not 181.0"),
        ({"hflip": 1.5}, "augment.hflip must lie in [0, 1], not 1.5"),
    ],
)
def test_wrong_changes_of_pictures_with_maps(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DenseAugmentConfig(**fields)


def test_arguments_of_other_functions_are_plain_from_the_start():
    """A run writes its config after hours of training: what it cannot read back is refused now."""
    config = SegmentConfig(backbone_args={"channels": (32, 64)}, model_args={"gate": None})
    assert config.backbone_args == {"channels": [32, 64]}
    assert from_dict(to_dict(config)) == config
    assert Insertion(layer="mixed", where="x", layer_args={"pool_sizes": (8, 4)}).layer_args == {
        "pool_sizes": [8, 4]
    }
    for value in ({"a": 1}, object(), [[1, 2]], len):
        with pytest.raises(ValueError, match=r"^config key 'model_args.x' must be int"):
            ClassifyConfig(model_args={"x": value})


def test_parts_of_a_config_are_what_they_must_be():
    with pytest.raises(TypeError, match=r"^sliding must be a foveal.config.SlidingConfig, not {"):
        SegmentConfig(sliding={"window": 3})
    for scales in (1.5, "0.5"):
        with pytest.raises(TypeError, match=r"^sliding.scales must be several numbers"):
            SlidingConfig(scales=scales)


def test_a_part_is_updated_under_the_rules_of_a_file():
    sliding = updated(SlidingConfig(window=9), {"scales": [1, 2]}, "sliding.")
    assert sliding == SlidingConfig(window=9, scales=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"'sliding.scale': did you mean 'sliding.scales'"):
        updated(sliding, {"scale": (1.0,)}, "sliding.")
    with pytest.raises(ValueError, match=r"config key 'sliding.window' must be"):
        updated(sliding, {"window": "x"}, "sliding.")
