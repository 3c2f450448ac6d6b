"""Whether the novelty index decides as rouge_score and a comparison of all pairs do: decisions, and those that differ.

A decision is right when it is the same, and the largest F and the position of the text that has it are the same, to the
last bit. Streams of texts of many kinds are judged in order at three thresholds; a large pool is asked for the best
match of texts like its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.teacher import machine
from benchmarks.texts import pool_and_candidates
from selfinstruct.novelty.compiled import CompiledIndex
from tests.rouge import (
    KINDS,
    best_of_pool,
    by_compiled,
    by_novelty_index,
    by_rapidfuzz,
    by_rouge_score,
    checked,
    differing,
    sentences,
    shipped_sentences,
)

COMPILED, SMALL = "compiled", "for small pools"
ALL_PAIRS, ROUGE_SCORE = "all pairs", "rouge_score"


@dataclass(frozen=True, slots=True)
class Row:
    """Decisions of one sort.

    Attributes:
        texts: What kind.
        index: Which one decided.
        oracle: What it was compared with.
        threshold: Above which a text is rejected; None where only the best match was asked for.
        decisions, rejected, mismatches: How many.
    """

    texts: str
    index: str
    oracle: str
    threshold: float | None
    decisions: int
    rejected: int
    mismatches: int


def streams(corpus: Sequence[str], n_decisions: int, n_rouge: int, n_small: int, seed: int) -> Iterator[Row]:
    """Judge streams of every kind of texts.

    Args:
        corpus: Real texts.
        n_decisions: Of the compiled index, compared with all pairs.
        n_rouge: Likewise, compared with rouge_score.
        n_small: Of the index for small pools, compared with all pairs.
        seed: Of all texts that are made.
    """
    for name, kind in KINDS.items():
        for index, judge, label, oracle, n in (
            (COMPILED, by_compiled, ALL_PAIRS, by_rapidfuzz, n_decisions * kind.share // 100),
            (COMPILED, by_compiled, ROUGE_SCORE, by_rouge_score, n_rouge * kind.rouge_share // 100),
            (SMALL, by_novelty_index, ALL_PAIRS, by_rapidfuzz, n_small * kind.share // 100),
        ):
            tallies = checked(kind, n, seed, judge=judge, oracle=oracle, corpus=corpus)
            for threshold, tally in tallies.items():
                yield Row(name, index, label, threshold, tally.decisions, tally.rejected, tally.mismatches)
            print(f"{name}: {n:,} of {index} by {label}", file=sys.stderr)


def large_pool(corpus: Sequence[str], n_pool: int, n_candidates: int, seed: int) -> Row:
    """Ask a pool for the best match of each candidate."""
    pool, candidates = pool_and_candidates(corpus, n_pool, n_candidates, seed)
    index = CompiledIndex("rouge")
    index.add(pool)
    wrong = differing(index.search(candidates), best_of_pool(candidates, pool))
    return Row(f"like real ones, pool of {n_pool:,}", COMPILED, ALL_PAIRS, None, len(wrong), 0, int(wrong.sum()))


def table(rows: Sequence[Row]) -> str:
    """A line for each kind of texts and threshold, decisions by who made them and what they were compared with."""
    sorts = list(dict.fromkeys((row.index, row.oracle) for row in rows))
    lines = [["texts", "threshold", *(f"{index}, {oracle}" for index, oracle in sorts), "rejected", "mismatches"]]
    lines.append(["--", *["--:"] * (len(sorts) + 3)])
    for key in [*dict.fromkeys((row.texts, row.threshold) for row in rows), None]:
        some = [row for row in rows if key in (None, (row.texts, row.threshold))]
        texts, threshold = key or ("**all**", None)
        counts = (sum(row.decisions for row in some if (row.index, row.oracle) == sort) for sort in sorts)
        rejected = sum(row.rejected for row in some) / sum(row.decisions for row in some)
        lines.append([
            texts, "" if threshold is None else f"{threshold:g}", *(f"{n:,}" if n else "" for n in counts),
            f"{rejected:.0%}" if rejected else "", f"{sum(row.mismatches for row in some):,}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="JSONL files with real texts, besides the shipped ones")
    parser.add_argument("--decisions", type=int, default=2_000_000, help="to compare with all pairs")
    parser.add_argument("--rouge-decisions", type=int, default=40_000, help="to compare with rouge_score")
    parser.add_argument("--small-decisions", type=int, default=100_000, help="of the index for small pools")
    parser.add_argument("--pool", type=int, default=1_000_000, help="texts of the large pool")
    parser.add_argument("--candidates", type=int, default=500, help="that the large pool is asked for")
    parser.add_argument("--seed", type=int, default=0, help="of all texts that are made")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    args = parser.parse_args()
    corpus = [*shipped_sentences(), *sentences(*args.files)]
    rows = list(streams(corpus, args.decisions, args.rouge_decisions, args.small_decisions, args.seed))
    rows.append(large_pool(corpus, args.pool, args.candidates, args.seed))
    if args.out:
        args.out.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1))
    print(f"{machine()['cpu']}, {len(corpus):,} real sentences\n")
    print(table(rows))
    sys.exit(any(row.mismatches for row in rows))


if __name__ == "__main__":
    main()
