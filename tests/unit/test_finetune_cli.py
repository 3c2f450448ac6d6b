import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli import GROUP
from selfinstruct.command import run_program

ROOT = Path(__file__).parents[2]


def test_help_lists_the_commands_in_the_order_of_the_work(capsys):
    assert run_program(GROUP, "finetune", ["--help"]) == 0
    out = capsys.readouterr().out
    assert (
        0 < out.index("\n  train ") < out.index("\n  inspect ") < out.index("\n  evaluate ") < out.index("\n  compare ")
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["evaluate", "--help"], ["compare", "--help"], ["train", "--help"], ["inspect", "--help"]]
)
def test_help_imports_no_torch(arguments):
    code = (
        "import sys, time; from finetune.cli import GROUP; from selfinstruct.command import run_program\n"
        f"assert run_program(GROUP, 'finetune', {arguments}) == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_help_of_each_command_shows_flags_and_defaults(capsys):
    assert run_program(GROUP, "finetune", ["evaluate", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("--model", "--adapter", "--tasks", "--out", "--template", "--shots", "--limit", "--max-new-tokens",
                 "--batch-tokens", "--threads", "--dry-run", "--config", "--json"):  # fmt: skip
        assert flag in out
    assert "[default: embedded]" in out


def test_a_misspelt_command_gets_a_suggestion(capsys):
    assert run_program(GROUP, "finetune", ["evalute"]) == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err


def test_no_command_shows_the_help_and_fails(capsys):
    assert run_program(GROUP, "finetune", []) == 2
    assert "evaluate" in capsys.readouterr().err
