import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from foveal.cli.parser import CommandParser, Options, _flag_value, parse_config
from foveal.config import (
    TASK_CONFIGS,
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    DenseConfig,
    DenseDataConfig,
    InferenceConfig,
    MapSetConfig,
    TrainConfig,
)


@dataclass(frozen=True, kw_only=True)
class ToyConfig(TrainConfig):
    """Do nothing at all.

    Attributes:
        stage: where to begin,
            at 50 % say; and more that the help page leaves out.
    """

    stage: str = "seed"


@pytest.fixture
def toy_task(monkeypatch):
    monkeypatch.setitem(TASK_CONFIGS, "toy", ToyConfig)


@pytest.fixture
def config_at(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refusal(*argv, **kw):
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse_config(argv, **kw)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_flags_give_the_defaults():
    assert parse_config(["classify"]) == (ClassifyConfig(), Options(resume=False, debug=False))


def test_flags_reach_fields_nested_ones_too():
    argv = "classify --epochs 3 --lr 1e-3 --data.root 2024 --augment.mixup 1 --out=a=b --threads 4"
    config, _ = parse_config(argv.split())
    assert config == ClassifyConfig(
        epochs=3,
        lr=0.001,
        data=DataConfig(root="2024"),
        augment=AugmentConfig(mixup=1.0),
        out="a=b",
        threads=4,
    )
    assert type(config.augment.mixup) is float


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--ema"], True),
        (["--ema", "true"], True),
        (["--ema", "false"], False),
        (["--ema=false"], False),
        (["--ema", "--no"], None),
        ([], False),
    ],
)
def test_a_boolean_stands_alone_or_takes_a_value(argv, value):
    if value is None:
        assert "unknown flag '--no'" in refusal("classify", *argv)
    else:
        assert parse_config(["classify", *argv])[0].ema is value


def test_entries_of_a_mapping_are_typed():
    argv = ["--model_args.stem_stride", "1", "--model_args.rate=0.5", "--model_args.act", "relu"]
    argv += [
        "--model_args.last",
        "true",
        "--loss_args.label_smoothing",
        "0.1",
        "--model_args.neg",
        "-1",
    ]
    config, _ = parse_config(["classify", *argv])
    expected = {"stem_stride": 1, "rate": 0.5, "act": "relu", "last": True, "neg": -1}
    assert config.model_args == expected
    assert [type(v) for v in expected.values()] == [type(v) for v in config.model_args.values()]
    assert config.loss_args == {"label_smoothing": 0.1}


def test_a_whole_mapping_replaces_and_an_entry_adds(config_at):
    file = config_at("model_args: {a: 1, b: 2}")
    assert parse_config(["classify", "--config", file, "--model_args.c", "3"])[0].model_args == {
        "a": 1,
        "b": 2,
        "c": 3,
    }
    whole = ["classify", "--config", file, "--model_args", "{d: 4}", "--model_args.c", "3"]
    assert parse_config(whole)[0].model_args == {"d": 4, "c": 3}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--threads", "4", "--threads", "null"], None),
        (["--checkpoint", "null"], None),
        (["--checkpoint", "1"], "1"),
        (["--checkpoint", "null.ckpt"], "null.ckpt"),
        (["--model", "true"], "true"),
        (["--amp", "no"], "no"),
    ],
)
def test_text_stays_text_where_a_string_is_wanted(argv, expected):
    config, _ = parse_config(["classify", *argv])
    assert getattr(config, argv[0].removeprefix("--")) == expected


@pytest.mark.parametrize("hint", [list[str], tuple[str, ...], tuple[str, ...] | None])
@pytest.mark.parametrize("text", ["a,b", "[a, b]"])
def test_lists_with_or_without_brackets(hint, text):
    assert _flag_value(hint, text, "--tasks") == ["a", "b"]


def test_later_sources_override_earlier_ones(config_at):
    recipes = {"small": lambda: ClassifyConfig(epochs=1, lr=0.1, data=DataConfig(workers=7))}
    file = config_at("task: classify\nepochs: 2\nseed: 2\ndata: {batch_size: 5}\namp: no\nlr: 2e-1")
    config, _ = parse_config(
        ["classify", "--seed", "3", "--config", file, "--recipe", "small"], recipes=recipes
    )
    assert config == ClassifyConfig(
        epochs=2, lr=0.2, seed=3, data=DataConfig(workers=7, batch_size=5), amp="no"
    )


def test_the_file_names_the_task(config_at, toy_task):
    config, options = parse_config(["--config", config_at("task: toy\nstage: x"), "--resume"])
    assert config == ToyConfig(stage="x")
    assert options == Options(resume=True)
    assert parse_config(["toy", "--config=" + config_at("stage: y")])[0] == ToyConfig(stage="y")


def test_a_file_of_another_task_is_refused(config_at, toy_task):
    file = config_at("task: toy")
    message = refusal("classify", "--config", file)
    assert message == (
        f"{file} holds a config of the task 'toy', not 'classify': "
        "leave 'classify' out, or give another file"
    )


def test_no_task_names_the_tasks(config_at, toy_task):
    assert "write foveal train {classify|segment|dense|weak|toy}" in refusal()
    assert "write foveal train {classify|segment|dense|weak|toy}" in refusal("--epochs", "3")
    assert "has no key 'task'" in refusal("--config", config_at("epochs: 3"))
    assert refusal("clasify") == "unknown task 'clasify': did you mean 'classify'?"
    assert "unknown task '[1]'" in refusal("--config", config_at("task: [1]"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epchs", "3"], "unknown flag '--epchs': did you mean '--epochs'?"),
        (["--data.rot=x"], "unknown flag '--data.rot': did you mean '--data.root'?"),
        (["--weight-decay", "1"], "unknown flag '--weight-decay': did you mean '--weight_decay'?"),
        (["--model_args.", "1"], "unknown flag '--model_args.': did you mean '--model_args'?"),
        (["--lrs", "1", "--epochs", "x"], "unknown flag '--lrs': did you mean '--lr'?"),
        (["--epochs"], "--epochs: expected one argument"),
        (["--config"], "--config: expected one argument"),
        (["--model_args.x"], "--model_args.x: expected one argument"),
        (["--epochs", "x"], "config key 'epochs' must be int, not 'x'"),
        (["--epochs", "2e1"], "config key 'epochs' must be int, not 20.0"),
        (["--ema", "maybe"], "config key 'ema' must be bool, not 'maybe'"),
        (["--amp", "fp8"], "config key 'amp' must be no or bf16 or fp16, not 'fp8'"),
        (["--data.on_error", "x"], "config key 'data.on_error' must be stop or skip, not 'x'"),
        (["--threads", "x"], "config key 'threads' must be int | None, not 'x'"),
        (["--model_args", "5", "--model_args.x", "1"], "config key 'model_args' must hold keys"),
        (["--model_args.x", "{y: 1}"], "config key 'model_args.x' must be"),
        (["--model_args", "{a: 1"], "--model_args, line 1: not YAML"),
        (["--recipe", "smal"], "unknown recipe 'smal': did you mean 'small'?"),
        (["3"], "unexpected argument: 3"),
    ],
)
def test_wrong_flags_get_one_sentence(argv, message):
    recipes = {"small": ClassifyConfig}
    assert refusal("classify", *argv, recipes=recipes).startswith(message)


def test_abbreviations_are_no_flags():
    assert refusal("classify", "--epoch", "3") == "unknown flag '--epoch': did you mean '--epochs'?"


def test_a_recipe_of_another_task(toy_task):
    recipes = {"toy_one": ToyConfig}
    message = refusal("classify", "--recipe", "toy_one", recipes=recipes)
    assert message == "recipe 'toy_one' is for the task 'toy', not 'classify'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epchs: 3", "unknown config key 'epchs': did you mean 'epochs'?"),
        ("data: {rot: x}", "unknown config key 'data.rot': did you mean 'data.root'?"),
        ("epochs: 2e1", "config key 'epochs' must be int, not 20.0"),
        ("epochs: ten", "config key 'epochs' must be int, not 'ten'"),
        ("data: null", "config key 'data' must hold keys, not None"),
        ("model_args: [1]", "config key 'model_args' must hold keys, not [1]"),
        ("schedule: cosin", "config key 'schedule' must be cosine or "),
    ],
)
def test_wrong_keys_name_the_file(config_at, text, message):
    file = config_at(f"task: classify\n{text}\n")
    assert refusal("--config", file).startswith(f"{file}: {message}")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        parse_config(["--config", str(tmp_path / "absent.yaml")])


def test_printed_config_is_accepted_again(config_at, capsys):
    argv = ["classify", "--amp", "no", "--out", "1e3", "--lr", "1e-5", "--model_args.a", "'2'"]
    with pytest.raises(SystemExit) as stop:
        parse_config([*argv, "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("task: classify\n")
    assert parse_config(["--config", config_at(printed)]) == parse_config(argv)
    assert parse_config(argv)[0].model_args == {"a": "2"}


def test_help_of_a_task(capsys, toy_task):
    with pytest.raises(SystemExit) as stop:
        parse_config(["toy", "--help"], recipes={"small": ClassifyConfig})
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: foveal train toy [flags]\n\nDo nothing at all.\n")
    lines = {line.split()[0]: " ".join(line.split()) for line in page.splitlines() if line.strip()}
    assert lines["--stage"] == ("--stage VALUE where to begin, at 50 % say (default: seed)")
    assert lines["--ema"].startswith("--ema [true|false] evaluate and keep an exponential")
    assert lines["--amp"].startswith("--amp {no,bf16,fp16} arithmetic of the forward pass")
    assert lines["--recipe"] == "--recipe NAME start from: small"
    assert lines["--data.root"].endswith("folder, or .csv file, of the data")
    assert "``" not in page
    assert len(page.splitlines()) < 100
    assert max(map(len, page.splitlines())) <= 100


def test_every_field_has_a_description(capsys):
    with pytest.raises(SystemExit):
        parse_config(["classify", "--help"])
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  --") and len(line) < 36:
            continue  # a long flag; its description follows on the next line
        if line.startswith("  --"):
            assert line[34:].strip().removeprefix("(default"), line
            assert not line[34:].strip().startswith("(default"), line


def test_help_without_a_task(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(["--help"])
    assert stop.value.code == 0
    assert "foveal train {classify|segment|dense|weak} [flags]" in capsys.readouterr().out


def test_command_parser_answers_in_one_sentence():
    parser = CommandParser("foveal export")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--format", required=True)
    parser.add_argument("--port", type=int)
    for argv, message in [
        (["x", "--formt", "onnx"], "unknown flag '--formt': did you mean '--format'?"),
        (["x", "--form=onnx"], "unknown flag '--form': did you mean '--format'?"),
        (["--format", "onnx"], "the following arguments are required: RUN"),
        (["x", "y", "--format", "onnx"], "unexpected argument: y"),
        (["x", "--format", "onnx", "--port", "a"], "--port: invalid int value: 'a'"),
    ]:
        with pytest.raises(ValueError, match=r"\S") as caught:
            parser.parse_args(argv)
        assert str(caught.value) == message
    found = parser.parse_args(["--debug", "--format=onnx", "--", "--odd-name"])
    assert (found.run, found.format, found.debug) == ("--odd-name", "onnx", True)


@pytest.mark.parametrize(
    "argv", [["classify", "--print_config"], ["classify", "--epchs", "3"], ["classify", "--help"]]
)
def test_answers_without_importing_torch(argv):
    code = f"from foveal.cli.parser import parse_config; parse_config({argv!r})"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True
    )
    assert time.monotonic() - started < 10  # about 0.2 s; a second is promised, on an idle machine
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "foveal.config" in imported
    assert not imported & {"torch", "timm", "lightning", "numpy", "rich", "foveal.tasks"}
    assert ("task: classify" in done.stdout) == ("--print_config" in argv)


def test_flags_of_several_sets():
    argv = "dense --tasks saliency,edge --data.saliency.root duts --data.edge.root bsds"
    argv += " --data.edge.layout bsds500 --data.edge.ratio 2 --inference.edge_scales 0.5,1"
    argv += " --loss_args.reduction sum_per_image"
    config, _ = parse_config(argv.split())
    data = DenseDataConfig(
        saliency=MapSetConfig(root="duts"),
        edge=MapSetConfig(root="bsds", layout="bsds500", ratio=2.0),
    )
    assert config == DenseConfig(
        tasks=("saliency", "edge"),
        data=data,
        inference=InferenceConfig(edge_scales=(0.5, 1.0)),
        loss_args={"reduction": "sum_per_image"},
    )


def test_one_task_is_a_list_of_one():
    assert parse_config(["dense", "--tasks", "edge"])[0].tasks == ("edge",)
    assert parse_config(["dense", "--tasks", "[edge, skeleton]"])[0].tasks == ("edge", "skeleton")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--tasks edges", "unknown task 'edges': did you mean 'edge'"),
        ("--data.edge.rot x", "unknown flag '--data.edge.rot': did you mean '--data.edge.root'"),
        (
            "--data.edges.root x",
            "unknown flag '--data.edges.root': did you mean '--data.edge.root'",
        ),
        ("--data.edge.ratio many", "ratio"),
        ("--tasks edge --data.skeleton.root x", "data.skeleton.root is given, but skeleton is not"),
    ],
)
def test_wrong_flags_of_several_sets(argv, message):
    assert message in refusal("dense", *argv.split())


def test_a_file_of_a_dense_run_and_flags_over_it(config_at):
    file = config_at("task: dense\ntasks: [edge]\ndata: {edge: {root: a, ratio: 3}}")
    config, _ = parse_config(["dense", "--config", file, "--data.edge.root", "b"])
    assert config.data.edge == MapSetConfig(root="b", ratio=3.0)
    file = config_at("task: dense\ndata: {edge: {rot: a}}")
    assert "data.edge.rot" in (found := refusal("dense", "--config", file))
    assert "did you mean 'data.edge.root'" in found
