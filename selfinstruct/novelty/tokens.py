"""Tokens and the score of a pair: what rouge_score computes, by its own operations."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Tokenizer = Literal["rouge", "unicode"]

_ROUGE = re.compile(r"[a-z0-9]+")
# Scripts written without spaces are compared character by character: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents belong to the word that they stand in, though \w leaves them out.
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c).startswith("M"))
_UNICODE = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])(?:[^\W_]|[{_MARKS}]))+")


def tokenize(text: str, tokenizer: Tokenizer) -> list[str]:
    """Split a text into tokens.

    Args:
        text: Any text.
        tokenizer: "rouge" is rouge_score's default (lower-case runs of [a-z0-9], no stemming); "unicode" sees every
            script: words, and single characters where words are not separated by spaces.
    """
    if tokenizer == "rouge":
        return _ROUGE.findall(text.lower())
    return _UNICODE.findall(unicodedata.normalize("NFKC", text).casefold())


def rouge_l(lcs: int, n_candidate: int, n_reference: int) -> float:
    """F-measure of one pair from the length of its longest common subsequence, rounded as rouge_score rounds it."""
    if not lcs:
        return 0.0
    precision, recall = lcs / n_candidate, lcs / n_reference
    return 2 * precision * recall / (precision + recall)
