"""``foveal insert`` and ``--insert`` as a person types them."""

import json

import pytest
import yaml

from foveal.cli import main
from foveal.cli.parser import parse_config

INSERT = ["insert", "--model", "test_resnet", "--layer", "coordinate"]


def failing(capsys, *argv):
    """Return the one sentence that a command prints before it exits with 2."""
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("foveal: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_it_prints_the_report_and_writes_a_config_that_train_takes(tmp_path, capsys):
    out = tmp_path / "new folder" / "coordinate.yaml"
    flags = ["--where", "layer[34].*", "--identity", "--layer_args.reduction", "16"]
    flags += ["--model_args.in_chans", "1", "--image_size", "28", "--out", str(out)]
    assert main([*INSERT, *flags]) == 0
    printed = capsys.readouterr().out
    assert "coordinate, reduction=16 after" in printed
    assert "multiply-adds (1x28x28)" in printed
    assert f"wrote {out}" in printed
    assert yaml.safe_load(out.read_text()) == {
        "model": "test_resnet",
        "model_args": {"in_chans": 1},
        "insert": [
            {
                "layer": "coordinate",
                "where": "layer[34].*",
                "identity": True,
                "layer_args": {"reduction": 16},
            }
        ],
    }
    run = tmp_path / "run"
    train = ["train", "classify", "--config", str(out), "--max_steps", "2", "--out", str(run)]
    assert main([*train, "--data.workers", "0", "--device", "cpu", "--threads", "1"]) == 0
    assert "inserted: " in capsys.readouterr().out
    assert yaml.safe_load((run / "config.yaml").read_text())["insert"][0]["identity"] is True
    assert main(["eval", str(run), "--json", "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores == {
        k: v for k, v in json.loads((run / "metrics.json").read_text()).items() if k in scores
    }


@pytest.mark.parametrize(
    "value",
    [
        '[{layer: coordinate, where: "layer[34].*", identity: true}]',
        '{layer: coordinate, where: "layer[34].*", identity: true}',
        'layer: coordinate, where: "layer[34].*", identity: true',
        '- {layer: coordinate, where: "layer[34].*", identity: true}',
    ],
)
def test_the_flag_of_train_is_a_list_in_yaml(value, capsys):
    with pytest.raises(SystemExit):
        parse_config(["classify", "--insert", value, "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["insert"] == [
        {"layer": "coordinate", "where": "layer[34].*", "identity": True, "layer_args": {}}
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--where", "layer9.*"], "where='layer9.*' matches no module of ResNet"),
        (["--where", "blocks", "--layer_args.reductio", "3"], "did you mean 'reduction'?"),
        (
            ["--where", "blocks", "--layer_args.reduction", "x"],
            "the coordinate layer does not",
        ),
        (["--where", "blocks", "--identity", "maybe"], "--identity must be true or false, not 'm"),
        (["--where", "blocks", "--image_size", "0"], "--image_size must be at least 1, not 0"),
        (["--where", "blocks", "--layer_args", "16"], "--layer_args must hold keys, such as"),
        (["--where", "blocks", "--layer_args.device", "cpu"], "layer's device cannot be given"),
        (["--where", "blocks", "--model_args.num_classes", "3"], "num_classes cannot be given"),
        (["--where", "blocks", "--model_args.in_chans", "a"], "model_args.in_chans must be 1 (gr"),
        (["--where", "blocks", "--out", "."], "--out . is a folder: name a file"),
        (["--where", "blocks", "--model", "resnet19"], "unknown model 'resnet19'"),
        (["--where", "blocks", "--layer", "tripplet"], "did you mean 'triplet'?"),
        ([], "the following arguments are required: --where"),
        (["--were", "blocks"], "unknown flag '--were': did you mean '--where'?"),
    ],
)
def test_wrong_words_are_answered_in_one_sentence(flags, message, capsys):
    assert message in failing(capsys, *INSERT, *flags)


def test_arguments_are_given_one_by_one_or_as_a_mapping(capsys):
    one = ["--layer_args.reduction", "2", "--model_args.in_chans", "1", "--where", "blocks"]
    both = ["--layer_args", "{reduction: 2}", "--model_args", "{in_chans: 1}", "--where", "blocks"]
    tables = []
    for flags in (one, both):
        assert main([*INSERT, *flags]) == 0
        tables.append(capsys.readouterr().out.split("latency")[0])
    assert tables[0] == tables[1]
    assert "coordinate, reduction=2 after" in tables[0]


def test_a_pattern_with_brackets_without_quotes_gets_a_hint(capsys):
    text = "[{layer: se, where: layer[34].*}]"
    message = failing(capsys, "train", "classify", "--insert", text)
    assert "put patterns with brackets in quotes" in message


def test_pictures_that_are_too_small_are_answered_as_without_insertion(capsys, tmp_path):
    train = ["train", "classify", "--model", "convnext_atto", "--data.image_size", "16"]
    train += ["--insert", "layer: se, where: blocks", "--out", tmp_path / "run"]
    assert "cannot take pictures of 16 x 16 pixels: the nearest size" in failing(capsys, *train)


def test_a_wrong_entry_of_insert_stops_train_before_anything_is_read(capsys, tmp_path):
    train = ["train", "classify", "--out", tmp_path / "run", "--insert"]
    assert "unknown config key 'insert[0].wher'" in failing(
        capsys, *train, "[{layer: se, wher: x}]"
    )
    assert "config key 'insert[0]' needs 'where'" in failing(capsys, *train, "[{layer: se}]")
    assert not (tmp_path / "run").exists()
