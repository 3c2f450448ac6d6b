"""Evol-Instruct (WizardLM, Xu et al., 2023): existing tasks are rewritten to be harder, or get a rarer sibling.

Operations and elimination checks after section 3.2 of arXiv 2304.12244; the wording is this project's. Deviations:
parents are drawn from seeds and accepted tasks instead of generation after generation, an instruction and its input
stay apart, the check for information gain comes before the answer is paid for, and instructions are to be worded
afresh, since one that only has words appended counts as a near-duplicate of its parent for the novelty filter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

import anyio
from pydantic import Field

from selfinstruct.languages import language_name
from selfinstruct.parsing import Block, is_yes, task_blocks
from selfinstruct.records import Candidate, Completion, Example, Instance, Prompt, Verdict
from selfinstruct.strategies import Slot, Step, Strategy, unparsable
from selfinstruct.strategies.copying import copy_check, texts_of

IN_BREADTH = "in_breadth"
IN_DEPTH = {
    "add_constraints": "Add one condition or requirement that the answer has to meet.",
    "deepen": "Ask for more than the surface of the matter: causes, consequences, exceptions or limits.",
    "concretise": "Replace what is general by something specific: a certain case, place, person, amount or date.",
    "increase_reasoning": "Make the answer take several steps of thought, each of which builds on the one before.",
    "complicate_input": (
        "Give it a richer input to work on, such as a table, a list of records, a few lines of code, JSON or a longer"
        " text with details that matter, and say in the instruction what is to be done with it."
    ),
}
_TASK = "one that a text-only assistant gets: it is done by reading and writing alone"
_IN_DEPTH_PROMPT = """\
Rewrite a task so that it becomes somewhat harder for the assistant who has to do it. The task is {task}.

How to make it harder: {method}

What matters:
- It stays reasonable: somebody who knows the subject understands it and can answer it.
- It grows by 10 to 20 words and not more. Word the instruction afresh rather than adding to the end of the old one.
- Nothing that belongs to the task gets lost. Keep the input as it is unless it has to change, with all tables and code.
- It stands by itself: it mentions neither the task before it nor that anything was rewritten.
- Write the task only, not its answer. Everything is in {language}.
"""
_IN_BREADTH_PROMPT = """\
Take a task as a starting point for one that is new. The task is {task}.

What matters:
- The new one belongs to the same field, but deals with something rarer that fewer people would think of.
- It is about as long and as hard as the one it starts from, and it is worded quite differently.
- It is reasonable: somebody who knows the subject understands it and can answer it.
- It stands by itself: it does not mention the task it started from. If it needs an input, write a concrete one.
- Write the task only, not its answer. Everything is in {language}.
"""
_FORM = """\

Given task
{parent}

{title} task, in the same form, with "(none)" for an input that is not needed
Instruction:"""
_CHECK_PROMPT = """\
Compare two tasks. They are equal if both put the same conditions and requirements, and ask equally broad and equally
deep questions; other words alone make no difference.

First task
{first}

Second task
{second}

Are the two tasks equal? Answer Yes or No."""
_ANSWER_PROMPT = """\
Below are a task and its input, and then the output that does what the task asks for, completely and correctly.

{task}
Output:"""

MAX_TOKENS = 768  # of a rewritten task with its input
_TOKENS_PER_TASK, _TOKENS_PER_ANSWER = 110, 200  # usual lengths of replies, for forecasts
_REFUSAL_WORDS = 80  # shorter answers that say "sorry" are refusals (section 3.2)
_MAY_BE_SORRY = re.compile(r"sorry|apolog|regret|refus|declin|reply|letter|message|dialog|story|scene", re.I)
_PROMPT_TALK = re.compile(
    r"\b(?:given|re-?writ(?:e|ten)) (?:task|prompt|instruction)s?\b|#\s*(?:given|rewritten|created|new)\b", re.I
)
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_STOP_WORDS = re.compile(
    r"(?:about|after|all|also|am|an|and|any|are|as|at|be|been|but|by|can|could|did|do|does|for|from|had|has|have|he|her"
    r"|him|his|how|if|in|into|is|it|its|me|my|of|on|or|our|out|she|so|some|than|that|the|their|them|then|there|these"
    r"|they|this|those|to|too|up|us|was|we|were|what|when|where|which|who|why|will|with|would|you|your)"
)


@dataclass(frozen=True, slots=True)
class Evolution:
    """What is done to one parent.

    Attributes:
        operation: `IN_BREADTH`, or a name of `IN_DEPTH`.
        generation: Of the child: how often it and its ancestors were made harder.
    """

    parent: Example
    operation: str
    generation: int


class EvolInstruct(Strategy):
    """Existing tasks made harder, or given a rarer sibling.

    Attributes:
        tasks_per_request: How many parents a slot rewrites, each in a request of its own.
        generations: How often a task and its ancestors may be made harder; then it only gets siblings.
        breadth: Share of siblings; all six operations are equally likely in the paper.
        seed_share: Share of parents that are seed tasks once there are accepted ones, lest the run drifts away.
        check: Whether the model is asked if a rewritten task differs from its parent. Only a yes to their being equal
            rejects the task: what a model says that answers neither yes nor no counts as a no.
    """

    kind: Literal["evol-instruct"] = "evol-instruct"
    tasks_per_request: int = Field(4, gt=0, le=50)
    generations: int = Field(4, ge=0)
    breadth: float = Field(1 / 6, ge=0, le=1)
    seed_share: float = Field(0.25, ge=0, le=1)
    check: bool = True

    @property
    def tasks_per_reply(self) -> int:
        """One: each request rewrites one parent."""
        return 1

    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks from some of the old ones, all at once."""
        evolutions = self.evolutions(slot)
        candidates: dict[tuple[int, int], Candidate] = {}

        async def finish(place: tuple[int, int], completion: Completion) -> None:
            candidates[place] = await self._child(slot, evolutions[place[0]], completion, f"{place[0]}.{place[1]}")

        async def evolve(number: int) -> None:
            prompt = self.evolving_prompt(slot, evolutions[number])
            for reply, completion in enumerate(await slot.ask_all(f"evolve/{number}", prompt)):
                tasks.start_soon(finish, (number, reply), completion)

        async with anyio.create_task_group() as tasks:
            for number in range(len(evolutions)):
                tasks.start_soon(evolve, number)
        return [candidates[place] for place in sorted(candidates)]

    def steps(self, slot: Slot) -> tuple[Step, ...]:
        """A rewriting for each parent, a check for each reply, and the answers."""
        parent = slot.seeds[0]
        same = Block(parent.instruction, parent.instances)
        evolving = Step(self.evolving_prompt(slot, Evolution(parent, IN_BREADTH, 0)), _TOKENS_PER_TASK)
        checking = Step(check_prompt(slot, parent, same), 1)
        n_checks = self.tasks_per_request * self.replies_per_request if self.check else 0
        answering = Step(answer_prompt(slot, same), _TOKENS_PER_ANSWER, per_task=True)
        return (*[evolving] * self.tasks_per_request, *[checking] * n_checks, answering)

    def evolutions(self, slot: Slot) -> list[Evolution]:
        """Different parents, each a seed task or an accepted one by `seed_share`, with what is done to them."""
        n_seeds = sum(slot.rng.random() < self.seed_share for _ in range(self.tasks_per_request))
        accepted = slot.rng.sample(slot.accepted, min(self.tasks_per_request - n_seeds, len(slot.accepted)))
        seeds = slot.rng.sample(slot.seeds, min(self.tasks_per_request - len(accepted), len(slot.seeds)))
        return [self.evolution(slot.rng, parent) for parent in (*seeds, *accepted)]

    def evolution(self, rng: Random, parent: Example) -> Evolution:
        """What is done to a parent; a sibling belongs to its parent's generation."""
        in_breadth, operation = rng.random() < self.breadth, rng.choice(list(IN_DEPTH))
        if in_breadth or generation(parent) >= self.generations:
            return Evolution(parent, IN_BREADTH, generation(parent))
        return Evolution(parent, operation, generation(parent) + 1)

    def evolving_prompt(self, slot: Slot, evolution: Evolution) -> Prompt:
        """How to rewrite, the parent, and the start of the child."""
        parent, method = evolution.parent, IN_DEPTH.get(evolution.operation)
        asked, title = (_IN_DEPTH_PROMPT, "Rewritten") if method else (_IN_BREADTH_PROMPT, "New")
        text = asked.format(task=_TASK, method=method, language=language_name(slot.language))
        text += _FORM.format(parent=_text(parent), title=title)
        return Prompt(
            ({"role": "user", "content": text},),
            max_tokens=MAX_TOKENS,
            temperature=1.0,
            top_p=0.9,
            stop=("\nOutput:", "\nGiven task", "\nRewritten task", "\nNew task"),
            n=self.replies_per_request,
            demonstrations=(parent.id,),
        )

    async def _child(self, slot: Slot, evolution: Evolution, completion: Completion, step: str) -> Candidate:
        """The candidate of one rewriting, with its answer unless something speaks against it before."""
        parent = evolution.parent
        attributes = {"operation": evolution.operation, "generation": str(evolution.generation)}
        task = evolved_task(completion.text)
        if task is None:
            return unparsable(slot, completion, (parent.id,), attributes)

        def candidate(rejection: Verdict | None, output: str | None = None, screened: bool = False) -> Candidate:
            instances = () if output is None else (Instance(_input(task), output),)
            return slot.candidate(
                completion, 0, task.instruction, instances, False, (parent.id,), rejection, screened, attributes
            )

        if completion.finish_reason == "length":
            return candidate(Verdict("truncated", "the reply reached its token limit inside this task"))
        if copied := copied_prompt(task.instruction, parent, self.evolving_prompt(slot, evolution)):
            return candidate(copied)
        if slot.screen(task.instruction):
            return candidate(None, screened=True)
        if self.check:
            reply = await slot.ask(f"check/{step}", check_prompt(slot, parent, task))
            if not reply.text.strip():
                why = reply.error or f"not said whether it equals its parent (finish reason '{reply.finish_reason}')"
                return candidate(Verdict("unparsable", f"{why}; a reasoning model may need more --thinking-tokens"))
            if is_yes(reply.text):
                return candidate(Verdict("no_gain", f"equal to {parent.id}, as the model says itself"))
        answer = await slot.ask(f"answer/{step}", answer_prompt(slot, task))
        return candidate(_unfinished(answer) or useless(task, answer.text, slot.language), answer.text.strip())


def generation(task: Example) -> int:
    """How often a task and its ancestors were made harder; 0 for seed tasks and those of other strategies."""
    return int(task.source.attributes.get("generation", 0)) if task.source else 0


def evolved_task(text: str) -> Block | None:
    """The task of a reply, None without an instruction; its one instance has the input only."""
    block = next(iter(task_blocks(text)), None)
    if block is None or not block.instruction:
        return None
    given = block.instances[0].input if block.instances else ""
    return Block(block.instruction, (Instance(given, ""),))


def copied_prompt(instruction: str, parent: Example, prompt: Prompt) -> Verdict | None:
    """Objects to an instruction that speaks of its rewriting, or that has a piece of the prompt in it.

    Words that it has from its parent do not count.
    """
    talk = _PROMPT_TALK.search(instruction)
    if talk and talk[0].lower() not in parent.instruction.lower():
        return Verdict("copied_prompt", f"'{talk[0]}'")
    return copy_check(prompt, texts_of([parent]))(instruction)


def useless(task: Block, answer: str, language: str) -> Verdict | None:
    """Objects to an answer that shows that the task cannot be done: a refusal, or nothing but stop words (section 3.2).

    A short answer that says "sorry" is none where the task may ask for it, as a letter or a scene does.
    """
    words = _WORD.findall(answer.lower())
    if "sorry" in words and len(words) < _REFUSAL_WORDS and not _MAY_BE_SORRY.search(_text(task)):
        return Verdict("refusal", f"'sorry' in {len(words)} words")
    if answer.strip() and all(language == "en" and _STOP_WORDS.fullmatch(word) for word in words):
        return Verdict("no_content", "punctuation and stop words alone")
    return None


def check_prompt(slot: Slot, parent: Example, task: Block) -> Prompt:
    """Whether the child asks for anything that the parent does not; a plain completion is led to its answer."""
    text = _CHECK_PROMPT.format(first=_text(parent), second=_text(task))
    stop: tuple[str, ...] = ()
    if slot.endpoint == "completions":
        text += "\nAnswer:"
        stop = ("\n",)
    return Prompt(({"role": "user", "content": text},), max_tokens=3, temperature=0.0, stop=stop)


def answer_prompt(slot: Slot, task: Block) -> Prompt:
    """The task itself; a plain completion is told what follows, and ends where it would begin anew."""
    stop: tuple[str, ...] = ()
    if slot.endpoint == "completions":
        text = _ANSWER_PROMPT.format(task=_text(task))
        stop = ("\nInstruction:", "\nInput:", "\nOutput:", "\nBelow are a task")
    else:
        text = "\n\n".join(part for part in (task.instruction, _input(task)) if part)
    return Prompt(({"role": "user", "content": text},), max_tokens=slot.max_output_tokens, temperature=0.0, stop=stop)


def _unfinished(answer: Completion) -> Verdict | None:
    if answer.finish_reason == "length":
        return Verdict("truncated", "the answer reached its token limit")
    if answer.finish_reason in ("error", "content_filter"):
        return Verdict("unparsable", answer.error or "the endpoint's content filter ended the answer")
    return None


def _input(task: Example | Block) -> str:
    return task.instances[0].input


def _text(task: Example | Block) -> str:
    return f"Instruction: {' '.join(task.instruction.split())}\nInput: {_input(task) or '(none)'}"
