"""Parts of a run that are chosen by name and have options of their own: strategies and filters.

In a file they are tables with a `kind`, on the command line `kind` or `kind:option=value,option=value`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A part with options; `kind` tells which, and is a literal in each subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    def __str__(self) -> str:
        """As on the command line; options that stand at their default are left out."""
        given = {name: value for name, value in self if name != "kind" and value != self.default(name)}
        options = ",".join(f"{name}={_text(value)}" for name, value in given.items())
        return f"{self.kind}:{options}" if options else self.kind

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of an option."""
        return cls.model_fields[name].get_default(call_default_factory=True)


def read_spec(value: Any) -> Any:
    """What pydantic is given for a part that was written as on the command line; other values as they are."""
    if not isinstance(value, str):
        return value
    kind, _, options = value.partition(":")
    pairs = [option.partition("=") for option in options.split(",") if option]
    return {"kind": kind} | {name.strip().replace("-", "_"): text.strip() for name, _, text in pairs}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
