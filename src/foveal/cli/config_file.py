"""Config files: YAML in, YAML out, with errors of one sentence."""

import re
from pathlib import Path
from typing import IO, Any

import yaml


def read(path: str) -> dict[str, Any]:
    """Return what a config file holds; an empty file is an empty dict.

    Raises:
        ValueError: not YAML, a key given twice, or no keys; names the file and the line.
        OSError: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a YAML file, as it is not UTF-8 text") from None
    values = parse(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a config file must hold lines such as 'epochs: 20'")
    return values


def parse(text: str, where: str) -> Any:
    """Return the value of a YAML text; ``where`` is the file or flag that errors name.

    Raises:
        ValueError: not YAML, or a key given twice.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{where}{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def write(values: dict[str, Any], stream: IO[str]) -> None:
    """Write ``values`` as YAML, in their order, so that :func:`read` returns them unchanged."""
    yaml.dump(values, stream, _Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: ``no`` and 2026-01-01 are words, 1e-3 is a number.

    A key given twice is an error; PyYAML would keep the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes words that a reader of YAML 1.1 or 1.2 could take for something else."""


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
_Loader.yaml_implicit_resolvers = {}  # those of YAML 1.1, replaced by:
for _type, _pattern, _first_letters in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_type}", re.compile(f"^(?:{_pattern})$"), _first_letters
        )
