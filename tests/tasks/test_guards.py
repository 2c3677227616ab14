"""What keeps a run from going wrong quietly."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import foveal
from foveal.explanation import coordinate_gates
from foveal.layers import CoordinateAttention
from foveal.tasks.checkpointing import RunInterrupted, SaveRun
from foveal.tasks.run import read_config, write_config
from foveal.tasks.training import Trainer


@pytest.fixture
def copy(colors, tmp_path):
    """Return a copy of the data that may be changed."""
    return shutil.copytree(colors, tmp_path / "copy")


@pytest.fixture
def stopped(config, replaced, copy, monkeypatch):
    """Return the config of a run that was stopped after two steps."""
    config = replaced(config, root=str(copy))
    with monkeypatch.context() as patch:
        original = SaveRun.on_train_batch_end

        def hook(self, trainer, *args):
            self.interrupted = trainer.global_step >= 2
            original(self, trainer, *args)

        patch.setattr(SaveRun, "on_train_batch_end", hook)
        with pytest.raises(RunInterrupted):
            foveal.train(config)
    return config


def test_resuming_with_other_pictures_is_refused(stopped, copy, replaced, colors):
    extra = copy / "train" / "blue" / "extra.png"
    Image.new("RGB", (24, 24)).save(extra)
    with pytest.raises(ValueError, match=r"the train pictures are not those .*\(31 now, 30 then"):
        foveal.train(stopped, resume=True)
    extra.unlink()
    (copy / "test" / "blue").rename(copy / "test" / "azure")
    (copy / "train" / "blue").rename(copy / "train" / "azure")
    (copy / "val" / "blue").rename(copy / "val" / "azure")
    with pytest.raises(ValueError, match="pictures are not those of the run"):
        foveal.train(stopped, resume=True)


def test_data_may_move_and_the_run_remembers_where(stopped, copy, replaced):
    moved = copy.rename(copy.with_name("moved elsewhere"))
    run = foveal.train(replaced(stopped, root=str(moved)), resume=True)
    assert read_config(run.path).data.root == str(moved)
    assert "test/accuracy" in foveal.evaluate(run).scores


def test_a_failed_start_leaves_its_folder_free(config, replaced):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        foveal.train(replaced(config, batch_size=1, image_size=16, ema=False))
    assert foveal.train(replaced(config, epochs=1)).metrics


def test_a_folder_that_another_run_takes_meanwhile_is_refused(config, replaced, monkeypatch):
    from foveal.tasks import training

    original = training.make_setup

    def slow(config):
        write_config(training.Path(config.out), config)
        return original(config)

    training.Path(config.out).mkdir()
    monkeypatch.setattr(training, "make_setup", slow)
    with pytest.raises(ValueError, match="another run has just begun there"):
        foveal.train(config)


def test_automatic_folders_do_not_collide(config, replaced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("foveal.tasks.training.time.strftime", lambda text: "classify-now")
    runs = [foveal.train(replaced(config, out=None, max_steps=1)) for _ in range(3)]
    assert [run.path.name for run in runs] == ["classify-now", "classify-now-2", "classify-now-3"]


def test_skipping_may_not_empty_a_class(config, replaced, copy):
    for path in (copy / "val" / "blue").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="every picture of class 'blue' in val is damaged"):
        foveal.train(replaced(config, root=str(copy), on_error="skip"))


def test_evaluation_lists_what_it_left_out(config, replaced, copy):
    broken = copy / "test" / "blue" / "0.png"
    broken.write_bytes(b"")
    run = foveal.train(replaced(config, root=str(copy), on_error="skip", epochs=1))
    result = foveal.evaluate(run)
    assert result.pictures == 14
    assert result.left_out == (f"{broken}: the file is empty",)
    with pytest.raises(ValueError, match="the file is empty"):
        foveal.evaluate(run, on_error="stop")


def test_an_interruption_during_the_test_is_130_and_resumable(config, monkeypatch):
    def interrupted(*args, **kwargs):
        raise SystemExit(1)  # what Lightning makes of Ctrl-C

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "test", interrupted)
        with pytest.raises(RunInterrupted, match="go on with: foveal train") as error:
            foveal.train(config)
    assert error.value.exit_status == 130
    assert "test/accuracy" in foveal.train(config, resume=True).metrics


@pytest.mark.parametrize("kilobytes", [100, 1500])  # neither weights nor state, weights only
def test_a_full_disk_is_one_sentence_with_the_path(config, replaced, tmp_path, kilobytes):
    write_config(tmp_path, replaced(config, epochs=1))
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes} * 1024,) * 2)\n"
        "from foveal.cli import main\n"
        f"sys.exit(main(['train', '--config', {str(tmp_path / 'config.yaml')!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "File too large" in result.stderr
    assert str(tmp_path / "run") in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_args": {"num_classes": 5}}, "model_args.num_classes cannot be given"),
        ({"model_args": {"features_only": True}}, "model_args.features_only cannot be given"),
        ({"model_args": {"in_chans": 4}}, "in_chans must be 1 (grey) or 3 (RGB), not 4"),
        ({"loss_args": {"label_smoothing": 2.0}}, "the loss cross_entropy cannot be used so"),
        ({"optimizer": "adahessian"}, "unknown optimizer 'adahessian'"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(config, replaced, changes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        foveal.train(replaced(config, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_tensorboard_gets_loss_rate_and_scores(config, replaced):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = foveal.train(replaced(config, epochs=1, tensorboard=True))
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= {"train/loss", "lr", "val/accuracy", "test/accuracy"}


def test_exported_weights_say_how_to_rebuild_the_network(config, replaced, tmp_path):
    args = {"stem_stride": 1, "stages": 2}
    model = "mobilenetv2_050_coordinate"
    run = foveal.train(replaced(config, model=model, model_args=args, epochs=1))
    foveal.export(run, "safetensors", tmp_path / "net")
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        metadata = file.metadata()
    network = foveal.create_model(
        metadata["model"], num_classes=3, **json.loads(metadata["model_args"])
    )
    network.load_state_dict(foveal.load(run).state_dict())


def test_a_compiled_networks_gates_are_read_too():
    torch._dynamo.reset()
    network = torch.nn.Sequential(CoordinateAttention(8)).eval()
    x = torch.rand(1, 8, 5, 6)
    (plain,) = coordinate_gates(network, x)
    network.compile(backend="eager")
    network(x)
    (compiled,) = coordinate_gates(network, x)
    np.testing.assert_array_equal(plain.map, compiled.map)
