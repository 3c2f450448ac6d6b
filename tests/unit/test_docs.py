"""The documentation keeps to what there is: commands parse, links lead somewhere, examples import, messages exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import click
import pytest

import finetune
import selfinstruct
from finetune.cli import GROUP as FINETUNE
from selfinstruct.cli import GROUP as SELFINSTRUCT
from selfinstruct.command import run_program

ROOT = Path(__file__).parents[2]
GROUPS = {"selfinstruct": SELFINSTRUCT, "finetune": FINETUNE}
PAGES = sorted([
    *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md"), *ROOT.glob("benchmarks/*.md"),
])  # fmt: skip
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.S | re.M)
SPAN = re.compile(r"(`+)(.+?)\1", re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Scripts that hand their arguments on to a command.
FORWARD = {"scripts/demo.sh": ["selfinstruct", "demo"], "scripts/finetune.py": ["finetune", "train"]}
# Flags of other programs that the pages name by themselves.
FOREIGN = {
    "--enable-lora", "--max-lora-rank", "--lora-modules",  # vLLM
    "--machine_rank", "--main_process_ip", "--main_process_port", "--config_file", "--num_processes",  # accelerate
    "--no-deps",  # pip
    "--micro-batch-size",  # of old, where it is said that it is gone
}  # fmt: skip


@cache
def text(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of the code blocks of a page."""
    return FENCE.findall(text(page))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", text(page))


def spans(page: Path) -> list[str]:
    """What stands between backticks within the text."""
    return [" ".join(content.split()) for _, content in SPAN.findall(prose(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- commands ----------------------------------------------------------------------------------------------------------


def command_of(words: list[str]) -> list[str] | None:
    """The command of ours in the words of a line, with what stands before it left out; None where there is none."""
    while words and (words[0] in ("$", "bash", "time") or "=" in words[0]):
        words = words[1:]
    if words[:2] == ["accelerate", "launch"]:
        words = words[next((place for place, word in enumerate(words) if word in FORWARD), len(words)) :]
    if words and words[0] in FORWARD:
        return [*FORWARD[words[0]], *words[1:]]
    return words if len(words) > 1 and words[0] in GROUPS else None


def lines(block: str) -> Iterator[list[str]]:
    """The words of each simple command in a block of shell."""
    for line in block.replace("\\\n", " ").splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # output, with an apostrophe
            continue
        while words:
            simple = list(takewhile(lambda word: not word or not set(word) <= set("|&;<>()"), words))
            yield simple
            words = words[len(simple) + 1 :]


COMMANDS = [
    (name_of(page), command)
    for page in PAGES
    for language, block in blocks(page)
    if language in ("bash", "text")
    for words in lines(block)
    if (command := command_of(words))
]


def test_the_pages_have_commands():
    assert len(COMMANDS) > 50
    named = {(program, rest[0]) for _, (program, *rest) in COMMANDS if rest}
    assert {(program, name) for program, group in GROUPS.items() for name in group._lazy} <= named


@pytest.mark.parametrize(
    ("page", "command"), COMMANDS, ids=[f"{page}: {shlex.join(words)}" for page, words in COMMANDS]
)
def test_commands_parse(page, command, tmp_path, monkeypatch, capsys):
    """By the real command line: everything but running it, --config aside, whose file is the reader's."""
    monkeypatch.chdir(tmp_path)
    program, *arguments = command
    if "--config" in arguments:
        del arguments[arguments.index("--config") : arguments.index("--config") + 2]
    asks_for_help = not arguments or arguments[-1] in ("--help", "--version")
    code = run_program(GROUPS[program], program, arguments if asks_for_help else [*arguments, "--print-config"])
    assert code == 0, f"{page}: {shlex.join(command)}\n{capsys.readouterr().err}"


@cache
def flags_of(program: str, name: str) -> frozenset[str]:
    loaded = GROUPS[program]._lazy[name].load()
    return frozenset(
        flag
        for parameter in loaded.params
        if isinstance(parameter, click.Option)
        for flag in (*parameter.opts, *parameter.secondary_opts)
    )


@cache
def all_flags() -> frozenset[str]:
    return frozenset().union(*(flags_of(program, name) for program, group in GROUPS.items() for name in group._lazy))


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "benchmarks"], ids=name_of)
def test_flags_in_the_text_exist(page):
    for span in spans(page):
        words = span.split()
        flags = set(FLAG.findall(span)) - {"--help", "--version"}
        if words[0] in GROUPS and len(words) > 1 and not words[1].startswith("-"):
            program, name = words[:2]
            assert name in GROUPS[program]._lazy, f"`{span}`"
            assert flags <= flags_of(program, name), f"`{span}`"
        elif words[0] in ("python", "pip", "vllm", "accelerate", "pytest", "uv", "git", "bash"):
            continue
        else:
            assert flags <= all_flags() | FOREIGN, f"`{span}`"


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in (link or image for link, image in LINK.findall(SPAN.sub("", prose(page)))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "decisions"], ids=name_of)
def test_files_in_the_text_exist(page):
    """Those of the repository; "whole:" follows where a page shows a file that its reader is to make."""
    made = set(re.findall(r"`([\w/.]+)`, whole:", prose(page)))
    for span in set(spans(page)) - made:
        if re.fullmatch(r"(?:selfinstruct|finetune|scripts|data|benchmarks|tests|docs)/[\w./-]+", span):
            assert (ROOT / span).exists(), span


def test_every_page_is_linked():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target, _ in LINK.findall(prose(page))
        if not re.match(r"\w+:", target)
    }
    assert {page for page in PAGES if page.parent.name == "docs"} <= linked


# -- Python ------------------------------------------------------------------------------------------------------------

EXAMPLES = [(name_of(page), block) for page in PAGES for language, block in blocks(page) if language == "python"]


def imported(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """(the name it gets, what it is) of everything of ours that an example imports; fails where there is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in GROUPS:
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in GROUPS:
                    importlib.import_module(alias.name)


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_python_examples_fit(page, code):
    """They compile for the oldest Python, their names exist, and configurations get options that they have."""
    tree = ast.parse(code, page, feature_version=(3, 10))
    known = dict(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Config"):
            fields = getattr(known.get(node.func.id), "model_fields", None)
            if fields is not None:
                assert {keyword.arg for keyword in node.keywords} <= set(fields), ast.unparse(node)


@pytest.mark.parametrize("package", [selfinstruct, finetune], ids=lambda package: package.__name__)
def test_python_api_has_every_function(package: ModuleType):
    page = ROOT / "docs" / "python-api.md"
    shown = set(re.findall(rf"^### `{package.__name__}\.(\w+)`", text(page), re.M))
    assert shown == {lazy.function for lazy in GROUPS[package.__name__]._lazy.values()}


# -- messages ----------------------------------------------------------------------------------------------------------


@cache
def source_texts() -> str:
    """All texts in the source, lower-case; what is filled in stands as a line feed, as do the ends of texts."""
    found = []
    for path in (path for program in GROUPS for path in sorted((ROOT / program).rglob("*.py"))):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\n" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sd]|%\.\d?f", "\n", node.value))
    return "\n".join(found).lower()


def messages() -> list[str]:
    """The quoted messages: what stands in the first column of the tables, "…" for what is filled in."""
    first_cells = re.findall(r"^\| (``.+?) \|", text(ROOT / "docs" / "troubleshooting.md"), re.M)
    ours = (cell for cell in first_cells if "(click's words)" not in cell)
    return [message for cell in ours for message in re.findall(r"`` (.+?) ``", cell)]


def fragments(message: str) -> list[str]:
    """The fixed parts of a message; sentences are joined, and some clauses, when it is printed."""
    parts = (part.strip(" .:;'\"()") for part in re.split(r"…|(?<=[^.])\. (?=[A-Z])|; ", message))
    return [part for part in parts if part]


def test_there_are_messages():
    assert len(messages()) > 80
    assert all(max(map(len, fragments(message))) >= 12 for message in messages())


@pytest.mark.parametrize("message", messages())
def test_messages_are_in_the_source(message):
    for fragment in fragments(message):
        assert fragment.lower() in source_texts(), fragment


# -- figures -----------------------------------------------------------------------------------------------------------


def test_measured_figures_stand_in_the_result_files():
    """Each figure in a table of the comparisons stands in a result file that its section names."""
    page = ROOT / "docs" / "comparisons.md"
    for section in re.split(r"^## ", prose(page), flags=re.M)[1:]:
        files = re.findall(r"\(\.\./benchmarks/results/(\w+\.txt)\)", section)
        rows = [line for line in section.splitlines() if line.startswith("|") and not re.match(r"^[|: -]+$", line)]
        if not rows:
            continue
        assert files, section.splitlines()[0]
        printed = "\n".join((ROOT / "benchmarks" / "results" / file).read_text("utf-8") for file in files)
        known = {number.replace(",", "") for number in re.findall(r"\d[\d,]*\.?\d*", printed)}
        for number in re.findall(r"(?<![\w.])\d[\d,]*\.?\d*", "\n".join(rows[1:])):
            assert number.replace(",", "").rstrip(".") in known, f"{section.splitlines()[0]}: {number}"
