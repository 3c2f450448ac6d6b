"""A small program made as ours are, run here or, where a process is needed, as `python test_command.py ...`."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, model_validator

from selfinstruct.characters import printable
from selfinstruct.cli import GROUP as SELFINSTRUCT
from selfinstruct.command import Config, LazyCommand, LazyGroup, run_program, table
from selfinstruct.errors import (
    AuthenticationError,
    CapReached,
    Error,
    InputError,
    Interrupted,
    PermanentError,
    StoppedEarly,
    TransientError,
    UsageError,
)

ESCAPES = "\x1b[31mred\x1b[0m\r\x07\x9b2J"
FAILURES: dict[str, BaseException] = {
    "error": Error("something"),
    "usage": UsageError("something"),
    "input": InputError("is wrong", path="a.jsonl", line=3, field="text", remedy="mend it"),
    "authentication": AuthenticationError("something"),
    "cap": CapReached("something"),
    "early": StoppedEarly("something"),
    "interrupted": Interrupted("something"),
    "transient": TransientError("something"),
    "permanent": PermanentError("something"),
    "keyboard": KeyboardInterrupt(),
    "memory": MemoryError(),
    "space": OSError(errno.ENOSPC, "No space left on device", "runs/a.jsonl"),
    "too_big": OSError(errno.EFBIG, "File too large"),
    "missing": FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"),
    "defect": ZeroDivisionError("division by zero"),
    "escapes": Error(ESCAPES),
    "surrogate": Error("\udcff"),
}


class SampleConfig(Config):
    out: Path = Field(description="Where to.")
    files: list[Path] = Field([], description="What from.")
    count: int = Field(1, gt=0, description="How many.")
    rate: float = Field(0.0, description="How much.")
    name: str | None = Field(None, description="Whose.")
    kind: Literal["plain", "fancy"] = Field("plain", description="What kind.")
    keep: bool = Field(True, description="Whether to keep.")
    fast: bool = Field(False, description="Whether to hurry.")
    fail: str = Field("", description="How to fail.")

    @model_validator(mode="after")
    def _agree(self) -> "SampleConfig":
        if self.fast and self.count > 100:
            raise ValueError("--fast and a large --count exclude each other")
        return self


@dataclass(frozen=True)
class Sample:
    text: str
    count: int


def sample(config: SampleConfig) -> Sample:
    """Do something.

    And more.
    """
    logging.getLogger("selfinstruct.sample").warning("warned %s", ESCAPES)
    logging.getLogger("finetune.sample").info("informed")
    if config.fail == "wait":
        print("waiting", flush=True)
        while True:  # a signal that comes just before a sleep is only noticed after it
            time.sleep(0.01)
    if config.fail:
        raise FAILURES[config.fail]
    return Sample(f"{config.name} ü {ESCAPES}", config.count)


def describe(result: Sample) -> str:
    return f"text: {result.text}"


class PlaceConfig(Config):
    place: Path = Field(description="Where.")
    others: list[Path] = Field([], description="Where else.")
    tags: list[str] = Field([], description="How marked.")


def visit(config: PlaceConfig) -> dict[str, object]:
    """Go there."""
    return config.model_dump(mode="json")


def say(result: object) -> str:
    return str(result)


GROUP = LazyGroup(
    {
        "sample": LazyCommand(__name__, "sample", "SampleConfig", "Do something."),
        "visit": LazyCommand(__name__, "visit", "PlaceConfig", "Go.", describe="say", arguments=("place", "others")),
    },
    help="Try things out.",
    distribution="selfinstruct",
)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the program; gives (exit code, stdout, stderr)."""
    for name in os.environ:
        if name.startswith("SAMPLE_"):
            monkeypatch.delenv(name)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run_program(GROUP, "sample", list(map(str, arguments)))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def resolved(run):
    """Runs `sample --print-config`; gives the values."""

    def call(*arguments: object) -> dict[str, object]:
        from selfinstruct.files import tomllib

        code, out, err = run("sample", *arguments, "--print-config")
        assert (code, err) == (0, "")
        values: dict[str, object] = tomllib.loads(out)
        return values

    return call


def written(folder: Path, text: str) -> Path:
    path = folder / "options.toml"
    path.write_text(text, encoding="utf-8")
    return path


# -- where values come from --------------------------------------------------------------------------------------------


def test_flag_wins_over_environment_over_file_over_default(resolved, tmp_path, monkeypatch):
    file = written(tmp_path, "out = 'from-file'\ncount = 3\nrate = 3.5\nname = 'file'\nfast = true\n")
    assert resolved("--out", "x")["count"] == 1
    assert resolved("--config", file)["count"] == 3
    monkeypatch.setenv("SAMPLE_SAMPLE_COUNT", "4")
    monkeypatch.setenv("SAMPLE_SAMPLE_RATE", "4.5")
    monkeypatch.setenv("SAMPLE_SAMPLE_FAST", "false")
    assert resolved("--config", file, "--count", 5) == {
        "out": "from-file",
        "files": [],
        "count": 5,
        "rate": 4.5,
        "name": "file",
        "kind": "plain",
        "keep": True,
        "fast": False,
        "fail": "",
    }


def test_flag_turns_off_what_a_file_turns_on(resolved, tmp_path):
    file = written(tmp_path, "fast = true\nkeep = false\n")
    assert resolved("--out", "x", "--config", file, "--no-fast", "--keep")["fast"] is False
    assert resolved("--out", "x", "--config", file, "--no-fast", "--keep")["keep"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("--files", "a", "b", "c"),
        ("--files", "a", "--files", "b", "c"),
        ("--files=a", "b", "c"),
        ("--files", "a", "--count", "2", "--files", "b", "c"),
    ],
)
def test_one_flag_takes_several_values(resolved, arguments):
    assert resolved("--out", "x", *arguments)["files"] == ["a", "b", "c"]


def test_values_end_with_the_next_flag(run):
    code, _, err = run("sample", "--files", "a", "--out", "x", "stray")
    assert code == 2
    assert "unexpected extra argument (stray)" in err


def test_positional_arguments(run):
    code, out, _ = run("visit", "here", "there", "far", "--tags", "a", "b", "--json")
    assert (code, json.loads(out)) == (0, {"place": "here", "others": ["there", "far"], "tags": ["a", "b"]})
    code, _, err = run("visit")
    assert code == 2
    assert "Missing argument 'PLACE'" in err


def test_file_may_have_a_section_for_each_command(resolved, tmp_path):
    file = written(tmp_path, "title = 'recipe'\n[sample]\ncount = 3\n[other]\nunknown = 1\n")
    assert resolved("--out", "x", "--config", file)["count"] == 3


def test_file_may_spell_names_as_flags(run, tmp_path):
    file = written(tmp_path, "num-instructions = 7\n")
    assert (
        run_program(SELFINSTRUCT, "selfinstruct", ["generate", "--out", "x", "--config", str(file), "--print-config"])
        == 0
    )


def test_printed_config_round_trips(resolved, run, tmp_path):
    given = ("--out", tmp_path / "é", "--files", "a b", 'c"', "--rate", "1e-7", "--no-keep", "--name", "line\nbreak")
    first = resolved(*given)
    file = written(tmp_path, run("sample", *given, "--print-config")[1])
    assert resolved("--config", file) == first
    file.write_text(run("visit", "here", "there", "--print-config")[1])
    assert json.loads(run("visit", "--config", file, "--json")[1]) == {"place": "here", "others": ["there"], "tags": []}


# -- values that are wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont = 3", "options.toml: field 'cuont': is not a known field. Did you mean 'count'?"),
        ("xyz = 3", "options.toml: field 'xyz': is not a known field"),
        ("debug = true", "options.toml: field 'debug': is not a known field"),
        ("[sample]\ncuont = 3", "field 'sample.cuont': is not a known field. Did you mean 'count'?"),
        ("count = 'many'", "options.toml: field 'count': input should be a valid integer"),
        ("count = 3.5", "options.toml: field 'count': input should be a valid integer"),
        ("count = 0", "options.toml: field 'count': input should be greater than 0, not 0"),
        ("[sample]\ncount = 0", "options.toml: field 'sample.count': input should be greater than 0, not 0"),
        ("files = 'a'", "options.toml: field 'files': input should be a valid list, not 'a'"),
        ("files = ['a', 1]", "options.toml: field 'files.1': "),
        ("name = 5", "options.toml: field 'name': input should be a valid string, not 5"),
        ("name = ['a']", "options.toml: field 'name': input should be a valid string"),
        ("kind = 'odd'", "options.toml: field 'kind': input should be 'plain' or 'fancy', not 'odd'"),
        ("count = 1\ncount = 2", "options.toml: is not valid TOML"),
    ],
)
def test_wrong_value_in_a_file_names_file_and_field(run, tmp_path, text, message):
    code, out, err = run("sample", "--out", "x", "--config", written(tmp_path, text))
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_wrong_value_in_the_environment_is_named(run, monkeypatch):
    for value, problem in [("many", "'many' is not a valid integer"), ("-1", "input should be greater than 0, not -1")]:
        monkeypatch.setenv("SAMPLE_SAMPLE_COUNT", value)
        code, _, err = run("sample", "--out", "x")
        assert (code, f"error: environment variable SAMPLE_SAMPLE_COUNT: {problem}" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--count", "many"),
            "Invalid value for '--count': 'many' is not a valid integer. See 'sample sample --help'.",
        ),
        (("--count", "0"), "error: --count: input should be greater than 0, not 0"),
        (("--kind", "odd"), "'odd' is not one of 'plain', 'fancy'"),
        (("--cuont", "3"), "No such option '--cuont'"),
        (("--coun", "3"), "No such option '--coun'"),  # no abbreviations: they would change meaning with a new flag
        (("--count",), "'--count' requires an argument"),
        (("--config", "absent.toml"), "absent.toml: no such file"),
        (("--config", "."), "is a folder"),
        (("--fast", "--count", "101"), "error: --fast and a large --count exclude each other\n"),
    ],
)
def test_wrong_flag_is_named(run, arguments, message):
    code, out, err = run("sample", "--out", "x", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_missing_flag_is_named(run):
    code, _, err = run("sample")
    assert code == 2
    assert err == "error: --out: is missing\n" or "Missing option '--out'" in err  # before click 8.3


def test_values_that_agree_only_with_a_flag_may_stand_in_a_file(resolved, tmp_path):
    file = written(tmp_path, "out = 'x'\nfast = true\ncount = 101\n")
    assert resolved("--config", file, "--count", "5")["count"] == 5


def test_misspelt_command_gets_a_suggestion(run):
    code, _, err = run("sampel")
    assert code == 2
    assert "Did you mean 'sample'?" in err


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_shows_fields_with_defaults(run):
    code, out, _ = run("sample", "--help")
    assert code == 0
    text = " ".join(out.split())
    assert "Do something. Options" in text  # the first paragraph of the docstring
    for line in (
        "--out PATH Where to. [required]",
        "--files PATH What from. --count",
        "--count INTEGER How many. [default: 1]",
        "--rate FLOAT How much. [default: 0.0]",
        "--name TEXT Whose. --kind",
        "--kind [plain|fancy] What kind. [default: plain]",
        "--keep / --no-keep Whether to keep. [default: keep]",
        "--fast / --no-fast Whether to hurry. --fail",
    ):
        assert line in text


def test_help_lists_commands_in_the_order_given(run):
    out = run("--help")[1]
    assert 0 < out.index("\n  sample  Do something.") < out.index("\n  visit   Go.")


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("sample 0.")


# -- results and failures ----------------------------------------------------------------------------------------------


def test_result_in_words_or_as_json(run):
    code, out, _ = run("sample", "--out", "x", "--name", "n")
    assert (code, out) == (0, "text: n ü \\x1b[31mred\\x1b[0m\\x0d\\x07\\x9b2J\n")
    code, out, _ = run("sample", "--out", "x", "--name", "n", "--json")
    assert (code, json.loads(out)) == (0, {"text": f"n ü {ESCAPES}", "count": 1})
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("failure", "exit_code", "message"),
    [
        ("error", 1, "something"),
        ("usage", 2, "something"),
        ("input", 2, "a.jsonl:3: field 'text': is wrong. Mend it"),
        ("authentication", 3, "something"),
        ("cap", 4, "something"),
        ("early", 5, "something"),
        ("interrupted", 130, "something"),
        ("transient", 1, "something"),
        ("permanent", 1, "something"),
        ("keyboard", 130, "interrupted"),
        ("memory", 1, "out of memory"),
        ("space", 1, "no space left on the disk while writing runs/a.jsonl; free some and run the same command again"),
        ("too_big", 1, "no space left on the disk; free some"),
        ("missing", 1, "No such file or directory: a.txt"),
        ("defect", 1, "unexpected ZeroDivisionError: division by zero"),
        ("escapes", 1, "\\x1b[31mred\\x1b[0m\\x0d\\x07\\x9b2J"),
        ("surrogate", 1, "\\xdcff"),
    ],
)
def test_failure_has_its_exit_code_and_one_message(run, failure, exit_code, message):
    code, out, err = run("sample", "--out", "x", "--fail", failure)
    assert (code, out) == (exit_code, "")
    assert err.strip().startswith(f"error: {message}")
    assert len(err.strip().splitlines()) == 1
    code, out, err = run("sample", "--out", "x", "--fail", failure, "--json", "--quiet")
    assert (code, json.loads(out)["exit_code"]) == (exit_code, exit_code)
    assert printable(json.loads(out)["error"]) == err.strip().removeprefix("error: ").replace("\\xdcff", "?")
    code, _, err = run("sample", "--out", "x", "--fail", failure, "--debug")
    assert code == exit_code
    assert "Traceback (most recent call last)" in err
    assert "in sample\n" in err


def test_failure_of_the_command_line_itself_is_json_too(run):
    code, out, _ = run("sample", "--count", "many", "--out", "x", "--json")
    assert (code, json.loads(out)["exit_code"]) == (2, 2)


def test_text_for_a_terminal_keeps_every_script_and_no_control_character():
    text = "café 日本\u3000語 नमस्ते 👩\u200d🔬 a\u00a0b\n\tc"
    assert printable(text) == text
    assert printable("\x1b]0;title\x07\x7f\x85\r\ud800") == "\\x1b]0;title\\x07\\x7f\\x85\\x0d\\xd800"


def test_table_aligns_numbers_right():
    assert table([["name", "n"], ["a", "1"], ["long", "-20"]]) == "name    n\n----  ---\na       1\nlong  -20"


# -- as a process ------------------------------------------------------------------------------------------------------


def process(*arguments: str, **options: object) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, "sample", "--out", "x", *arguments]
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**defaults, **options})  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ((), ["warned \\x1b[31mred\\x1b[0m\\x0d\\x07\\x9b2J"]),
        (("--quiet",), []),
        (("--verbose",), ["warned \\x1b[31mred\\x1b[0m\\x0d\\x07\\x9b2J", "informed"]),
    ],
)
def test_log_goes_to_stderr_as_loud_as_asked_without_escapes(flags, lines):
    out, err = process("--json", *flags).communicate(timeout=60)
    assert json.loads(out)["count"] == 1
    assert err.splitlines() == lines


def test_ctrl_c_is_no_traceback():
    running = process("--fail", "wait")
    assert running.stdout.readline() == "waiting\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err


def test_reader_that_goes_away_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    running = process("--quiet", stdout=write)
    os.close(write)
    assert running.communicate(timeout=60)[1] == ""
    assert running.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_behind_stdout_is_no_traceback():
    with open("/dev/full", "w") as full:
        running = process("--quiet", stdout=full)
        _, err = running.communicate(timeout=60)
    assert running.returncode != 0
    assert err.startswith("error: no space left on the disk")
    assert "Traceback" not in err


if __name__ == "__main__":
    sys.exit(run_program(GROUP, "sample"))
