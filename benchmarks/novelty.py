"""What a candidate costs in pools of a thousand to a million texts: this project's index and its alternatives.

Every contender says of each candidate the largest F in the pool, which text has it, and whether it is above the
threshold; MinHash says the last only, and not always rightly. All get the same texts and tokens, and one thread.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist
from rouge_score import rouge_scorer

from benchmarks.teacher import ROOT, machine
from benchmarks.texts import pool_and_candidates, read_texts
from selfinstruct.errors import InputError
from selfinstruct.files import write_jsonl
from selfinstruct.novelty import storage, tokenize
from selfinstruct.novelty.compiled import BATCH, CompiledIndex

ResultT = TypeVar("ResultT")

THRESHOLD = 0.7
K = 10
RAPIDFUZZ_BATCH = 64  # candidates; more gained nothing
N_PERMUTATIONS = 128  # datasketch's default
# Sets of equal size whose F is 0.7 have J = F / (2 - F) = 0.54; 0.7 is what one would write without reckoning.
JACCARDS = (0.7, 0.54)
PROCESSES, PROCESS_CANDIDATES, PROCESS_TEXTS = 2, 3, 10_000  # of Alpaca's process pool, likewise
SEED_TASKS = 175  # as the originals have
GOAL_POOL = 1_000_000  # goals are for this one
INDEX, LOOP = "this index", "rouge_score's loop"

START_UP = """\
import sys
from pathlib import Path
from selfinstruct.files import read_jsonl
from selfinstruct.novelty import NoveltyIndex

texts = [row["text"] for _, row in read_jsonl(Path(sys.argv[1]))]
index = NoveltyIndex()
index.add(*texts[:-1])
index.nearest(texts[-1], 10)
"""
OPENING = """\
import sys, time
from pathlib import Path
from selfinstruct.novelty import storage

began_s = time.perf_counter()
index, _ = storage.load(Path(sys.argv[1]))
print(time.perf_counter() - began_s)
index.search([sys.argv[2]])
"""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: candidates of a pool, repeats of what is short, pairs for rouge_score."""

    candidates: int
    repeats: int
    pairs: int


FULL, QUICK = Effort(10_000, 5, 20_000), Effort(500, 1, 2_000)


@dataclass(frozen=True, slots=True)
class Time:
    """What something took, in seconds: processor time of this process and its children, and by the clock."""

    cpu_s: float
    wall_s: float

    def scaled(self, factor: float) -> Time:
        """So many times that."""
        return Time(self.cpu_s * factor, self.wall_s * factor)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a contender takes for one candidate.

    Attributes:
        contender: Its name.
        n_pool: Texts in the pool.
        time: For one candidate.
        is_sampled: Whether it was measured on a few pairs only and multiplied.
        record_bytes: Memory for a text of the pool.
        precision, recall: Of the rejections; None if they are exact, or could not be reckoned.
    """

    contender: str
    n_pool: int
    time: Time
    is_sampled: bool
    record_bytes: float
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """What the texts of a measurement are like, since speed depends on it.

    Attributes:
        what: Which they are.
        mean_tokens: Of the pool's texts.
        n_words: Distinct tokens of the pool.
        maxima: Quartiles of the candidates' largest F.
        rejected: Share of the candidates above the threshold.
    """

    what: str
    mean_tokens: float
    n_words: int
    maxima: tuple[float, float, float]
    rejected: float


@dataclass(frozen=True, slots=True)
class Figure:
    """Something else that was measured.

    Attributes:
        what: In words.
        value: In `unit`.
        at_least, at_most: What it should be; None for no goal.
        aim: What would be better still.
    """

    what: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None

    @property
    def goal(self) -> str:
        """What it should be, and whether it is."""
        if self.at_least is None and self.at_most is None:
            return ""
        is_met = (self.at_least or 0) <= self.value <= (self.at_most or math.inf)
        wanted = f"at least {self.at_least:,g}" if self.at_least else f"at most {self.at_most:,g}"
        return f"{wanted}{f' (aim {self.aim:,g})' if self.aim else ''}: {'met' if is_met else 'MISSED'}"


def timed(work: Callable[[], ResultT]) -> tuple[Time, ResultT]:
    """Do something once."""
    cpu_s, wall_s = _cpu_s(), time.perf_counter()
    result = work()
    return Time(_cpu_s() - cpu_s, time.perf_counter() - wall_s), result


def median(work: Callable[[], object], repeats: int) -> Time:
    """Do something again and again."""
    times = [timed(work)[0] for _ in range(repeats)]
    return Time(statistics.median(t.cpu_s for t in times), statistics.median(t.wall_s for t in times))


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _resident_bytes() -> int:
    """Of this process: proc(5), statm."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# -- contenders --------------------------------------------------------------------------------------------------------


def ours(index: CompiledIndex, candidates: Sequence[str], k: int, repeats: int) -> Cost:
    """This project's index, from text to decision."""

    def decide() -> NDArray[np.bool_]:
        rejected: NDArray[np.bool_] = index.search(candidates, k).scores[:, 0] > THRESHOLD
        return rejected

    spent = median(decide, repeats).scaled(1 / len(candidates))
    name = INDEX if k == 1 else f"{INDEX}, best {k}"
    return Cost(name, len(index), spent, False, index.nbytes / len(index))


def rapidfuzz(pool: Sequence[str], candidates: Sequence[str], maxima: NDArray[np.float64], repeats: int) -> Cost:
    """All pairs, a batch of candidates at a time; a token is a character, and Indel similarity is F up to rounding.

    Raises:
        RuntimeError: If the largest F are not those of the index.
    """
    characters: dict[str, str] = {}

    def encoded(text: str) -> str:
        return "".join(characters.setdefault(token, chr(len(characters) + 1)) for token in tokenize(text, "rouge"))

    def decide() -> NDArray[np.float64]:
        found = []
        for begin in range(0, len(candidates), RAPIDFUZZ_BATCH):
            batch = [encoded(text) for text in candidates[begin : begin + RAPIDFUZZ_BATCH]]
            scores = cdist(batch, references, scorer=Indel.normalized_similarity, dtype=np.float64)
            nearest = scores.argmax(axis=1)
            found.append(scores[np.arange(len(batch)), nearest])
        return np.concatenate(found)

    references = [encoded(text) for text in pool]
    has_tokens = np.array([bool(encoded(text)) for text in candidates])  # two texts without any are alike for Indel
    if not np.allclose(decide()[has_tokens], maxima[has_tokens], rtol=0, atol=1e-9):
        raise RuntimeError("the index and RapidFuzz do not agree")
    spent = median(decide, repeats).scaled(1 / len(candidates))
    record_bytes = statistics.fmean(sys.getsizeof(text) + 8 for text in references)
    return Cost("RapidFuzz, all pairs", len(pool), spent, False, record_bytes)


def minhash(pool: Sequence[str], candidates: Sequence[str], rejected: NDArray[np.bool_], jaccard: float) -> Cost:
    """MinHash and LSH of datasketch over sets of tokens: rejected is who shares a bucket with somebody."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

    def hashed(texts: Sequence[str]) -> Iterator[Any]:
        tokens = ([token.encode() for token in tokenize(text, "rouge")] for text in texts)
        return MinHash.generator(tokens, num_perm=N_PERMUTATIONS)  # type: ignore[no-any-return]

    def decide() -> NDArray[np.bool_]:
        return np.array([bool(lsh.query(signature)) for signature in hashed(candidates)])

    before = _resident_bytes()
    lsh = MinHashLSH(threshold=jaccard, num_perm=N_PERMUTATIONS)
    for number, signature in enumerate(hashed(pool)):
        lsh.insert(number, signature)
    record_bytes = (_resident_bytes() - before) / len(pool)
    spent, found = timed(decide)
    right = int((found & rejected).sum())
    return Cost(
        f"MinHash LSH, J >= {jaccard}", len(pool), spent.scaled(1 / len(candidates)), False, record_bytes,
        right / int(found.sum()) if found.any() else None, right / int(rejected.sum()) if rejected.any() else None,
    )  # fmt: skip


def rouge_loop(pool: Sequence[str], candidates: Sequence[str], n_pairs: int) -> Cost:
    """rouge_score's LCS on tokens that are ready, on pairs drawn at random."""
    drawn = pairs_of(candidates, pool, n_pairs)
    pairs = [(tokenize(reference, "rouge"), tokenize(text, "rouge")) for text, reference in drawn]
    spent, _ = timed(lambda: [rouge_scorer._score_lcs(reference, candidate) for reference, candidate in pairs])
    record_bytes = statistics.fmean(_token_bytes(reference) for reference, _ in pairs)
    return Cost(LOOP, len(pool), spent.scaled(len(pool) / len(pairs)), True, record_bytes)


def rouge_score(pool: Sequence[str], candidates: Sequence[str], n_pairs: int) -> Cost:
    """rouge_score asked for each pair, so that it finds the tokens of both anew, as in Self-Instruct; likewise."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    pairs = pairs_of(candidates, pool, n_pairs)
    spent, _ = timed(lambda: [scorer.score(text, reference) for text, reference in pairs])
    record_bytes = statistics.fmean(sys.getsizeof(reference) + 8 for _, reference in pairs)
    return Cost("rouge_score.score", len(pool), spent.scaled(len(pool) / len(pairs)), True, record_bytes)


def pairs_of(candidates: Sequence[str], pool: Sequence[str], n: int) -> list[tuple[str, str]]:
    """Candidates, each with a text of the pool."""
    rng = Random("pairs")
    return [(rng.choice(candidates), rng.choice(pool)) for _ in range(n)]


def process_pool(pool: Sequence[str], candidates: Sequence[str]) -> Cost:
    """The loop as in Alpaca: new processes for each candidate, which are sent all tokens."""
    references = [tokenize(text, "rouge") for text in islice(pool, PROCESS_TEXTS)]

    def decide(candidate: str) -> int:
        with Pool(PROCESSES) as processes:
            scores = processes.map(partial(rouge_scorer._score_lcs, tokenize(candidate, "rouge")), references)
        return int(np.argmax([score.fmeasure for score in scores]))

    some = Random("few").sample(candidates, PROCESS_CANDIDATES)
    spent, _ = timed(lambda: [decide(candidate) for candidate in some])
    scaled = spent.scaled(len(pool) / len(references) / len(some))
    record_bytes = statistics.fmean(_token_bytes(reference) for reference in references)
    return Cost(f"the loop in {PROCESSES} processes", len(pool), scaled, len(pool) > len(references), record_bytes)


def _token_bytes(tokens: list[str]) -> int:
    return sys.getsizeof(tokens) + sum(map(sys.getsizeof, tokens)) + 8


# -- one pool after the other ------------------------------------------------------------------------------------------


def warm_up(texts: Sequence[str]) -> None:
    """Load or compile whatever is compiled."""
    index = CompiledIndex("rouge")
    index.add([*texts, *["a b b"] * BATCH])
    index.judge(texts, THRESHOLD)
    index.search(texts, K)
    index.scores("a b b")


def texts_of(what: str, index: CompiledIndex, maxima: NDArray[np.float64]) -> Texts:
    """What the pool of an index and its candidates are like."""
    first, median, third = np.quantile(maxima, (0.25, 0.5, 0.75)).tolist()
    n_tokens = sum(len(segment.tokens) for segment in index.settled())
    vocabulary = index.vocabulary
    n_repeats = int((vocabulary.letters[vocabulary.starts[: vocabulary.n_terms]] == 0).sum())
    n_words, rejected = vocabulary.n_terms - n_repeats, float((maxima > THRESHOLD).mean())
    return Texts(what, n_tokens / len(index), n_words, (first, median, third), rejected)


def contenders(
    index: CompiledIndex, pool: Sequence[str], candidates: Sequence[str], maxima: NDArray[np.float64], effort: Effort
) -> Iterator[Cost]:
    """Let all decide on candidates, the slow ones on the first few of them."""
    few = len(candidates) // 5
    fewer = max(len(candidates) * 5_000 // len(pool), RAPIDFUZZ_BATCH)
    yield ours(index, candidates, 1, effort.repeats)
    yield ours(index, candidates[:few], K, effort.repeats)
    yield rapidfuzz(pool, candidates[:fewer], maxima[:fewer], min(effort.repeats, 3))
    for jaccard in JACCARDS:
        with Pool(1) as process:  # of its own, so that its memory is known
            yield process.apply(minhash, (pool, candidates, maxima > THRESHOLD, jaccard))
    yield rouge_loop(pool, candidates, effort.pairs)
    yield process_pool(pool, candidates)
    yield rouge_score(pool, candidates, effort.pairs)


def of_searches(
    index: CompiledIndex, costs: Sequence[Cost], candidates: Sequence[str], maxima: NDArray[np.float64], repeats: int
) -> Iterator[Figure]:
    """What the costs of the contenders in the same pool amount to, and other searches."""
    of = {cost.contender: cost.time.cpu_s for cost in costs}
    one_s = of[INDEX]
    yield Figure("decisions", 1 / one_s, "a second", at_least=7_000, aim=15_000)
    yield Figure(f"the best {K}", 1 / of[f"{INDEX}, best {K}"], "a second", at_least=150, aim=1_000)
    yield Figure(f"{LOOP} takes", of[LOOP] / one_s, "times as long", at_least=500_000)
    yield Figure("memory", index.nbytes / len(index), "bytes a text", at_most=250)
    accepted = [text for text, maximum in zip(candidates, maxima, strict=True) if maximum <= THRESHOLD]
    yield Figure("a candidate that is accepted", 1e6 * ours(index, accepted, 1, repeats).time.cpu_s, "us")
    two = CompiledIndex.of(index.vocabulary, index.segments, index.next_id, threads=2)
    ratios = [
        timed(lambda: index.search(candidates))[0].wall_s / timed(lambda: two.search(candidates))[0].wall_s
        for _ in range(repeats)
    ]
    yield Figure("two threads on two cores", statistics.median(ratios), "times as fast", at_least=1.4)
    means = median(lambda: [index.scores(text).mean() for text in candidates[:5]], repeats)
    yield Figure("exact mean over the pool, on request", 1e3 * means.cpu_s / 5, "ms")


def of_changes(index: CompiledIndex, built: Time, candidates: Sequence[str], folder: Path) -> Iterator[Figure]:
    """What building, saving, opening and adding to an index costs; the candidates are added to it."""
    yield Figure("build", 1e6 * built.cpu_s / len(index), "us a text")
    path = folder / "index"
    saved, _ = timed(lambda: storage.save(index, path))
    yield Figure("save", saved.wall_s, "s")
    yield Figure("its file", path.stat().st_size / 1e6, "MB")
    whole, printed = timed(lambda: run("-c", OPENING, str(path), candidates[0]))
    yield Figure("open in a new process", float(printed), "s", at_most=2)
    yield Figure("the same from the start of the process to a first answer", whole.wall_s, "s")
    added, _ = timed(partial(add_one_by_one, index, candidates))
    yield Figure("add one by one", 1e6 * added.cpu_s / len(candidates), "us a text")


def of_processes(pool: Sequence[str], folder: Path, repeats: int) -> Iterator[Figure]:
    """What new processes take: `selfinstruct novelty` for all texts, and one question to a small pool."""
    rows = folder / "pool.jsonl"
    write_jsonl(rows, ({"instruction": text, "input": "", "output": ""} for text in pool))
    command = ("-m", "selfinstruct", "novelty", str(rows), "--out", str(folder / "out.jsonl"), "--threads", "1")
    stream, _ = timed(lambda: run(*command))
    yield Figure(f"`novelty` for {len(pool):,} rows from empty: CPU time", stream.cpu_s, "s", at_most=60, aim=40)
    yield Figure("the same by the clock", stream.wall_s, "s")
    write_jsonl(rows, ({"text": text} for text in pool[: SEED_TASKS + 1]))
    start = median(lambda: run("-c", START_UP, str(rows)), repeats)
    yield Figure(f"new process, pool of {SEED_TASKS}, one question", start.wall_s, "s")


def add_one_by_one(index: CompiledIndex, texts: Sequence[str]) -> None:
    """Add texts as they come, with the segments that they make necessary."""
    for text in texts:
        index.add([text])


def run(*arguments: str) -> str:
    """What a new Python process prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


# -- what is printed ---------------------------------------------------------------------------------------------------


def costs_table(costs: Sequence[Cost]) -> str:
    """A row for each contender, a column for each pool."""
    pools = list(dict.fromkeys(cost.n_pool for cost in costs))
    loop = next(cost for cost in costs if cost.contender == LOOP and cost.n_pool == pools[-1])
    rows = [["", *(f"{n:,}" for n in pools), "growth", f"x {LOOP}", "bytes", "precision", "recall"]]
    for name in dict.fromkeys(cost.contender for cost in costs):
        found = [cost for cost in costs if cost.contender == name]
        last = found[-1]
        cells = [_cell(cost) for cost in found]
        times = f"{loop.time.cpu_s / last.time.cpu_s:,.0f}"
        shares = ["" if share is None else f"{share:.2f}" for share in (last.precision, last.recall)]
        rows.append([name, *cells, _growth(found), times, f"{last.record_bytes:,.0f}", *shares])
    return _table(rows)


def _cell(cost: Cost) -> str:
    times = [_number(1e6 * seconds) for seconds in (cost.time.cpu_s, cost.time.wall_s)]
    return f"{'~' if cost.is_sampled else ''}{' / '.join(times)}"


def _growth(found: Sequence[Cost]) -> str:
    """The exponent between the two largest pools; of what was multiplied there is none."""
    if len(found) < 2 or found[-1].is_sampled:
        return ""
    small, large = found[-2:]
    return f"{math.log(large.time.cpu_s / small.time.cpu_s) / math.log(large.n_pool / small.n_pool):.2f}"


def texts_table(texts: Sequence[Texts]) -> str:
    """A row for each pool."""
    rows = [["", "tokens a text", "words", "largest F: quartiles", f"above {THRESHOLD}"]]
    for some in texts:
        quartiles = ", ".join(f"{quartile:.2f}" for quartile in some.maxima)
        rows.append([some.what, f"{some.mean_tokens:.1f}", f"{some.n_words:,}", quartiles, f"{some.rejected:.0%}"])
    return _table(rows)


def figures_table(figures: Sequence[Figure], with_goals: bool) -> str:
    """A row for each, its goal beside it."""
    rows = [["", "measured", "goal"]]
    rows += [[f.what, f"{_number(f.value)} {f.unit}", f.goal if with_goals else ""] for f in figures]
    return _table(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["--", *("--:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="JSONL (.gz) with texts, of which pools are made")
    parser.add_argument("--field", default="instruction", help="that has the text")
    parser.add_argument("--pools", default="1000,10000,100000,1000000", help="how many texts, growing")
    parser.add_argument("--quick", action="store_true", help="500 candidates once, not 10,000 several times")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    args.pools = [int(n) for n in args.pools.split(",")]
    try:
        args.texts = read_texts(args.file, args.field)
    except InputError as error:
        parser.error(str(error))
    return args


def main() -> None:
    """Measure all pools and print the tables."""
    args = _arguments()
    effort = QUICK if args.quick else FULL
    warm_up(args.texts)
    own = CompiledIndex("rouge")
    judged = own.judge(args.texts, 1.0)  # accepts all
    texts, costs = [texts_of("the file, each and those before", own, judged.matches.scores[:, 0])], []
    for n in args.pools:
        pool, candidates = pool_and_candidates(args.texts, n, effort.candidates)
        index = CompiledIndex("rouge")
        built, _ = timed(partial(index.add, pool))
        maxima = index.search(candidates).scores[:, 0]
        for cost in contenders(index, pool, candidates, maxima, effort):
            print(f"{n:,} texts, {cost.contender}: {_cell(cost)} us", file=sys.stderr)
            costs.append(cost)
        texts.append(texts_of(f"pool of {n:,}", index, maxima))
    last = [cost for cost in costs if cost.n_pool == n]
    with TemporaryDirectory() as folder:
        figures = [
            *of_searches(index, last, candidates, maxima, effort.repeats),
            *of_changes(index, built, candidates, Path(folder)),
            *of_processes(pool, Path(folder), effort.repeats),
        ]
    if args.out:
        facts = {"machine": machine(), "texts": texts, "costs": costs, "figures": figures}
        args.out.write_text(json.dumps(facts, indent=1, default=asdict))
    print(f"{machine()['cpu']}, Python {platform.python_version()}; microseconds a candidate, CPU time / by the clock;")
    print("~ on a sample of pairs, multiplied. Bytes, ratios, precision and recall are for the largest pool.\n")
    print(costs_table(costs), texts_table(texts), sep="\n\n")
    print(f"\nIn the pool of {n:,}, on one core where nothing else is said:\n")
    print(figures_table(figures, with_goals=n >= GOAL_POOL))


if __name__ == "__main__":
    main()
