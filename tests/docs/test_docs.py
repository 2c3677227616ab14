"""The documentation, executed: its Python runs, its commands say what it says they say.

Rules for a page, README.md included:

- ``python`` blocks of one page share their names and run in order in one empty folder, where the
  page's commands run too. A line ``print(...)  # text`` must print that text.
- ``console`` blocks: a command ``$ ... foveal ...`` whose output is shown is run, and its output
  compared; one without output, or with other commands around it, is only parsed.
- ``...`` in a shown output stands for anything, also for several lines.
- ``yaml`` blocks whose first line is ``# name.yaml`` become that file.
- A block whose first line is ``# not run: REASON`` is not run; its commands are still parsed.
"""

import logging
import pkgutil
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from foveal import cli
from foveal.cli.parser import CommandParser
from foveal.config import TASK_CONFIGS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = ("console", "bash", "sh", "shell")
NOT_RUN = "# not run: "
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # of its first line
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}, line {self.line}"

    @property
    def is_run(self):
        return not self.text.startswith(NOT_RUN)


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text[: match.start(2)].count("\n") + 1
        yield Block(page, line, match[1], match[2])


def prose_of(page):
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page):
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def commands_of(block):
    """Yield (command line, shown output) of a block of commands."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    if block.language == "console":
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output.strip()
    else:
        yield from ((line, "") for line in text.splitlines())


def foveal_words(command):
    """Return the words after ``foveal`` in a command line, and whether it is nothing but that."""
    words = shlex.split(command, comments=True)
    if "foveal" not in words:
        return None, False
    at = words.index("foveal")
    ends = [k for k, word in enumerate(words) if k > at and word in ("|", ">", "&&", "&")]
    return words[at + 1 : min(ends, default=len(words))], at == 0 and not ends


def matches(found, shown):
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, found, re.DOTALL) is not None


@pytest.fixture
def parse(monkeypatch, capsys):
    """Return a function that holds words to the parser of their command, and goes no further."""

    def check(words, where):
        parsed = []

        def parse_only(self, args=None, namespace=None):
            complete(self, args, namespace)
            parsed.append(args)
            raise SystemExit(0)

        complete = CommandParser.parse_args
        is_training = words[:1] == ["train"]
        with monkeypatch.context() as patch:
            if not is_training:
                patch.setattr(CommandParser, "parse_args", parse_only)
            status = cli.main([*words, "--print_config"] if is_training else words)
        output = capsys.readouterr()
        assert status == 0, f"{where}: foveal {' '.join(words)}: {output.err}"
        assert parsed or output.out, f"{where}: foveal {' '.join(words)}: nothing was parsed"

    return check


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the empty folder in which a page is executed, and leave logging as it was."""
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    yield tmp_path
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run_and_commands_say_what_is_shown(page, folder, parse, capsys):
    if "--format onnx" in page.read_text(encoding="utf-8"):
        pytest.importorskip("onnxruntime", reason="the page needs the extra foveal[export]")
        pytest.importorskip("onnxscript", reason="the page needs the extra foveal[export]")
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        name = re.match(r"# (\S+\.yaml)\n", block.text)
        if block.language == "yaml" and name:
            (folder / name[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python" and block.is_run:
            run_python(block, names, capsys)
        elif block.language in SHELLS:
            for command, shown in commands_of(block):
                words, alone = foveal_words(command)
                if words is None:
                    continue
                if not (shown and alone and block.is_run):
                    parse(words, block)
                    continue
                cli.main(words)
                output = capsys.readouterr()
                found = (output.out + output.err).strip()
                assert matches(found, shown), f"{block}: foveal {' '.join(words)} says\n{found}"


def run_python(block, names, capsys):
    # Blank lines before it: a traceback then has the page's line numbers.
    source = "\n" * (block.line - 1) + block.text
    capsys.readouterr()
    exec(compile(source, str(block.page), "exec", dont_inherit=True), names)
    lines = iter(capsys.readouterr().out.splitlines())
    for shown in re.findall(r"^ *print\(.*\)  # (.*)$", block.text, re.MULTILINE):
        assert any(matches(line, shown) for line in lines), f"{block}: does not print {shown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_not_run_can_at_least_be_read(page):
    for block in blocks_of(page):
        if block.language == "python" and not block.is_run:
            assert len(block.text.splitlines()[0]) > len(NOT_RUN), f"{block}: gives no reason"
            compile(block.text, str(page), "exec", dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors_of(linked), f"{page.name} links to {target}"


def anchors_of(page):
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_backticks_exist(page):
    for code in inline_code(page):
        name = re.match(r"foveal(?:\.[A-Za-z_]\w*)+", code)
        if name:
            pkgutil.resolve_name(name[0])
        path = re.fullmatch(r"(?:src|tests|docs|benchmarks|\.ci)/[\w./-]+", code)
        if path:
            assert (ROOT / path[0]).exists(), f"{page.name} names {path[0]}"


def known_flags(command, capsys):
    """Return the flags that a command's own help page lists."""
    words = command.split()
    for task in TASK_CONFIGS if words == ["train"] else [None]:
        assert cli.main([*words, *([task] if task else []), "--help"]) == 0
    return set(re.findall(r"--[\w.]+", capsys.readouterr().out))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_in_backticks_exist(page, capsys):
    flags = {name: known_flags(name, capsys) for name in cli.COMMANDS}
    everywhere = set.union(*flags.values())
    for code in inline_code(page):
        words = code.split()
        if words[0] == "foveal" and len(words) > 1 and not words[1].startswith("-"):
            own = [name for name in flags if words[1 : 1 + len(name.split())] == name.split()]
            assert own, f"{page.name}: `{code}` is no command"
            known = flags[own[0]]
        elif re.fullmatch(r"--[a-z][\w.]+", words[0]):
            known = everywhere
        else:
            continue
        for word in words:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag != "--help":
                owner = re.sub(r"^(--[\w.]+_args)\..*", r"\1", flag)
                assert owner in known, f"{page.name}: `{code}` has no flag {flag}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").glob("*.md")):
        if page.name != "index.md":
            assert f"({page.name})" in index, f"docs/index.md does not list {page.name}"


# The rules themselves


@pytest.mark.parametrize(
    ("found", "shown", "same"),
    [
        ("a b c", "a ... c", True),
        ("a\nb\nc", "a\n...\nc", True),
        ("a (1.5)", "a (1.5)", True),
        ("a 115", "a 1.5", False),
        ("a b", "a", False),
    ],
)
def test_dots_stand_for_anything_and_nothing_else_does(found, shown, same):
    assert matches(found, shown) is same


def test_a_wrong_example_is_found(folder, parse, capsys):
    def page(text):
        path = folder / "page.md"
        path.write_text(text, encoding="utf-8")
        return path

    def run(text):
        test_examples_run_and_commands_say_what_is_shown(page(text), folder, parse, capsys)

    run("```python\nprint(2 * 3)  # 6\n```\n")
    with pytest.raises(AssertionError, match="does not print 7"):
        run("```python\nprint(2 * 3)  # 7\n```\n")
    with pytest.raises(NameError):
        run("```python\nnothing\n```\n")
    run("```console\n$ foveal --version\nfoveal ...\n```\n")
    with pytest.raises(AssertionError, match=r"says\s+foveal 0"):
        run("```console\n$ foveal --version\nbread 1.0\n```\n")
    with pytest.raises(AssertionError, match="did you mean '--split'"):
        run("```console\n$ foveal eval RUN --splitt val\n```\n")
    with pytest.raises(AssertionError, match="did you mean '--epochs'"):
        run("```bash\n# not run: long\nfoveal train classify --epoch 3\n```\n")
    with pytest.raises(AssertionError, match=r"missing\.md"):
        test_links_lead_to_files_and_headings(page("[x](missing.md)"))
    with pytest.raises(AttributeError):
        test_names_in_backticks_exist(page("`foveal.trains(config)`"))
    with pytest.raises(AssertionError, match="has no flag --epoch"):
        test_commands_and_flags_in_backticks_exist(page("`foveal train --epoch`"), capsys)
