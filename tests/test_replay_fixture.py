import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import replay_fixture
import torch
from safetensors import safe_open
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "fixtures"
FIXTURES = sorted(FOLDER.rglob("*.safetensors"))
BLOCK = FOLDER / "coordinate_attention" / "mbv2_block_s1.safetensors"
EPOCHS = FOLDER / "online_label_smoothing" / "finegrained_k12.safetensors"
SANDGLASS = FOLDER / "mobilenext" / "sgblock_identity.safetensors"
TWO_GATES = FOLDER / "triplet_attention" / "triplet_root_no_spatial.safetensors"
RESNET_BLOCK = FOLDER / "triplet_attention" / "resnet_bottleneck_down.safetensors"


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_stored_results_of_the_official_code_replay(path):
    comparisons = replay_fixture.replay(path)
    assert [c for c in comparisons if not c.passed] == []
    names = {c.tensor for c in comparisons}
    losses = path.parent.name == "online_label_smoothing"
    assert ({"output/loss_2_2", "output/matrix_2"} if losses else {"output/y"}) <= names
    assert any(name.startswith("grad/") for name in names)


@pytest.fixture
def changed(tmp_path):
    """Return a function that writes a changed copy of a fixture."""
    with safe_open(BLOCK, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def write(tensor_changes=None, drop=(), **metadata_changes):
        path = tmp_path / "fixture.safetensors"
        kept = {k: v for k, v in {**tensors, **(tensor_changes or {})}.items() if k not in drop}
        save_file(kept, path, {**metadata, **metadata_changes})
        return path

    write.tensors = tensors
    return write


def test_the_unchanged_copy_passes(changed, capsys):
    path = changed()
    assert replay_fixture.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{path}  output/y  ") for line in lines)
    assert lines[-1] == "1 of 1 files replayed within their tolerances"


@pytest.mark.parametrize(
    "name",
    [
        "output/y",
        "output_train/y",
        "grad/input/x",
        "grad/conv.3.weight",
        "grad/conv.6.conv2.bias",
        "state_after_train/conv.8.running_var",
        "state_after_train/conv.1.num_batches_tracked",
        "state/conv.6.conv3.weight",
    ],
)
def test_any_tensor_off_by_a_little_fails(changed, capsys, name):
    value = changed.tensors[name].clone()
    step = 1 if not value.is_floating_point() else 1e-3 * value.abs().max()
    if name.startswith("grad/"):
        step = 1e-3 * max(v.abs().max() for k, v in changed.tensors.items() if k[:5] == "grad/")
    value.view(-1)[0] += step
    assert replay_fixture.main([str(changed({name: value}))]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stored_values_that_are_not_finite_fail(changed, value):
    y = changed.tensors["output/y"].clone()
    y.view(-1)[0] = value
    assert replay_fixture.main([str(changed({"output/y": y}))]) == 1


def test_a_tensor_of_another_shape_fails(changed):
    y = changed.tensors["output_train/y"][:1].contiguous()
    assert replay_fixture.main([str(changed({"output_train/y": y}))]) == 1


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"tensor_changes": {"output/z": torch.zeros(1)}}, "not compared: output/z"),
        ({"tensor_changes": {"surprise": torch.zeros(1)}}, "not compared: surprise"),
        ({"drop": ["input/grad_output"]}, "not compared: grad/"),
        ({"drop": ["output/y"]}, "no tensor 'output/y'"),
        ({"drop": ["state/conv.0.weight"]}, "missing: conv.0.weight"),
        ({"class": "mbv3.InvertedResidual"}, "no adapter for its class 'mbv3.InvertedResidual'"),
        ({"args": "{not json"}, "JSONDecodeError"),
        ({"args": json.dumps({"inp": 8})}, "KeyError: 'stride'"),
    ],
)
def test_what_cannot_be_replayed_fails_and_says_why(changed, capsys, kw, message):
    assert replay_fixture.main([str(changed(**kw))]) == 1
    assert message in capsys.readouterr().out


def rewritten(path, folder, rename=lambda name: name, drop=(), **args):
    """Return the path of a copy of a fixture with other names of tensors and other arguments."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {rename(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {k: v for k, v in json.loads(metadata["args"]).items() if k not in drop}
    metadata["args"] = json.dumps({**kept, **args})
    save_file(tensors, folder / path.name, metadata)
    return folder / path.name


@pytest.mark.parametrize(
    ("path", "compared"),
    [
        (RESNET_BLOCK, ("grad/module.conv1.weight", "state_after_train/module.bn3.running_var")),
        (BLOCK, ("grad/module.conv.6.conv2.bias", "state_after_train/module.conv.8.running_var")),
        (SANDGLASS, ("grad/module.conv.3.weight", "buffer_train/module.conv.4.running_var")),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_keys_under_the_prefix_of_a_training_script_replay(tmp_path, path, compared):
    def rename(name):
        part, _, key = name.partition("/")
        kept = part in ("input", "output", "output_train") or name in ("grad/input/x", "grad/x")
        return name if kept else f"{part}/module.{key}"

    comparisons = replay_fixture.replay(rewritten(path, tmp_path, rename))
    assert all(c.passed for c in comparisons)
    assert set(compared) <= {c.tensor for c in comparisons}


def test_arguments_that_are_not_given_are_not_compared(tmp_path):
    """The file says that the layer has two gates; without the argument its weights still do."""
    path = rewritten(TWO_GATES, tmp_path, drop=("no_spatial", "kernel_size"))
    assert all(c.passed for c in replay_fixture.replay(path))


@pytest.mark.parametrize(
    "args", [{"kernel_size": 3}, {"no_spatial": True}, {"use_triplet_attention": False}]
)
def test_weights_that_are_not_those_of_the_arguments_fail(tmp_path, capsys, args):
    assert replay_fixture.main([str(rewritten(RESNET_BLOCK, tmp_path, **args))]) == 1
    assert f"the weights do not follow {next(iter(args))}" in capsys.readouterr().out


def test_a_gradient_of_no_parameter_fails(changed):
    gradient = {"grad/conv.99.weight": torch.zeros(2)}
    assert replay_fixture.main([str(changed(gradient))]) == 1


def test_unreadable_files_fail_and_the_others_are_still_replayed(tmp_path, changed, capsys):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 40)
    missing = tmp_path / "missing.safetensors"
    assert replay_fixture.main([str(broken), str(missing), str(changed())]) == 1
    output = capsys.readouterr().out
    assert f"{broken}: FAILED" in output
    assert f"{missing}: FAILED" in output
    assert "1 of 3 files replayed" in output


def test_no_file_is_no_success():
    assert replay_fixture.main([]) == 1


def test_runs_as_a_script():
    script = Path(replay_fixture.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(BLOCK)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(script.parents[1] / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert "mbv2_block_s1.safetensors  output/y" in done.stdout


@pytest.mark.parametrize(
    "name",
    ["output/loss_0_1", "grad/logits_2_0", "output/sum_1", "output/count_0", "output/matrix_2"],
)
def test_each_number_of_an_epoch_counts(tmp_path, name):
    fixture = replay_fixture.read(EPOCHS)
    with safe_open(EPOCHS, "pt") as file:
        metadata = file.metadata()
    fixture.tensors[name].view(-1)[0] += 1e-3 * fixture.tensors[name].abs().max()
    save_file(fixture.tensors, tmp_path / "f.safetensors", metadata)
    failed = [c.tensor for c in replay_fixture.replay(tmp_path / "f.safetensors") if not c.passed]
    assert failed == [name]


@pytest.mark.parametrize("key", ["hard_weight", "freeze_row_when_max_at_least", "initial_fill"])
def test_the_arguments_of_a_loss_are_heeded(tmp_path, key):
    with safe_open(EPOCHS, "pt") as file:
        metadata = file.metadata()
    args = {**json.loads(metadata["args"]), key: 0.5}
    path = tmp_path / "f.safetensors"
    save_file(replay_fixture.read(EPOCHS).tensors, path, {**metadata, "args": json.dumps(args)})
    assert replay_fixture.main([str(path)]) == 1
