"""Reads a task's config from flags and YAML, and the flags of the smaller commands.

One flat parser per command, made from the config's dataclass; its flags, the keys of a YAML file
and Python all go through :func:`foveal.config.from_dict`, so that each is held to the same types
and answered in the same words. Imports no torch, so that ``--help`` and a wrong flag answer at
once.
"""

import argparse
import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, NoReturn

from foveal.cli import config_file
from foveal.config import TASK_CONFIGS, TrainConfig, from_dict, to_dict
from foveal.names import unknown


class CommandParser(argparse.ArgumentParser):
    """argparse whose errors are a ValueError of one sentence, without the usage dump.

    Flags may not be abbreviated, an unknown one names the nearest, and every command takes
    ``--debug``, which :func:`foveal.cli.main` looks for.
    """

    def __init__(self, prog: str, description: str | None = None, usage: str | None = None) -> None:
        super().__init__(prog, usage, description, formatter_class=_HelpFormatter)
        self.add_argument(
            "--debug", action="store_true", help="on wrong input, show the traceback as well"
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; an unknown flag is named before argparse can complain of what it displaced."""
        words = list(sys.argv[1:] if args is None else args)
        known = [flag for action in self._actions for flag in action.option_strings]
        for word in words[: words.index("--") if "--" in words else None]:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in known:
                self.error(unknown("flag", flag, [k for k in known if k.startswith("--")]))
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError in place of argparse's usage dump and exit."""
        message = message.removeprefix("argument ")
        message = message.replace("unrecognized arguments", "unexpected argument")
        raise ValueError(message)


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Flags of ``train`` that say how to run, and so are no part of the config.

    Attributes:
        resume: go on with the run in the folder ``out``.
        debug: on wrong input, show the traceback as well.
    """

    resume: bool = False
    debug: bool = False


def parse_config(
    argv: Sequence[str],
    *,
    prog: str = "foveal train",
    recipes: Mapping[str, Callable[[], TrainConfig]] | None = None,
) -> tuple[TrainConfig, Options]:
    """Read ``TASK [flags]`` or ``--config FILE [flags]`` into a config.

    Each overrides the one before: the dataclass's defaults, ``--recipe``, ``--config``, flags. A
    file or flag that gives a whole mapping (``model_args``) replaces it; ``--model_args.KEY VALUE``
    sets one key of it.

    Args:
        argv: the words after ``prog``.
        prog: the command, for the help page.
        recipes: what ``--recipe`` may name.

    Returns:
        The config and the flags beside it.

    Raises:
        ValueError: anything wrong in flags or file, in one sentence.
        OSError: the file cannot be read.
        SystemExit: 0, after ``--help`` or ``--print_config`` has been printed.
    """
    recipes = recipes or {}
    word = argv[0] if argv and not argv[0].startswith("-") else None
    if word is not None and word not in TASK_CONFIGS:
        raise ValueError(unknown("task", word, TASK_CONFIGS))
    flags = list(argv[1:] if word is not None else argv)
    file, values = _config_file(flags)
    task = _task(word, file, values, prog, flags)
    _check({**values, "task": task}, f"{file}: ")

    config_class = TASK_CONFIGS[task]
    parser = _config_parser(config_class, f"{prog} {task}", recipes, flags)
    found = vars(parser.parse_args(flags))
    if found["recipe"] is not None:
        if found["recipe"] not in recipes:
            raise ValueError(unknown("recipe", found["recipe"], recipes))
        merged = to_dict(recipes[found["recipe"]]())
        if merged["task"] != task:
            raise ValueError(
                f"recipe {found['recipe']!r} is for the task {merged['task']!r}, not {task!r}"
            )
    else:
        merged = to_dict(config_class())
    merged = _merge(merged, values, config_class)
    for key, hint, _, _ in _fields(config_class):
        if key in found:
            owner, _, name = key.rpartition(".")
            _at(merged, owner)[name] = _flag_value(hint, found[key], f"--{key}")
    _check(merged)  # before single entries are put into its mappings
    for entry in found["entries"]:
        _at(merged, entry.key)[entry.name] = entry.value()
    config = _check(merged)
    if found["print_config"]:
        config_file.write(to_dict(config), sys.stdout)
        raise SystemExit(0)
    return config, Options(resume=found["resume"], debug=found["debug"])


def _task(
    word: str | None, file: str | None, values: Mapping[str, Any], prog: str, flags: Sequence[str]
) -> str:
    """Return the task that the first word or the config file names."""
    named = values.get("task")
    if word is not None and named is not None and named != word:
        raise ValueError(
            f"{file} holds a config of the task {named!r}, not {word!r}: "
            f"leave {word!r} out, or give another file"
        )
    if word is not None or named is not None:
        return word or str(named)
    tasks = "|".join(TASK_CONFIGS)
    if "-h" in flags or "--help" in flags:
        print(f"usage: {prog} {{{tasks}}} [flags]\n       {prog} --config FILE [flags]\n")
        print(f"{prog} TASK --help lists the flags of a task.")
        raise SystemExit(0)
    where = f"{file} has no key 'task'" if file else "no task was named"
    raise ValueError(f"{where}: write {prog} {{{tasks}}}, or give --config a file with 'task'")


def _config_file(flags: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Return the path given to ``--config`` and what the file holds, before the task is known."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scout.add_argument("--config", nargs="?")
    path: str | None = scout.parse_known_args(flags)[0].config
    if path is None:
        return None, {}
    return path, config_file.read(path)


def _config_parser(
    config_class: type[TrainConfig],
    prog: str,
    recipes: Mapping[str, Any],
    flags: Sequence[str],
) -> CommandParser:
    """Make the flat parser of one task: one flag for each field, dots for nested ones."""
    parser = CommandParser(prog, inspect.cleandoc(config_class.__doc__ or "").split("\n")[0])
    parser.usage = f"{prog} [flags]"
    add = parser.add_argument
    add("--recipe", metavar="NAME", help=f"start from: {', '.join(recipes) or '(none yet)'}")
    add("--config", metavar="FILE", help="read a YAML file; flags override it")
    add("--print_config", action="store_true", help="print the config as YAML and end")
    add("--resume", action="store_true", help="go on with the run in the folder --out")
    parser.set_defaults(entries=[])
    groups: dict[str, Any] = {"": parser.add_argument_group("training")}
    for key, hint, default, text in _fields(config_class):
        owner = key.rpartition(".")[0]
        if owner not in groups:
            groups[owner] = parser.add_argument_group(owner)
        if default not in (None, {}, ()):
            text = f"{text} (default: {str(default).lower() if hint is bool else default})"
        _add_field(groups[owner], key, hint, text)
        if typing.get_origin(hint) is dict:
            add_entries(parser, key, flags)
    return parser


def _add_field(parser: Any, key: str, hint: Any, text: str) -> None:
    parser.add_argument(
        f"--{key}",
        default=argparse.SUPPRESS,
        metavar=_metavar(hint),
        help=text.replace("%", "%%"),
        **({"nargs": "?", "const": "true"} if hint is bool else {}),
    )


def add_part(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    part: type,
    prefix: str,
    *,
    without_run: bool = False,
    leave_out: Sequence[str] = (),
) -> None:
    """Make flags of a part of a config that say what shall differ from a run's own.

    Args:
        parser: of a command on runs, or a group of its flags.
        part: the part's class.
        prefix: what stands before the fields' names, such as ``sliding.``.
        without_run: the command needs no run; the help then names the part's defaults.
        leave_out: fields that the command has no use for.
    """
    for key, hint, default, text in _fields(part, prefix):
        if key.removeprefix(prefix) in leave_out:
            continue
        own = str(default).lower() if hint is bool else default
        shown = own if without_run else "the run's own"
        _add_field(parser, key, hint, f"{text} (default: {shown})")


def given_part(args: argparse.Namespace, part: type, prefix: str) -> dict[str, Any]:
    """Return the fields that flags of :func:`add_part` gave, unchecked."""
    return {
        key.removeprefix(prefix): _flag_value(hint, vars(args)[key], f"--{key}")
        for key, hint, _, _ in _fields(part, prefix)
        if key in vars(args)
    }


class Entry(typing.NamedTuple):
    """What ``--model_args.stem_stride 1`` says."""

    key: str
    name: str
    text: str

    def value(self) -> Any:
        """Return the text as YAML reads it."""
        return config_file.parse(self.text, f"--{self.key}.{self.name}")


def add_entries(parser: argparse.ArgumentParser, key: str, flags: Sequence[str]) -> None:
    """Make ``--KEY.NAME VALUE`` flags of those names that occur; each adds an :class:`Entry`."""
    for flag in sorted({f.split("=")[0] for f in flags if f.startswith(f"--{key}.")}):
        if name := flag.removeprefix(f"--{key}."):
            entry = functools.partial(Entry, key, name)
            parser.add_argument(
                flag, dest="entries", action="append", type=entry, help=argparse.SUPPRESS
            )


def _fields(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (dotted key, type, default, one-line description) of all fields, nested ones last."""
    hints = typing.get_type_hints(cls)
    nested = [f for f in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[f.name])]
    for f in dataclasses.fields(cls):
        if f not in nested:
            default = f.default if f.default_factory is MISSING else f.default_factory()
            yield prefix + f.name, hints[f.name], default, _described(cls, f.name)
    for f in nested:
        yield from _fields(hints[f.name], f"{prefix}{f.name}.")


def _described(cls: type, name: str) -> str:
    """Return the first clause about a field under ``Attributes:`` of the class or its bases."""
    for base in cls.__mro__:
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        found = re.search(rf"^    {name}: (.+(?:\n     .+)*)", attributes, re.MULTILINE)
        if found:
            return " ".join(found[1].split()).split("; ")[0].rstrip(".").replace("``", "")
    return ""


def _metavar(hint: Any) -> str:
    members = [a for a in typing.get_args(hint) if a is not types.NoneType]
    if typing.get_origin(hint) is Literal:
        return "{" + ",".join(map(str, members)) + "}"
    if typing.get_origin(hint) is dict:
        return "{KEY: VALUE}"
    base = members[0] if len(members) == 1 else hint
    return {bool: "true|false", int: "N", float: "X"}.get(base, "VALUE")


def _flag_value(hint: Any, text: str, flag: str) -> Any:
    """Return a flag's text as a plain value for :func:`from_dict`, which checks it.

    Text stays text where the field wants a string (``--checkpoint 1``); ``null`` is None where
    that is allowed; lists may be written ``a,b``; the rest is read as YAML.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if text == "null" and types.NoneType in args:
            return None
        members = [a for a in args if a is not types.NoneType]
        hint = members[0] if len(members) == 1 else hint
        origin = typing.get_origin(hint)
    if hint is str or origin is Literal:
        return text
    if origin in (list, tuple) and not text.lstrip().startswith(("[", "- ")):
        holds_keys = dataclasses.is_dataclass(args[0])  # as in --insert 'layer: se, where: blocks'
        text = f"[{{{text}}}]" if holds_keys and text.lstrip()[:1] != "{" else f"[{text}]"
    try:
        return config_file.parse(text, flag)
    except ValueError as error:
        hint = "; put patterns with brackets in quotes" if re.search(r"[^\s\[,:]\[", text) else ""
        raise ValueError(f"{error}{hint}") from None


def _at(values: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the dict at a dotted key of nested dicts; the key ``""`` is the outermost."""
    for name in filter(None, key.split(".")):
        values = values[name]
    return values


def _merge(base: dict[str, Any], over: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return ``base`` with the keys of ``over``, going down into nested configs only."""
    hints = typing.get_type_hints(cls)
    merged = {**base, **over}
    for key in over:
        if dataclasses.is_dataclass(hint := hints.get(key)):
            merged[key] = _merge(base[key], over[key], typing.cast(type, hint))
    return merged


def _check(values: Mapping[str, Any], prefix: str = "") -> TrainConfig:
    try:
        return from_dict(values)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None
