import json
import os
import subprocess
import sys
import zlib
from importlib import import_module
from pathlib import Path

import pytest
import replay_fixture
import torch
from fixture_adapters import SYSTEMS, core, spnet
from safetensors import safe_open
from safetensors.torch import save_file

from foveal.models import create_model
from foveal.official import spnet as official_spnet

FOLDER = Path(__file__).parent / "fixtures"
FIXTURES = sorted(FOLDER.rglob("*.safetensors"))
BLOCK = FOLDER / "coordinate_attention" / "mbv2_block_s1.safetensors"
EPOCHS = FOLDER / "online_label_smoothing" / "finegrained_k12.safetensors"
SANDGLASS = FOLDER / "mobilenext" / "sgblock_identity.safetensors"
TWO_GATES = FOLDER / "triplet_attention" / "triplet_root_no_spatial.safetensors"
BOUNDARIES = FOLDER / "metrics" / "boundary_match_0200.safetensors"
BOUNDARY_COUNTS = {
    "output/max_cardinality",
    *(
        f"output/reference_{what}_matches_{end}"
        for what in ("recall", "precision")
        for end in ("min", "max")
    ),
}
RESNET_BLOCK = FOLDER / "triplet_attention" / "resnet_bottleneck_down.safetensors"


def both(*names):
    """Return names of tensors that are compared in float64 and in float32."""
    return {f"{name} ({dtype})" for name in names for dtype in ("float64", "float32")}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_stored_results_of_the_official_code_replay(path):
    comparisons = replay_fixture.replay(path)
    assert [c for c in comparisons if not c.passed] == []
    names = {c.tensor for c in comparisons}
    expected = {
        "cifar_k10": {"output/loss_2_2", "output/matrix_2", "grad/logits_0_0"},
        "finegrained_k12": {"output/loss_2_2", "output/matrix_2", "grad/logits_0_0"},
        "net_r50_nospm_recipe": {"output/y", "output/aux", "output/c4_slice"},
        "loss_r50_recipe": {
            *("output_train/main_loss", "output_train/aux_loss", "output_train/pred"),
            "grad_norm/pretrained.layer1.2.spm.conv1.weight",
            "state_after/auxlayer.conv5.1.running_mean",
        },
        "attention_plain": {"output/y", "output/attn", "output_train/y", "grad/x"},
        "reattention": {"output/attn", "buffer_train/var_norm.running_mean", "grad/x"},
        "block_adjusted": {"output/attn", "output_train/y", "grad/attn.reatten_matrix.weight"},
        "cosine_regulariser": {"output/loss", "grad/attn_0", "grad/logits"},
        "bottleneck_s2_d1": {"output/y"},  # no training pass is stored
        "converter_3": {"output/level2", "output_train/level0", "grad/input/level1"},
        "dfim_k16": {"output/all", "output/gates_skel", "output_train/sal", "grad/fcs.1.2.weight"},
        "predictor_deep_45": {"output/fuse", "output/side3", "grad/trans.3.bias"},
        "predictor_plain_46": {"output/fuse", "grad/fuse.weight"},
        "sod_basic": {"output/wfm", "output/em_curve", "output/dataset_max_f_from_mean_pr"},
        "sod_edge_cases": {"output/sm", "output/precision", "output/dataset_mean_em"},
        "boundary_match_0075": BOUNDARY_COUNTS,
        "boundary_match_0200": BOUNDARY_COUNTS,
        "sequence_hand": {"output/mask_history", "output/label_score_saliency"},
        "sequence_random": {"output/step_map", "output/reason", "output/label_smaller"},
        "closed_loop_small": {"output/modulator", "output/pair_iou", "output/erased_after_last"},
        "cam_and_erase": {"output/cam_up_relu_max", "output/logits_after_feature_erase"},
        "metrics": {"output/iou_small_medium_large", "output/spearman_steps_area"},
        "baselines_small": both("output/mcc", "output/entropy_weight_joint"),
        "dense_small": both("output/prototypes", "output/disc_input"),
        "ema_m05": both("output/official", "output/first_seen", "output/initialized"),
        "icv_basic": both("output/loss_norm", "grad_cos/logits_target"),
        "noun_lam1": both("output/scale", "grad/features", "grad/disc.0.weight"),
        "pal_proto_lam1": both("output/disc_logits", "grad/logits"),
        "pronoun_lam3": both("output/condition", "grad/features", "grad/disc.2.bias"),
        "prototypes_basic": both("output/soft_target", "output/source_target_confident_hard_count"),
    }
    assert expected.get(path.stem, {"output/y"}) <= names
    assert path.stem in expected or any(name.startswith("grad/") for name in names)


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


def test_every_file_of_adapters_is_used_and_no_class_is_in_two():
    files = {path.stem for path in Path(core.__file__).parent.glob("*.py")}
    assert files - {"__init__", "core"} == set(SYSTEMS)
    systems = [import_module(f"fixture_adapters.{system}") for system in SYSTEMS]
    assert sum(len(system.ADAPTERS) for system in systems) == len(replay_fixture.ADAPTERS)


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


SPNET = FOLDER / "spnet"


def test_the_recipe_gives_the_numbers_of_its_definition():
    """Worked out with Python's whole numbers."""
    for key, shape in (("a.weight", (2, 3, 1, 2)), ("a.bias", (4,)), ("a.running_var", (2,))):
        values = core.recipe(key, torch.empty(shape)).flatten()
        for j, value in enumerate(values.tolist()):
            z = (j + 1 + zlib.crc32(key.encode()) * 2**32) * 0x9E3779B97F4A7C15 % 2**64
            z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
            u = ((z ^ z >> 31) >> 40) / 2**24
            truth = {"bias": 0.4 * u - 0.2, "running_var": 0.5 + u}
            uniform = (2 * u - 1) * (3 / 6) ** 0.5
            assert value == pytest.approx(truth.get(key.partition(".")[2], uniform), abs=1e-7)
    counter = core.recipe("a.num_batches_tracked", torch.tensor(3))
    assert counter == 0
    assert counter.dtype == torch.int64


@pytest.mark.parametrize(
    ("file", "args", "message"),
    [
        ("spm_c16", {"outplanes": 8}, "the weights do not follow outplanes"),
        ("mpm_c32_small_input", {"in_channels": 16}, "the weights do not follow in_channels"),
        ("bottleneck_spm_d4", {"spm_on": False}, "the weights do not follow spm_on"),
        ("bottleneck_spm_d4", {"planes": 8}, "the weights do not follow planes"),
        ("aux_head_c32_n5", {"out_channels": 6}, "the weights do not follow out_channels"),
        ("bottleneck_spm_d4", {"dilation": 2}, "FAILED"),
        ("mpm_c32_small_input", {"pool_size": [12, 20]}, "FAILED"),
        ("mpm_c32_small_input", {"up_kwargs": {"align_corners": False}}, "FAILED"),
    ],
)
def test_the_arguments_of_spnets_parts_are_heeded(tmp_path, capsys, file, args, message):
    path = rewritten(SPNET / f"{file}.safetensors", tmp_path, **args)
    assert replay_fixture.main([str(path)]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["models.spnet.SPNet", "models.spnet.SPNet (training forward)"])
def test_a_network_without_auxiliary_head_replays(tmp_path, monkeypatch, kind):
    """A small network stands for SPNet-50; its loss is written out in float64."""
    tiny = {"layers": (1, 1, 1, 1), "channels": (8, 8, 12, 16), "stem_width": 8}

    def network(args):
        torch.manual_seed(0)
        net = create_model(
            "spnet", num_classes=3, auxiliary=args["aux"], gate=None, backbone_args=tiny
        )
        return net.eval(), {}, official_spnet.modules(net)

    monkeypatch.setattr(spnet, "_recipe_network", network)
    x = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    target = torch.arange(2 * 24 * 32).reshape(2, 24, 32) % 3
    target[:, :5] = 255
    net, _, _ = network({"aux": False})
    with torch.no_grad():
        tensors = {"input/x": x, "output/y": net(x)}
        if "training" in kind:
            y = core.without_dropout(net).train()(x)
            p = y.double().softmax(1).gather(1, target.clamp(max=2)[:, None])[:, 0]
            loss = -p.log()[target != 255].mean()
            tensors = {"input/x": x, "input/target": target, "output_train/pred": y.argmax(1)}
            tensors["output_train/main_loss"] = loss.float()
    path = tmp_path / "f.safetensors"
    for step in (0, 1e-3):
        name = "output_train/main_loss" if "training" in kind else "output/y"
        tensors[name] += step * tensors[name].abs().max()
        save_file(tensors, path, {"class": kind, "args": json.dumps({"aux": False})})
        failed = [c.tensor for c in replay_fixture.replay(path) if not c.passed]
        assert failed == [name] * (step > 0)


def test_the_second_update_of_the_auxiliary_statistics_is_all_that_differs():
    """From 2 the batch's 12 moves a statistic to 3, and again to 3.9."""
    before, once = torch.tensor([2.0]), torch.tensor([3.0])
    twice = spnet._updated_again("bn.running_mean", before, once)
    torch.testing.assert_close(twice, torch.tensor([3.9]))
    count = spnet._updated_again("bn.num_batches_tracked", before, torch.tensor(1))
    assert count == 2


DFI = FOLDER / "dfi"


@pytest.mark.parametrize(
    ("file", "args", "message"),
    [
        ("dfim_k16", {"k": 32}, "the weights do not follow k"),
        ("dfim_k16", {"list_k": [8, 12]}, "the weights do not follow list_k"),
        ("dfim_k16", {"modes": 2}, "the weights do not follow modes"),
        ("dfim_k16", {"size_id": 0}, "FAILED"),
        ("tam_k32", {"k": 16}, "the weights do not follow k"),
        ("converter_3", {"list_k": [[8], [16]]}, "the weights do not follow list_k"),
        ("predictor_deep_45", {"list_k": [8]}, "the weights do not follow list_k"),
        ("predictor_deep_45", {"image_size": [33, 40]}, "FAILED"),
        ("predictor_deep_45", {"deep_sup": False}, "FAILED"),
        ("bottleneck_s2_d1", {"planes": 8}, "the weights do not follow planes"),
        ("bottleneck_s2_d1", {"dilation": 2}, "FAILED"),
        ("bottleneck_s2_d1", {"stride": 1}, "FAILED"),
    ],
)
def test_the_arguments_of_dfis_parts_are_heeded(tmp_path, capsys, file, args, message):
    path = rewritten(DFI / f"{file}.safetensors", tmp_path, **args)
    assert replay_fixture.main([str(path)]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("dfim_k16", "output/gates_edge"),
        ("dfim_k16", "output/all"),
        ("dfim_k16", "output_train/sal"),
        ("dfim_k16", "grad/input/level4"),
        ("dfim_k16", "state/merge.3.0.weight"),
        ("converter_3", "output/level1"),
        ("predictor_deep_45", "output/side2"),
        ("predictor_deep_45", "cotangent/side2"),
        ("predictor_plain_46", "grad/trans.2.bias"),
        ("tam_k32", "grad/attention.3.weight"),
    ],
)
def test_each_number_of_dfis_files_counts(tmp_path, file, name):
    path = DFI / f"{file}.safetensors"
    fixture = replay_fixture.read(path)
    with safe_open(path, "pt") as stored:
        metadata = stored.metadata()
    scale = fixture.tensors[name].abs().max()
    if name.startswith("grad/"):
        scale = max(v.abs().max() for k, v in fixture.tensors.items() if k.startswith("grad/"))
    fixture.tensors[name].view(-1)[0] += 1e-2 * scale
    save_file(fixture.tensors, tmp_path / "f.safetensors", metadata)
    assert replay_fixture.main([str(tmp_path / "f.safetensors")]) == 1


def test_dfis_keys_under_the_prefix_of_a_training_script_replay(tmp_path):
    def rename(name):
        part, _, key = name.partition("/")
        kept = part not in ("state", "grad") or name.startswith("grad/input/")
        return name if kept else f"{part}/module.{key}"

    comparisons = replay_fixture.replay(rewritten(DFI / "tam_k32.safetensors", tmp_path, rename))
    assert all(c.passed for c in comparisons)
    assert "grad/module.block.0.weight" in {c.tensor for c in comparisons}


SALIENCY = FOLDER / "metrics" / "sod_edge_cases.safetensors"


@pytest.mark.parametrize(
    "name", ["mae", "sm", "em_adp", "fm_adp", "wfm", "em_curve", "recall", "dataset_max_em"]
)
def test_each_score_of_a_saliency_map_counts(tmp_path, name):
    tensors = replay_fixture.read(SALIENCY).tensors
    tensors[f"output/{name}"].view(-1)[-1] += 1e-6
    with safe_open(SALIENCY, "pt") as file:
        save_file(tensors, tmp_path / "f.safetensors", file.metadata())
    failed = [c.tensor for c in replay_fixture.replay(tmp_path / "f.safetensors") if not c.passed]
    assert failed == [f"output/{name}"]


def test_scores_of_maps_as_they_are_differ(tmp_path):
    path = rewritten(SALIENCY, tmp_path, normalize=False)
    failed = {c.tensor for c in replay_fixture.replay(path) if not c.passed}
    assert {"output/mae", "output/fm_curve", "output/sm", "output/wfm"} <= failed


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("output/max_cardinality", 1),
        ("output/max_cardinality", -1),
        ("output/reference_recall_matches_min", 99),
        ("output/reference_recall_matches_max", 1),
        ("output/reference_precision_matches_min", 99),
        ("output/reference_precision_matches_max", -99),
    ],
)
def test_each_count_of_boundary_pixels_counts(tmp_path, name, step):
    fixture = replay_fixture.read(BOUNDARIES)
    fixture.tensors[name].view(-1)[0] += step
    with safe_open(BOUNDARIES, "pt") as file:
        metadata = file.metadata()
    save_file(fixture.tensors, tmp_path / "f.safetensors", metadata)
    failed = [c.tensor for c in replay_fixture.replay(tmp_path / "f.safetensors") if not c.passed]
    assert failed == [name]


def test_the_distance_of_boundaries_is_heeded(tmp_path, capsys):
    assert replay_fixture.main([str(rewritten(BOUNDARIES, tmp_path, max_dist=0.01))]) == 1
    assert "output/max_cardinality" in capsys.readouterr().out


MINING = FOLDER / "multi_miner"


@pytest.mark.parametrize(
    ("file", "name", "change"),
    [
        ("sequence_hand", "output/mask", 1),
        ("sequence_hand", "output/modulator", 1e-6),
        ("sequence_random", "output/score", 1e-6),
        ("sequence_random", "output/active_history", 1),
        ("sequence_random", "output/forwards", 1),
        ("sequence_random", "output/label_ignore", 1),
        ("closed_loop_small", "output/reason", 1),
        ("closed_loop_small", "output/step_map", 1),
        ("closed_loop_small", "output/pair_iou", 1e-6),
        ("cam_and_erase", "output/feature_mask", 1),
        ("metrics", "output/tertile_edges", 1),
    ],
)
def test_each_number_of_mining_counts(tmp_path, file, name, change):
    path = MINING / f"{file}.safetensors"
    tensors = replay_fixture.read(path).tensors
    tensors[name].view(-1)[0] += change
    with safe_open(path, "pt") as stored:
        save_file(tensors, tmp_path / "f.safetensors", stored.metadata())
    failed = [c.tensor for c in replay_fixture.replay(tmp_path / "f.safetensors") if not c.passed]
    assert failed == [name]


@pytest.mark.parametrize(
    "args", [{"tau": 0.3}, {"keep": 0.9}, {"min_area": 9}, {"decay": 0.5}, {"max_steps": 2}]
)
def test_the_settings_of_mining_are_heeded(tmp_path, args):
    path = rewritten(MINING / "sequence_random.safetensors", tmp_path, **args)
    assert any(not c.passed for c in replay_fixture.replay(path))


def test_what_mining_does_not_know_fails(tmp_path):
    path = MINING / "metrics.safetensors"
    tensors = {**replay_fixture.read(path).tensors, "output/other": torch.zeros(2)}
    with safe_open(path, "pt") as stored:
        save_file(tensors, tmp_path / "f.safetensors", stored.metadata())
    failed = [c.tensor for c in replay_fixture.replay(tmp_path / "f.safetensors") if not c.passed]
    assert failed == ["output/other"]


PANDA = FOLDER / "panda"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("prototypes_basic", "output/source_hard_target_soft"),
        ("prototypes_basic", "input/labels_source"),
        ("ema_m05", "output/initialized"),
        ("ema_m05", "output/official"),
        ("noun_lam1", "output/loss"),
        ("noun_lam1", "grad/features"),
        ("pronoun_lam3", "output/grl_coeff"),
        ("pal_proto_lam1", "grad/disc.2.weight"),
        ("icv_basic", "grad_norm/logits_target"),
        ("baselines_small", "output/entropy_weight_per_domain"),
        ("baselines_small", "output/lr_inv"),
        ("dense_small", "output/count"),
    ],
)
def test_each_number_of_adaptation_counts(tmp_path, file, name):
    path = PANDA / f"{file}.safetensors"
    tensors = replay_fixture.read(path).tensors
    if tensors[name].is_floating_point():
        tensors[name].view(-1)[0] += 1e-3 * tensors[name].abs().max()
    else:
        tensors[name].view(-1)[0] = (tensors[name].view(-1)[0] + 1) % 2
    with safe_open(path, "pt") as stored:
        save_file(tensors, tmp_path / "f.safetensors", stored.metadata())
    failed = {c.tensor for c in replay_fixture.replay(tmp_path / "f.safetensors") if not c.passed}
    assert failed >= (
        {f"{name} (float64)"} if name[:5] != "input" else {"output/hard_source (float64)"}
    )


@pytest.mark.parametrize(
    ("file", "args"),
    [
        ("prototypes_basic", {"ignore_index": 3}),
        ("prototypes_basic", {"confidence": 0.99}),
        ("ema_m05", {"momentum": 0.9}),
        ("noun_lam1", {"norm_factor": 2.0}),
        ("noun_lam1", {"grl_step": 600}),
        ("noun_lam1", {"entropy_conditioning": True}),
        ("pal_proto_lam1", {"norm_factor": 2.0}),
        ("baselines_small", {"mcc_temperature": 2.5}),
        ("baselines_small", {"lr": "0.001*(1+0.002*i)**-0.75"}),
        ("dense_small", {"ignore_index": 0}),
    ],
)
def test_the_settings_of_adaptation_are_heeded(tmp_path, file, args):
    assert (
        replay_fixture.main([str(rewritten(PANDA / f"{file}.safetensors", tmp_path, **args))]) == 1
    )


def test_entropy_weights_give_the_logits_a_gradient_to_compare(tmp_path):
    """The file's own numbers, with weights by the formula and the gradient by differences."""
    path = PANDA / "noun_lam1.safetensors"
    tensors = replay_fixture.read(path).tensors
    probs = torch.cat([tensors[f"input/logits_{d}"] for d in ("source", "target")])
    n = len(tensors["input/logits_source"])
    losses = torch.nn.functional.softplus(tensors["output/disc_logits"])
    losses[:n] -= tensors["output/disc_logits"][:n]

    def sure(logits):
        p = logits.softmax(1)
        return 1 + (p * (p + 1e-5).log()).sum(1).exp()

    totals = torch.stack([s.sum() for s in sure(probs).split([n, len(probs) - n])])
    over = (0.5 / totals).repeat_interleave(torch.tensor([n, len(probs) - n]))
    gradient = torch.zeros_like(probs)
    for i, k in torch.cartesian_prod(*map(torch.arange, probs.shape)).tolist():
        step = torch.zeros_like(probs)
        step[i, k] = 1e-6
        change = sure(probs + step) - sure(probs - step)
        gradient[i, k] = -tensors["output/grl_coeff"][0] * (over * losses * change).sum() / 2e-6
    found = rewritten(path, tmp_path, entropy_conditioning=True)
    changed = replay_fixture.read(found).tensors
    changed["output/loss"][0] = (over * sure(probs) * losses).sum()
    changed["grad/logits"] = gradient
    kept = {k: v for k, v in changed.items() if k != "grad/features" and k[:9] != "grad/disc"}
    with safe_open(found, "pt") as stored:
        metadata = stored.metadata()
    save_file(kept, found, metadata)
    compared = {c.tensor: c.deviation for c in replay_fixture.replay(found)}
    assert compared["output/loss (float64)"] < 1e-12
    assert compared["grad/logits (float64)"] < 1e-7
