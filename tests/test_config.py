"""Configs as values: round trips and one-sentence errors."""

import dataclasses
import re
import subprocess
import sys

import pytest

from foveal.config import (
    DENSE_TASKS,
    TASK_CONFIGS,
    ActivationConfig,
    AugmentConfig,
    ClassifyConfig,
    CrfConfig,
    DataConfig,
    DenseAugmentConfig,
    DenseConfig,
    DenseDataConfig,
    InferenceConfig,
    Insertion,
    MapScoresConfig,
    MapSetConfig,
    MiningConfig,
    PseudoLabelConfig,
    SegmentAugmentConfig,
    SegmentConfig,
    SlidingConfig,
    WeakClassifierConfig,
    WeakConfig,
    from_dict,
    network_task_of,
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
    with pytest.raises(
        TypeError, match="ClassifyConfig or SegmentConfig or DenseConfig or WeakConfig, not DataC"
    ):
        task_of(DataConfig())


def test_every_field_is_documented():
    parts = (AugmentConfig, DataConfig, Insertion, SlidingConfig, SegmentAugmentConfig)
    parts += (DenseAugmentConfig, DenseDataConfig, InferenceConfig, MapScoresConfig, MapSetConfig)
    parts += (WeakClassifierConfig, ActivationConfig, PseudoLabelConfig, CrfConfig, MiningConfig)
    for config_class in (*TASK_CONFIGS.values(), *parts):
        documentation = "".join(str(c.__doc__) for c in config_class.__mro__)
        fields = [f.name for f in dataclasses.fields(config_class)]
        missing = [name for name in fields if f"\n        {name}: " not in documentation]
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


def every_value_changed():
    """Return a dense run in which no field of its own has its default."""
    return DenseConfig(
        tasks=("skeleton", "edge"),
        data=DenseDataConfig(
            root="all",
            domain="night",
            image_size=96,
            batch_size=3,
            edge=MapSetConfig(root="x y", layout="bsds500", ratio=2.0),
            skeleton=MapSetConfig(root="sk", domain="day", ratio=0.5),
        ),
        augment=DenseAugmentConfig(min_scale=0.5, max_scale=1.5, rotate=90.0, hflip=0.0),
        inference=InferenceConfig(
            saliency_scales=(0.5, 1.0),
            edge_scales=(0.5, 1.0, 1.5, 2.0),
            skeleton_scales=(1.5,),
            stretch=False,
            tile=500,
            bits=16,
        ),
        scores=MapScoresConfig(min_max=False, thresholds=25, val_thresholds=5),
        loss="cross_entropy",
        loss_args={"reduction": "sum_per_image", "edge_weight": 0.5},
        head_lr_scale=2.0,
        model_args={"deep_supervision": []},
    )


def test_a_dense_run_survives_yaml():
    import yaml

    config = every_value_changed()
    values = to_dict(config)
    assert values["task"] == task_of(config) == "dense"
    assert values["tasks"] == ["edge", "skeleton"]
    text = yaml.safe_dump(values, sort_keys=False)
    assert from_dict(yaml.safe_load(text)) == config == from_dict(values)
    assert from_dict({"task": "dense"}) == DenseConfig()


def test_tasks_are_in_the_usual_order_each_once():
    assert DenseConfig(tasks=("skeleton", "saliency", "skeleton")).tasks == ("saliency", "skeleton")
    assert DenseConfig(tasks=["edge"]).tasks == ("edge",)


def test_parts_of_a_dense_run_are_named_after_its_tasks():
    config = every_value_changed()
    assert config.data.of("edge").root == "x y"
    assert [config.inference.scales(task) for task in DENSE_TASKS] == [
        (0.5, 1.0),
        (0.5, 1.0, 1.5, 2.0),
        (1.5,),
    ]
    assert (DenseConfig().data.batch_size, config.data.batch_size) == (8, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": ["edges"]}, "unknown task 'edges': did you mean 'edge'?"),
        ({"tasks": "edge"}, "config key 'tasks' must be a list, not 'edge'"),
        (
            {"tasks": ["edge"], "data": {"saliency": {"root": "x"}}},
            "data.saliency.root is given, but saliency is not among the tasks edge: leave one of",
        ),
        (
            {"data": {"edge": {"rot": "x"}}},
            "unknown config key 'data.edge.rot': did you mean 'data.edge.root'?",
        ),
        (
            {"data": {"edges": {"root": "x"}}},
            "unknown config key 'data.edges': did you mean 'data.edge'?",
        ),
        ({"data": {"edge": "x"}}, "config key 'data.edge' must hold keys, not 'x'"),
        ({"data": {"edge": {"ratio": 0.0}}}, "data.edge.ratio must be above 0, not 0.0"),
        (
            {"data": {"skeleton": {"ratio": float("inf")}}},
            "data.skeleton.ratio must be above 0, not inf",
        ),
        ({"data": {"labels": "edge"}}, "data.labels is for other tasks: --tasks says what is"),
        ({"data": {"labels": "coarse"}}, "such as saliency"),
        ({"data": {"label_noise": 0.1}}, "data.label_noise swaps classes, and maps have none"),
        (
            {"inference": {"edge_scales": [1, 0]}},
            "inference.edge_scales must be numbers above 0, not [1.0, 0.0]",
        ),
        ({"inference": {"saliency_scales": []}}, "inference.saliency_scales must be numbers above"),
        ({"inference": {"tile": -1}}, "inference.tile must be at least 0, not -1"),
        ({"inference": {"bits": 12}}, "inference.bits must be 8 or 16, not 12"),
        ({"inference": {"edge_scale": [1]}}, "did you mean 'inference.edge_scales'?"),
        ({"scores": {"thresholds": 0}}, "scores.thresholds must be at least 1, not 0"),
        ({"scores": {"val_thresholds": 0}}, "scores.val_thresholds must be at least 1, not 0"),
        ({"head_lr_scale": 0.0}, "head_lr_scale must be above 0, not 0.0"),
        ({"augment": {"blur": 0.1}}, "unknown config key 'augment.blur'"),
    ],
)
def test_wrong_values_of_a_dense_run(values, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict({"task": "dense", **values})
    assert "\n" not in str(error.value)


def test_tasks_are_several_names():
    with pytest.raises(TypeError, match=r"^tasks must be several names, such as \('edge',\), not"):
        DenseConfig(tasks="edge")
    with pytest.raises(TypeError, match=r"^data must be a foveal.config.DenseDataConfig, not Data"):
        DenseConfig(data=DataConfig())
    with pytest.raises(TypeError, match=r"^edge must be a foveal.config.MapSetConfig, not"):
        DenseDataConfig(edge={"root": "x"})


def test_a_run_from_image_labels_survives_yaml():
    import yaml

    config = WeakConfig(
        data=DataConfig(root="voc", image_size=96, val_fraction=0.2),
        classifier=WeakClassifierConfig(epochs=3, data=DataConfig(image_size=64, batch_size=5)),
        activation=ActivationConfig(scales=(0.5, 1.0), flip=True),
        mining=MiningConfig(tau=0.3, merged=True),
        pseudo=PseudoLabelConfig(conflict="smaller", band=0.5, crf=CrfConfig(iterations=10)),
        rounds=2,
        seed=7,
        max_steps=12,
        out="run",
    )
    values = to_dict(config)
    assert values["task"] == task_of(config) == "weak"
    assert network_task_of(config) == network_task_of(SegmentConfig()) == "segment"
    text = yaml.safe_dump(values, sort_keys=False)
    assert from_dict(yaml.safe_load(text)) == config == from_dict(values)
    partly = from_dict({"task": "weak", "classifier": {"epochs": 3}})
    assert partly.classifier == WeakClassifierConfig(epochs=3)


def test_a_run_from_image_labels_hands_its_data_and_machine_to_its_parts():
    config = WeakConfig(
        data=DataConfig(root="voc", image_size=96, batch_size=3, workers=0),
        classifier=WeakClassifierConfig(epochs=3, data=DataConfig(image_size=64, batch_size=5)),
        seed=7,
        max_steps=12,
        lr=0.5,
    )
    classify = config.classify_config("c")
    assert type(classify) is ClassifyConfig
    assert classify.data == DataConfig(root="voc", image_size=64, batch_size=5, workers=0)
    assert (classify.multi_label, classify.epochs, classify.lr) == (True, 3, ClassifyConfig().lr)
    assert (classify.seed, classify.max_steps, classify.out) == (7, 12, "c")
    segment = config.segment_config("labels", "pseudo_labels", "s")
    assert type(segment) is SegmentConfig
    assert segment.data == dataclasses.replace(config.data, root="labels", layout="pseudo_labels")
    assert (segment.lr, segment.seed, segment.max_steps, segment.out) == (0.5, 7, 12, "s")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WeakClassifierConfig(multi_label=False), "classifier.multi_label is true in ever"),
        (lambda: WeakClassifierConfig(seed=3), "classifier.seed is that of the whole run: give se"),
        (
            lambda: WeakClassifierConfig(data=DataConfig(root="x")),
            "classifier.data.root is that of the whole run: give data.root in its place",
        ),
        (lambda: WeakConfig(rounds=0), "rounds must lie in [1, 2], not 0"),
        (lambda: ActivationConfig(scales=()), "activation.scales must be numbers above 0"),
        (lambda: ActivationConfig(batch_size=0), "activation.batch_size must be at least 1"),
        (lambda: PseudoLabelConfig(band=1.0), "pseudo.band must lie in (0, 1), not 1.0"),
        (lambda: PseudoLabelConfig(band=0.5, steps=2), "pseudo.band is of the last step"),
        (lambda: PseudoLabelConfig(steps=0), "pseudo.steps must be at least 1, not 0"),
        (lambda: PseudoLabelConfig(saliency_threshold=2), "pseudo.saliency_threshold must lie in"),
        (lambda: CrfConfig(confidence=1.0), "pseudo.crf.confidence must lie in (0, 1), not 1.0"),
        (lambda: CrfConfig(color_srgb=0), "pseudo.crf.color_srgb must be above 0, not 0"),
        (lambda: CrfConfig(iterations=-1), "pseudo.crf.iterations must be at least 0, not -1"),
    ],
)
def test_settings_of_a_run_from_image_labels_that_cannot_be(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
