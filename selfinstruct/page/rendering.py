"""Fills in the page's templates: every text that was read is escaped, and only our own style and script may apply."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from selfinstruct.characters import cut, visible
from selfinstruct.page import words
from selfinstruct.results import evenly

T = TypeVar("T")
TEMPLATES = Path(__file__).parent


def rendered(**values: Any) -> Iterator[bytes]:
    """The page in pieces, since the packed rows make it large.

    The content policy forbids everything but the style sheet and the script, which it knows by their hashes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=words.count,
        cut=cut,
        dropped=lambda reason: words.DROPPED.get(reason, ""),
        duration=words.duration,
        evenly=_evenly,
        meaning=words.meaning,
        model=words.model,
        percent=words.percent,
        place=words.place,
        points=words.points,
        signed=words.signed,
        token=_token,
        usd=words.usd,
    )
    environment.globals.update(points=words.points, signed=words.signed)
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    template = environment.get_template("report.html.j2")
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    for piece in template.generate(style=style, script=script, **hashes, **values):
        yield piece.encode("utf-8", "replace")


def _hash(text: str) -> str:
    """As a content policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finalized(value: Any) -> Any:
    """Plain text with a mark where it had characters that cannot be seen; what is escaped already stays."""
    return visible(value) if type(value) is str else value


def _token(text: str) -> str:
    """A token whose white space can be seen."""
    return text.replace("\n", "\N{RETURN SYMBOL}").replace("\t", "\N{RIGHTWARDS ARROW TO BAR}")


def _evenly(items: Sequence[T], most: int) -> list[T]:
    return [items[index] for index in evenly(len(items), most)]
