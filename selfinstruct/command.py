"""From a configuration model to a command: flags, environment, file, errors and exit codes, for both programs.

A command is one function from a pydantic model to a result. Its flags, their help and their defaults are the fields of
the model; a value comes from the flag, else the environment, else the file of --config, else the default.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from selfinstruct.characters import escaped, printable
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import first_problem, first_wrong_value, read_toml, to_json_line, to_toml

if TYPE_CHECKING:
    from rich.text import Text

ConfigT = TypeVar("ConfigT", bound=BaseModel)
# Which extra brings a package that the plain install does without.
_EXTRAS = dict.fromkeys(("torch", "transformers", "peft", "accelerate", "datasets", "gguf", "safetensors"), "train")
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Config(BaseModel):
    """Base of every command's configuration: frozen, unknown fields refused."""

    model_config = {"extra": "forbid", "frozen": True, "protected_namespaces": ()}


class _ConfigCommand(click.Command):
    """Lets an option with several values take them in one go: --tasks a b is --tasks a --tasks b."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        multiple = {o for p in self.params if isinstance(p, click.Option) and p.multiple for o in p.opts}
        spread: list[str] = []
        current = ""
        for arg in args:
            if arg.startswith("-"):
                option = arg.split("=")[0]
                current = option if option in multiple else ""
            elif current and spread[-1] != current:
                spread.append(current)
            spread.append(arg)
        return super().parse_args(ctx, spread)


def command(
    function: Callable[[ConfigT], Any],
    config: type[ConfigT],
    describe: Callable[[Any], str | Text],
    arguments: Sequence[str] = (),
) -> click.Command:
    """Make the command line of one function.

    Args:
        function: What the command does; its docstring's first paragraph is the help.
        config: The fields become flags; a field of list type may be given several times.
        describe: The result as text for people, with colours for a terminal where it is rich's; --json prints the
            result itself.
        arguments: Fields that are positional instead.
    """

    def run(**values: Any) -> None:
        context = click.get_current_context()
        as_json, print_config = values.pop("as_json"), values.pop("print_config")
        values.pop("config_file")
        settings = _build(config, values, context)
        if print_config:
            click.echo(escaped(to_toml(settings.model_dump(mode="json"))), nl=False)
            return
        context.obj = {"as_json": as_json}
        result = function(settings)
        if as_json:
            click.echo(escaped(to_json_line(_plain(result))))
        elif text := describe(result):
            _show(text)

    params = [_parameter(name, field, name in arguments) for name, field in config.model_fields.items()]
    params.sort(key=lambda p: arguments.index(p.name) if p.name in arguments else len(arguments))
    doc = (function.__doc__ or "").strip().split("\n\n")[0]
    return _ConfigCommand(
        name=function.__name__.replace("_", "-"),
        callback=run,
        params=[*params, *_common_options(config)],
        help=" ".join(doc.split()),
        context_settings={"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is found, so that its module is imported only when it is asked for.

    Attributes:
        module: Module that holds everything below.
        function: Name of the command's function.
        config: Name of its configuration class.
        help: One line for the program's own help.
        describe: Name of the function that puts the result into words.
        arguments: Fields that are positional.
    """

    module: str
    function: str
    config: str
    help: str
    describe: str = "describe"
    arguments: tuple[str, ...] = ()

    def load(self) -> click.Command:
        """Import the module and make the command."""
        module = import_module(self.module)
        function, config, describe = (getattr(module, name) for name in (self.function, self.config, self.describe))
        return command(function, config, describe, self.arguments)


class LazyGroup(click.Group):
    """A program whose help lists its commands, in the order given, without importing any of them.

    Args:
        commands: What each command's name stands for.
        help: What the program does.
        distribution: The installed distribution whose version --version shows.
    """

    def __init__(self, commands: Mapping[str, LazyCommand], *, help: str, distribution: str) -> None:
        # Stubs give help, completion and "did you mean" what they need; `resolve_command` loads the real command.
        stubs = {name: click.Command(name, help=lazy.help) for name, lazy in commands.items()}
        super().__init__(commands=stubs, help=help, context_settings={"help_option_names": ["-h", "--help"]})
        self._lazy = dict(commands)
        click.version_option(package_name=distribution, message="%(prog)s %(version)s")(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names as given, not sorted: they follow the order of the work."""
        return list(self._lazy)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put the real command in the place of its stub."""
        name, stub, rest = super().resolve_command(ctx, args)
        if not name or not stub:
            return name, None, rest
        loaded = self._lazy[name].load()
        loaded.name = name  # the function's may be another
        return name, loaded, rest


def _build(config: type[ConfigT], values: dict[str, Any], context: click.Context) -> ConfigT:
    """Values from the command line as a checked configuration; what was not given is left to its default."""
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
    }
    try:
        return config.model_validate(given)
    except ValidationError as error:
        field, problem = first_problem(error)
        name, *within = field.split(".")
        option = f"'{within[-1]}' " if within and not within[-1].isdigit() else ""
        raise UsageError(f"{_origin(name, context)}{option}{problem}") from error


def _origin(name: str, context: click.Context) -> str:
    """Where a value came from, as the start of a sentence about it; values from a file were checked before."""
    if not name:
        return ""
    if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        return f"environment variable {context.auto_envvar_prefix}_{name.upper()}: "
    return f"{_flag(name)}: "


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parameter(name: str, field: FieldInfo, positional: bool) -> click.Parameter:
    """One field as a click parameter; checks beyond the type are left to pydantic."""
    kind, multiple = _click_type(field.annotation)
    if positional:
        return click.Argument([name], type=kind, required=field.is_required(), nargs=-1 if multiple else 1)
    flag = _flag(name)
    default = None if field.default is PydanticUndefined else field.get_default(call_default_factory=True)
    is_flag = kind is click.BOOL
    extra: Any = field.json_schema_extra or {}
    # With one, an option may stand without a value.
    alone = {"is_flag": False, "flag_value": extra["flag_value"]} if "flag_value" in extra else {}
    return click.Option(
        [f"{flag}/--no-{flag[2:]}" if is_flag else flag],
        type=None if is_flag else kind,
        multiple=multiple,
        default=default,
        required=field.is_required(),
        help=field.description,
        show_default=default not in (None, [], ()) and default is not False,
        metavar=None if isinstance(kind, click.Choice) or is_flag else extra.get("metavar"),
        **(alone or {"is_flag": is_flag or None}),
    )


def _click_type(annotation: Any) -> tuple[click.ParamType[Any], bool]:
    """(click's type, whether several values are taken) of a field's annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) in (list, tuple):
        return _click_type(get_args(annotation)[0])[0], True
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation)), False
    simple: dict[Any, click.ParamType[Any]] = {
        bool: click.BOOL, int: click.INT, float: click.FLOAT, Path: click.Path(path_type=Path),
    }  # fmt: skip
    return simple.get(annotation, click.STRING), False


def _common_options(config: type[BaseModel]) -> list[click.Parameter]:
    return [
        click.Option(
            ["--config", "config_file"], type=click.Path(path_type=Path), is_eager=True,
            callback=partial(_load_config, config), metavar="FILE",
            help="TOML file with values for these options; flags win over it.",
        ),
        click.Option(["--print-config"], is_flag=True, help="Print the resolved options as TOML and end."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the result as one JSON object."),
        _level_option(["-q", "--quiet"], logging.ERROR, "Only errors."),
        _level_option(["-v", "--verbose"], logging.INFO, "Say more."),
        _level_option(["--debug"], logging.DEBUG, "Say everything, with tracebacks."),
    ]  # fmt: skip


def _level_option(flags: list[str], level: int, help: str) -> click.Option:
    return click.Option(flags, is_flag=True, expose_value=False, callback=_set_level(level), help=help)


def _load_config(
    config: type[BaseModel], context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Put a file's values in the place of the defaults, once each of them is known to be right."""
    if path is None:
        return None
    values, place = read_toml(path), ""
    section = (context.command.name or "").replace("-", "_")
    if isinstance(values.get(section), dict):  # a recipe, or another file with a section for each command
        values, place = values[section], f"{section}."
    values = {key.replace("-", "_"): value for key, value in values.items()}
    for name in values:
        if name not in config.model_fields:
            near = get_close_matches(name, config.model_fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else None
            raise InputError("is not a known field", path=path, field=place + name, remedy=hint)
    try:
        config.model_validate(values)
    except ValidationError as error:
        if wrong := first_wrong_value(error):  # what is missing may still come from a flag
            field, problem = wrong
            raise InputError(problem, path=path, field=place + field) from error
    lists = {name for name, field in config.model_fields.items() if _click_type(field.annotation)[1]}
    context.default_map = {k: [v] if k in lists and not isinstance(v, list) else v for k, v in values.items()}
    return path


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            logging.getLogger("selfinstruct").setLevel(level)
            logging.getLogger("finetune").setLevel(level)

    return callback


def run_program(group: click.Group, program: str, args: Sequence[str] | None = None) -> int:
    """Run a program and turn whatever happens into an exit code and, on failure, one clear message.

    Returns:
        The exit code (see `selfinstruct.errors`).
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter())
    logging.basicConfig(handlers=[handler])
    for name in ("selfinstruct", "finetune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        group.main(arguments, prog_name=program, standalone_mode=False, auto_envvar_prefix=program.upper())
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.UsageError as error:
        return _fail(_usage_message(error, program), UsageError.exit_code, error, arguments)
    except (click.Abort, KeyboardInterrupt) as error:
        return _fail("interrupted", 130, error, arguments)
    except Error as error:
        return _fail(str(error), error.exit_code, error, arguments)
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            place = f" while writing {error.filename}" if error.filename else ""
            message = f"no space left on the disk{place}; free some and run the same command again, which resumes"
        else:
            message = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        return _fail(message, 1, error, arguments)
    except MemoryError as error:
        return _fail("out of memory; use a smaller model or batch", 1, error, arguments)
    except ModuleNotFoundError as error:
        return _fail(_missing_module(error), UsageError.exit_code, error, arguments)
    except Exception as error:
        return _fail(f"unexpected {type(error).__name__}: {error} (a defect; --debug shows where)", 1, error, arguments)


def _missing_module(error: ModuleNotFoundError) -> str:
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    what = f"selfinstruct[{extra}]" if extra else error.name
    return f"the package '{error.name}' is not installed; install it with: pip install '{what}'"


def _usage_message(error: click.UsageError, program: str) -> str:
    name = error.param.name if isinstance(error, click.BadParameter) and error.param else None
    if error.ctx and name and error.ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        return f"{_origin(name, error.ctx)}{error.message}"
    path = error.ctx.command_path if error.ctx else program
    return f"{error.format_message()} See '{path} --help'."


def _fail(message: str, code: int, error: BaseException, arguments: Iterable[str]) -> int:
    """Print one clear message; tracebacks only with --debug."""
    if "--debug" in arguments:
        click.echo(printable("".join(traceback.format_exception(error))), err=True)
    click.echo(printable(f"error: {message}"), err=True)
    if "--json" in arguments:
        click.echo(escaped(to_json_line({"error": message, "exit_code": code})))
    return code


class _PrintableFormatter(logging.Formatter):
    """Log lines quote names and texts that come from elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first row underlined; columns whose cells start with a digit or sign align right."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(cell[:1] in "0123456789+-." for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, is_number, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _show(text: str | Text) -> None:
    """Print a result: without colours where stdout is no terminal, and with NO_COLOR."""
    if isinstance(text, str):
        click.echo(printable(text))
        return
    from rich.console import Console

    Console(highlight=False).print(text, soft_wrap=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
