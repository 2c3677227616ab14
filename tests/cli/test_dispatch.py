import subprocess
import sys
import types

import pytest

from foveal import cli
from foveal.cli import COMMANDS, main


@pytest.fixture
def command(monkeypatch):
    """Register commands whose ``run`` is the given function."""

    def register(name, run):
        module = types.ModuleType("foveal.cli._fake")
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, name, (module.__name__, "a test's command"))

    return register


def raising(error):
    def run(argv):
        raise error

    return run


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(argv, capsys):
    assert main(argv) == 0
    shown = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert f"  {name}" in shown
        assert line in shown


def test_version(capsys):
    import foveal

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"foveal {foveal.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown command 'trian': did you mean 'train'?"),
        (["data", "chekc"], "unknown command 'data chekc': did you mean 'data check'?"),
        (["--versoin"], "unknown flag '--versoin': did you mean '--version'?"),
        (["qqqq"], "unknown command 'qqqq': it must be one of train, "),
    ],
)
def test_an_unknown_word_names_the_nearest(argv, message, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"foveal: error: {message}")
    assert captured.err.count("\n") == 1


def test_a_family_of_commands_lists_its_members(capsys):
    for argv in (["data"], ["data", "--help"]):
        assert main(argv) == 0
        shown = capsys.readouterr().out
        assert "data check" in shown
        assert "train" not in shown


def test_a_command_gets_the_words_after_its_name(command):
    seen = []
    command("data toy", lambda argv: seen.append(argv) or 7)
    assert main(["data", "toy", "x", "--flag"]) == 7
    command("toy", lambda argv: seen.append(argv) or 0)
    assert main(["toy"]) == 0
    assert main(("toy", "data")) == 0
    assert seen == [["x", "--flag"], [], ["data"]]


def test_two_words_are_looked_up_before_one(command):
    seen = []
    command("toy", seen.append)
    command("toy data", lambda argv: seen.append(argv) or 0)
    assert main(["toy", "data", "x"]) == 0
    assert seen == [["x"]]


class Interrupted(Exception):
    exit_status = 130


class Mismatch(RuntimeError):
    exit_status = 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("no\n  such   thing"), 2, "foveal: error: no such thing\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a b"),
            2,
            "foveal: error: a b: No such",
        ),
        (OSError("disk is full"), 2, "foveal: error: disk is full\n"),
        (ValueError(), 2, "foveal: error: ValueError\n"),
        (KeyboardInterrupt(), 130, "foveal: interrupted\n"),
        (Interrupted("saved in x"), 130, "foveal: saved in x\n"),
        (Mismatch("differs"), 1, "foveal: error: differs\n"),
    ],
)
def test_errors_become_a_sentence_and_a_status(command, capsys, error, status, said):
    command("toy", raising(error))
    assert main(["toy"]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(said)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_debug_shows_the_traceback_too(command, capsys):
    command("toy", raising(ValueError("wrong")))
    assert main(["toy", "--debug"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("foveal: error: wrong\n")


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), TypeError("x"), ImportError("x"), KeyError("x")]
)
def test_a_defect_shows_its_traceback_and_ends_with_1(command, capsys, error):
    command("toy", raising(error))  # raised outside the package: not meant for the user
    assert main(["toy"]) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_type_error_that_foveal_raises_is_a_sentence(command, capsys):
    from foveal.config import from_dict, task_of

    command("toy", lambda argv: task_of(None))
    assert main(["toy"]) == 2
    assert capsys.readouterr().err.startswith("foveal: error: the config must be a ClassifyConfig")
    command("toy", lambda argv: from_dict(None))  # Python raises this one, in dict(None)
    assert main(["toy"]) == 1


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (3, 3), ("bye", 1)])
def test_system_exit_passes_its_code(command, code, status):
    command("toy", raising(SystemExit(code)))
    assert main(["toy"]) == status


def test_closed_pipe_is_quiet():
    code = (
        "import sys, types; from foveal import cli; m = types.ModuleType('m');"
        "m.run = lambda argv: print('x\\n' * 1_000_000) or 0; sys.modules['m'] = m;"
        "cli.COMMANDS['toy'] = ('m', ''); raise SystemExit(cli.main(['toy']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout.read(2) == b"x\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["trian"], 2),
        (["export", "run", "--formt", "onnx"], 2),
        (["train", "classify", "--epchs", "3"], 2),
        (["train", "classify", "--print_config"], 0),
        (["train", "classify", "--help"], 0),
    ],
)
def test_the_real_command_answers_without_importing_torch(argv, status):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "foveal", *argv], capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr[-500:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "foveal.names" in imported
    assert not imported & {"torch", "timm", "lightning", "numpy", "rich", "foveal.tasks"}
