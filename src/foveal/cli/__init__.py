"""The ``foveal`` command: finds the module of a command, runs it, and turns errors into sentences.

Standard library only; of the modules in :data:`COMMANDS` only the wanted one is imported, so that
``foveal --help`` and a wrong word answer at once. A new command is one module with
``run(argv: list[str]) -> int`` and one line in the table.
"""

import importlib
import linecache
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Sequence

from foveal.names import unknown

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("foveal.cli.train", "train a network; writes a run folder"),
    "eval": ("foveal.cli.eval", "score a trained network, or maps of another program"),
    "predict": ("foveal.cli.predict", "run a trained network on pictures"),
    "explain": ("foveal.cli.explain", "show what in pictures speaks for an answer"),
    "insert": ("foveal.cli.insert", "put a layer into a network and show what changes"),
    "export": ("foveal.cli.export", "write a trained network to a file for other programs"),
    "models": ("foveal.cli.models", "list the networks that --model takes"),
    "data check": ("foveal.cli.data", "look through a data folder: counts, damage, duplicates"),
    "data show": ("foveal.cli.data_show", "draw pictures of a data folder with their labels"),
}
"""Word or words of a command -> its module and what it does, in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    Results go to stdout; errors go to stderr, as one sentence where the user can put them right.

    Args:
        argv: the words after ``foveal``; None takes the process's own.

    Returns:
        0: done. 2: wrong input; ``--debug`` shows the traceback too. 130: interrupted. 141: the
        reader of stdout went away. 1: a defect of foveal, with its traceback. An exception with
        an attribute ``exit_status`` chooses its own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)  # a scheduler's way to press Ctrl-C
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # here, where a closed pipe can still be handled
        return status
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except BrokenPipeError:
        # As in `foveal models | head`: the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as other programs answer
    except BaseException as error:
        status = _status(error)
        if status == 1 and not hasattr(error, "exit_status"):
            traceback.print_exc()
            return 1
        if "--debug" in words:
            traceback.print_exc()
        print(_sentence(error), file=sys.stderr)
        return status


def _stop(number: int, frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _dispatch(words: list[str]) -> int:
    """Find the command that ``words`` begin with and run it on the words after it."""
    if not words or words[0] in ("-h", "--help"):
        print(_help(COMMANDS))
        return 0
    if words[0] == "--version":
        from foveal import __version__

        print(f"foveal {__version__}")
        return 0
    if words[0].startswith("-"):
        raise ValueError(unknown("flag", words[0], ["--help", "--version"]))
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return int(importlib.import_module(COMMANDS[name][0]).run(words[length:]))
    family = {name: entry for name, entry in COMMANDS.items() if name.split()[0] == words[0]}
    if family and all(word.startswith("-") for word in words[1:]):
        print(_help(family))
        return 0
    raise ValueError(unknown("command", " ".join(words[: 2 if family else 1]), family or COMMANDS))


def _help(commands: dict[str, tuple[str, str]]) -> str:
    lines = [f"  {name:<12} {line}" for name, (_, line) in commands.items()]
    return "\n".join(
        ["usage: foveal COMMAND ...", "", *lines, "", "foveal COMMAND --help says more about one."]
    )


def _status(error: BaseException) -> int:
    """Return the exit status that an exception stands for; 1 is a defect of foveal."""
    if isinstance(status := getattr(error, "exit_status", None), int):
        return status
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, (ValueError, OSError)):
        return 2
    # Python itself raises these two for defects; only foveal's own are meant for the user.
    return 2 if isinstance(error, (TypeError, ImportError)) and _deliberate(error) else 1


def _deliberate(error: BaseException) -> bool:
    """Tell whether a ``raise`` statement in foveal's own code raised this exception."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    frame, line = frames[-1]
    own = str(frame.f_globals.get("__name__", "")).split(".")[0] == "foveal"
    source = linecache.getline(frame.f_code.co_filename, line, frame.f_globals)
    return own and source.lstrip().startswith("raise ")


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "foveal: interrupted"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    else:
        message = " ".join(str(error).split()) or type(error).__name__
    return f"foveal: {message}" if _status(error) == 130 else f"foveal: error: {message}"
