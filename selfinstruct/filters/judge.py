"""Tasks that a judge thinks little of."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Candidate, Prompt, Verdict

MAX_SCORE = 5.0
_SCORE = re.compile(r"(?<![\d.])([0-5](?:\.\d+)?)(?![\d.]*\d)")
_MAX_TOKENS = 200  # of a score and its reason

_ASK = """\
Grade how well an assistant's answer carries out an instruction. What counts, in this order: the answer is right; it
does all that the instruction asks, and nothing else; it fits the input, if there is one; the instruction itself makes
sense and can be carried out by writing alone.

5: nothing to improve. 4: good, with a small flaw. 3: usable, with a clear flaw. 2: mostly wrong or incomplete.
1: wrong. 0: no answer, or no sense in the instruction. Halves are allowed.

### Instruction
{instruction}
{given}
### Answer
{output}

### Your grade
First line: the grade alone, a number from 0 to 5. Then one sentence with the reason.
"""


class Judge(Filter):
    """A model's grade from 0 to 5 is below the threshold (AlpaGasus, Chen et al., 2024, which kept 4.5 and above).

    The grade is asked for before judgement, in the same ledger and budget, and kept in the task's `scores`.

    Attributes:
        min_score: The lowest grade that is kept.
        model: Who grades; the teacher itself if not given.
        base_url: Where, if not at the teacher's endpoint.
        api_key_env: Environment variable with the key there; the teacher's if not given.
        input_usd_per_mtok, output_usd_per_mtok: The price there, instead of the table's.
    """

    kind: Literal["judge"] = "judge"
    min_score: float = Field(4.5, ge=0, le=MAX_SCORE)
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    input_usd_per_mtok: float | None = Field(None, ge=0)
    output_usd_per_mtok: float | None = Field(None, ge=0)

    def judge(self, case: Case) -> Verdict | None:
        """By the grade."""
        score = case.candidate.scores.get(self.kind)
        if score is None:
            return Verdict("unjudged", "the judge gave no grade")
        if score >= self.min_score:
            return None
        return Verdict("judge", f"{score:g} of {MAX_SCORE:g}, at least {self.min_score:g} wanted")

    def prompt(self, candidate: Candidate) -> Prompt:
        """What the judge is asked, about the first instance."""
        instance = candidate.instances[0]
        given = f"\n### Input\n{instance.input}\n" if instance.input else ""
        text = _ASK.format(instruction=candidate.instruction, given=given, output=instance.output)
        return Prompt(({"role": "user", "content": text},), max_tokens=_MAX_TOKENS, temperature=0.0)

    def score(self, text: str) -> float | None:
        """The grade in a reply: its first number from 0 to 5; None where there is none."""
        found = _SCORE.search(text)
        return min(float(found[1]), MAX_SCORE) if found else None
