"""rouge_score as the oracle of novelty: what an index should say of a pool whose ids are its positions."""

from __future__ import annotations

from rouge_score import rouge_scorer

from selfinstruct.novelty import NoveltyIndex, Tokenizer

SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


def rouge_score(candidate: str, reference: str) -> float:
    return float(SCORER.score(reference, candidate)["rougeL"].fmeasure)


def ranking(candidate: str, pool: list[str]) -> list[tuple[str, float]]:
    """What the index should say: (id, F) by F descending, then order of addition; no overlap, no mention."""
    scores = [(str(number), rouge_score(candidate, text)) for number, text in enumerate(pool)]
    return sorted((pair for pair in scores if pair[1] > 0), key=lambda pair: -pair[1])


def index_of(pool: list[str], tokenizer: Tokenizer = "rouge") -> NoveltyIndex:
    index = NoveltyIndex(tokenizer)
    index.add(*pool)
    return index


def nearest(index: NoveltyIndex, text: str, k: int = 1, size: int | None = None) -> list[tuple[str, float]]:
    return [(str(match.position), match.score) for match in index.nearest(text, k, size)]
