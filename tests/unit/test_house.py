"""The rules of the house, read from the source: who imports whom, what loads quickly, what is documented."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType

import pytest
from pydantic import BaseModel

import finetune
import selfinstruct
from finetune.cli import GROUP as FINETUNE
from selfinstruct.cli import GROUP as SELFINSTRUCT
from selfinstruct.files import tomllib

ROOT = Path(__file__).parents[2]
PROGRAMS = {"selfinstruct": SELFINSTRUCT, "finetune": FINETUNE}
SOURCES = sorted(path for name in PROGRAMS for path in (ROOT / name).rglob("*.py"))
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "safetensors", "gguf"}

# What training and evaluation may use of the generator: what both halves must do alike, and the frame of a command.
SHARED = {
    "errors", "records", "files", "render", "tasks", "seeds", "embedded", "novelty", "ledger", "teacher",
    "command", "progress", "labelled_data", "contamination", "asking", "markdown",
    "characters",
}  # fmt: skip
# Packages that come with a declared one, under whose name they are used.
COMES_WITH = {
    "httpx2": "openai",
    "pydantic_core": "pydantic",
    "tokenizers": "transformers",
    "huggingface_hub": "transformers",
    "pyarrow": "datasets",
    "referencing": "jsonschema",
}


@cache
def tree(path: Path) -> ast.Module:
    # The oldest Python that is supported must read it.
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in SOURCES}


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports, at its top, in functions and for type checking alike."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {node.module}
    return frozenset(found)


def own(path: Path) -> set[str]:
    return {name for name in imports(path) if name in MODULES}


def commands(program: str) -> dict[str, str]:
    """Name of each command's module, by its function."""
    return {lazy.function: lazy.module for lazy in PROGRAMS[program]._lazy.values()}


# -- one direction -----------------------------------------------------------------------------------------------------


def rank(name: str) -> int:
    """records, errors < files < the parts < bootstrap < a run's surroundings < commands < the package's front."""
    if name in (*PROGRAMS, *(f"{program}.{end}" for program in PROGRAMS for end in ("cli", "__main__"))):
        return 6
    if name in {*commands("selfinstruct").values(), *commands("finetune").values()}:
        return 5
    ranks = {
        "selfinstruct.records": 0, "selfinstruct.errors": 0, "selfinstruct.files": 1, "selfinstruct.bootstrap": 3,
        "selfinstruct.forecast": 4, "selfinstruct.run_folder": 4,
    }  # fmt: skip
    return ranks.get(name, 2)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_one_way(name):
    for target in own(MODULES[name]):
        same = rank(target) == rank(name) and rank(name) in (2, 6)
        assert rank(target) < rank(name) or same, f"{name} imports {target}"


def test_the_parts_stand_in_no_circle():
    graph = {name: own(path) for name, path in MODULES.items() if rank(name) == 2}
    while free := {name for name, targets in graph.items() if not targets & set(graph)}:
        graph = {name: targets for name, targets in graph.items() if name not in free}
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("selfinstruct")))
def test_the_generator_knows_neither_training_nor_torch(name):
    roots = {target.partition(".")[0] for target in imports(MODULES[name])}
    allowed = {"datasets"} if name == "selfinstruct.labelled_data" else set()  # imported where a data set is named
    assert not roots & (HEAVY | {"finetune"}) - allowed


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("finetune")))
def test_training_and_evaluation_use_the_shared_parts_only(name):
    targets = {target for target in imports(MODULES[name]) if target.partition(".")[0] == "selfinstruct"}
    assert {target.removeprefix("selfinstruct.") for target in targets} <= SHARED


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        cut = str.maketrans("><=!~;[ ", "        ")
        return {requirement.translate(cut).split()[0].replace("-", "_") for requirement in requirements}

    extras = {name: names(packages) for name, packages in project["optional-dependencies"].items()}
    declared = {
        "selfinstruct": names(project["dependencies"])
        | extras["embedded"]
        | extras["ray"]
        | extras["analysis"]
        | {"datasets"},  # its pyarrow, for export
        "finetune": names(project["dependencies"]) | extras["train"],
    }
    for name, path in MODULES.items():
        roots = {target.partition(".")[0] for target in imports(path)} - set(sys.stdlib_module_names) - set(PROGRAMS)
        assert {COMES_WITH.get(root, root) for root in roots} <= declared[name.partition(".")[0]], name


# -- what loads quickly ------------------------------------------------------------------------------------------------


def loaded(code: str) -> set[str]:
    """Top-level names of everything that is loaded in a fresh process after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("program", PROGRAMS)
def test_importing_a_package_loads_nothing_big(program):
    assert not loaded(f"import {program}") & (HEAVY | {"openai", "numpy", "pydantic", "click", "rich"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_nothing_big(program):
    code = (
        f"from {program}.cli import GROUP; from selfinstruct.command import run_program\n"
        f"assert run_program(GROUP, {program!r}, ['--help']) == 0"
    )
    modules = loaded(code)
    assert "pydantic" in modules  # the test sees what is loaded
    assert not modules & (HEAVY | {"openai", "numpy", "rapidfuzz", "rich", "jinja2", "genai_prices"})


@pytest.mark.parametrize(
    ("program", "name"), [(program, name) for program, group in PROGRAMS.items() for name in group._lazy]
)
def test_help_of_every_command(program, name):
    code = (
        f"from {program}.cli import GROUP; from selfinstruct.command import run_program\n"
        f"assert run_program(GROUP, {program!r}, [{name!r}, '--help']) == 0"
    )
    assert not loaded(code) & (HEAVY | {"openai"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_start_as_modules_and_as_scripts(program):
    script = Path(sys.executable).with_name(program)
    for command in ([sys.executable, "-m", program], [str(script)]):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        for name in PROGRAMS[program]._lazy:
            assert f"\n  {name} " in done.stdout


# -- the public functions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [selfinstruct, finetune], ids=lambda package: package.__name__)
def test_every_command_has_its_function(package):
    stems = {path.stem for path in (ROOT / package.__name__).iterdir()}
    for lazy in PROGRAMS[package.__name__]._lazy.values():
        importlib.import_module(lazy.module)
        function = getattr(package, lazy.function)
        assert isinstance(function, FunctionType)
        assert (function.__module__, function.__name__) == (lazy.module, lazy.function)
        assert issubclass(getattr(package, lazy.config), BaseModel)
        # A module of that name would take the function's place once it is imported.
        assert not {lazy.function, lazy.config} & stems
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = package.absent


@pytest.mark.parametrize("package", [selfinstruct, finetune], ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package):
    seen = {
        (node.module.partition(".")[2], alias.asname)
        for node in ast.walk(tree(Path(package.__file__)))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package.__name__)
        for alias in node.names
    }
    assert seen == {(home, name) for home, names in package._HOMES.items() for name in names}


def test_every_option_says_what_it_does():
    for program, group in PROGRAMS.items():
        for lazy in group._lazy.values():
            config = getattr(importlib.import_module(lazy.module), lazy.config)
            for name, field in config.model_fields.items():
                assert (field.description or "").endswith("."), f"{program} {lazy.function}: {name}"


# -- source ------------------------------------------------------------------------------------------------------------


def documented(path: Path) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """A file's module and its public classes and functions."""
    yield tree(path)
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_everything_public_is_documented(path):
    for node in documented(path):
        text = ast.get_docstring(node)
        assert text, f"{path}: {getattr(node, 'name', 'module')}"
        assert text.split("\n\n")[0].rstrip()[-1] in ".:", f"{path}: {getattr(node, 'name', 'module')}"


def test_names_say_what_is_inside_and_nothing_is_left_to_do():
    vague = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}
    for path in SOURCES:
        assert not vague & set(path.stem.split("_")), path
        text = path.read_text(encoding="utf-8")
        assert not {word for word in ("TODO", "FIXME", "XXX") if word in text}, path


@pytest.mark.parametrize("check", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_checkers_pass(check):
    done = subprocess.run([sys.executable, "-m", *check], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
