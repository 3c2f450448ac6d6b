"""The loop of a run: slots are asked in parallel and judged in order, so that timing shapes nothing.

Slot k is drawn from the pool as it stood after slot k - window was judged, with its own random generator. The data set
is then a function of configuration, seed and completions. Resume is replay: the loop runs again from the start, and
`Teacher.ask` finds what is already in the ledger.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

import anyio

from selfinstruct import filters
from selfinstruct.errors import Error, Interrupted
from selfinstruct.ledger import Ledger
from selfinstruct.novelty import NoveltyIndex, Tokenizer
from selfinstruct.records import Candidate, Completion, Endpoint, Example, Neighbour, Prompt, Verdict
from selfinstruct.strategies import Slot, Strategy
from selfinstruct.teacher import Stopped, Teacher

logger = logging.getLogger(__name__)

N_NEAREST = 10  # Self-Instruct records the ten most similar instructions


@dataclass(frozen=True, slots=True)
class Plan:
    """What shapes a run; see `generation.GenerateConfig` for the meaning of the fields."""

    strategy_name: str
    strategy: Strategy
    model: str
    endpoint: Endpoint
    language: str
    seed: int
    target: int
    window: int
    novelty_threshold: float
    novelty_tokenizer: Tokenizer
    tasks_per_request: int
    max_output_tokens: int
    saturation_window: int
    min_yield: float


class Pool:
    """Seeds and accepted tasks, with the novelty index over their instructions."""

    def __init__(self, seeds: Sequence[Example], tokenizer: Tokenizer, threshold: float) -> None:
        self.seeds, self._threshold = tuple(seeds), threshold
        self.accepted: list[Example] = []
        self._index = NoveltyIndex(tokenizer)
        for seed in seeds:
            self._index.add(seed.id, seed.instruction)

    def add(self, example: Example) -> None:
        """Accept a task."""
        self.accepted.append(example)
        self._index.add(example.id, example.instruction)

    def nearest(self, instruction: str, n_accepted: int | None = None, k: int = N_NEAREST) -> tuple[Neighbour, ...]:
        """The most similar instructions among the seeds and the first so many accepted tasks (None: all)."""
        size = None if n_accepted is None else len(self.seeds) + n_accepted
        return self._index.nearest(instruction, k, size)

    def too_similar(self, nearest: Sequence[Neighbour]) -> bool:
        """Whether the novelty threshold is passed, strictly as in both originals."""
        return bool(nearest) and nearest[0].score > self._threshold


def screen(pool: Pool, n_accepted: int, language: str) -> Callable[[str], Verdict | None]:
    """The verdicts that are certain before a task is complete.

    The pool only grows, so an instruction too similar to a part of it is too similar to all of it.
    """

    def verdict(instruction: str) -> Verdict | None:
        if objection := filters.judge_instruction(instruction, language):
            return objection
        nearest = pool.nearest(instruction, n_accepted, k=1)
        return Verdict("novelty") if pool.too_similar(nearest) else None

    return verdict


def judge(candidate: Candidate, pool: Pool, language: str, target: int) -> Verdict:
    """The verdict on a candidate, against the pool as it stands; cheap filters before costly ones."""
    if candidate.rejection and candidate.rejection.rule != "novelty":
        return candidate.rejection
    objection = filters.judge_instruction(candidate.instruction, language)
    if objection is None and candidate.rejection is None:
        objection = filters.judge_instances(candidate.instances)
    if objection:
        return objection
    nearest = pool.nearest(candidate.instruction)
    if pool.too_similar(nearest):
        return Verdict("novelty", f"ROUGE-L {nearest[0].score:.3f} to {nearest[0].id}", nearest)
    if len(pool.accepted) >= target:
        return Verdict("target_reached", f"{target} were wanted", nearest)
    return Verdict(None, nearest=nearest)


def slot_of(
    plan: Plan,
    number: int,
    seeds: Sequence[Example],
    accepted: Sequence[Example],
    ask: Callable[[str, Prompt], Awaitable[Completion]],
    screen: Callable[[str], Verdict | None],
) -> Slot:
    """What the strategy is handed for one slot."""
    return Slot(
        number=number,
        rng=Random(f"{plan.seed}/{number}"),  # noqa: S311
        run_rng=lambda purpose: Random(f"{plan.seed}/{purpose}"),  # noqa: S311
        seeds=seeds,
        accepted=accepted,
        ask=ask,
        screen=screen,
        strategy=plan.strategy_name,
        model=plan.model,
        endpoint=plan.endpoint,
        tasks_per_request=plan.tasks_per_request,
        max_output_tokens=plan.max_output_tokens,
    )


@dataclass(slots=True)
class State:
    """How far a run is; read by the progress line.

    Attributes:
        n_judged: Candidates judged.
        n_slots: Slots judged.
        closed_by: "target" or "saturated" once the run is closed, else None.
        error: What ended the run early, if anything.
    """

    pool: Pool
    n_judged: int = 0
    n_slots: int = 0
    closed_by: str | None = None
    error: BaseException | None = None
    recent: deque[bool] = field(default_factory=deque)


class Bootstrap:
    """One run of the loop.

    Args:
        plan: What shapes the run.
        state: Filled while it runs.
        teacher: Answers prompts.
        ledger: Gets every verdict.
        report: Called after every judged slot.
    """

    def __init__(
        self, plan: Plan, state: State, teacher: Teacher, ledger: Ledger, report: Callable[[State], None]
    ) -> None:
        self._plan, self._state, self._teacher, self._ledger, self._report = plan, state, teacher, ledger, report
        # A run that was closed with this target closes at the same slot again; later ones need not be asked.
        closing = ledger.fact("closing")
        self._last_slot: int | None = closing["slot"] if closing and closing["target"] == plan.target else None
        self._finished: dict[int, list[Candidate]] = {}
        self._n_accepted_after: list[int] = []  # accepted tasks after each judged slot
        self._next_slot = 0
        self._unfinished: set[int] = set()  # slots that an end of asking left open
        self._aborted = False
        self._progressed = anyio.Event()

    async def run(self) -> None:
        """Run until the target, saturation, a cap, an outage or a signal; the last three are left in `state.error`.

        After those, slots go on being judged as long as the ledger has the replies, so that what is left is the longest
        prefix of slots that has been paid for, also when a replay was cut short.

        Raises:
            Error: When the ledger cannot be written.
            Interrupted: At a second signal, which leaves the judging undone too.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_signals, tasks.cancel_scope)
                async with anyio.create_task_group() as slots:
                    while self._state.closed_by is None and self._state.n_slots not in self._unfinished:
                        while self._may_begin_slot():
                            slots.start_soon(self._work, self._next_slot)
                            self._next_slot += 1
                        await self._progressed.wait()
                        self._progressed = anyio.Event()
                        await self._judge_finished()
                    self._end_asking()
                tasks.cancel_scope.cancel()
        except Exception as error:
            raise _only(error) from None
        if self._aborted and self._state.closed_by is None:
            raise Interrupted("aborted; every reply that came in is kept, and the same command resumes")

    def _may_begin_slot(self) -> bool:
        """Within the window, and only while the slots under way are not expected to reach the target."""
        under_way = self._next_slot - self._state.n_slots
        if under_way >= self._plan.window:
            return False
        if under_way and self._last_slot is not None and self._next_slot > self._last_slot:
            return False
        missing = self._plan.target - len(self._state.pool.accepted)
        if self._state.n_slots == 0:
            return under_way == 0 or under_way * self._plan.tasks_per_request < missing
        per_slot = max(len(self._state.pool.accepted) / self._state.n_slots, 0.1)
        return under_way * per_slot < missing

    async def _work(self, number: int) -> None:
        plan, pool = self._plan, self._state.pool
        settled = number - plan.window
        n_accepted = self._n_accepted_after[settled] if settled >= 0 else 0

        async def ask(step: str, prompt: Prompt) -> Completion:
            return await self._teacher.ask(number, step, prompt)

        screening = screen(pool, n_accepted, plan.language)
        slot = slot_of(plan, number, pool.seeds, pool.accepted[:n_accepted], ask, screening)
        try:
            self._finished[number] = await plan.strategy(slot)
        except Exception as group:
            self._unfinished.add(number)
            error = _only(group)
            if not isinstance(error, Stopped):
                self._stop(error)
        self._progressed.set()

    def _stop(self, error: BaseException) -> None:
        """End the run early: nothing new is sent, what is in flight finishes."""
        self._state.error = self._state.error or error
        self._end_asking()

    def _end_asking(self) -> None:
        """Send nothing new. Requests in flight may have been paid for: they finish and are stored, unless local."""
        if self._plan.model == "embedded":
            self._teacher.abort()
        else:
            self._teacher.stop()

    async def _judge_finished(self) -> None:
        """Judge every slot whose turn has come."""
        state = self._state
        while state.closed_by is None and state.n_slots in self._finished:
            candidates = self._finished.pop(state.n_slots)
            judged = [(candidate, self._judge(candidate)) for candidate in candidates]
            await self._ledger.record_judgement(state.n_judged, judged)
            state.n_judged += len(judged)
            state.n_slots += 1
            self._n_accepted_after.append(len(state.pool.accepted))
            state.closed_by = self._closed_by()
            if state.closed_by:
                await self._ledger.record_fact("closing", {"slot": state.n_slots - 1, "target": self._plan.target})
            self._report(state)

    def _judge(self, candidate: Candidate) -> Verdict:
        pool = self._state.pool
        verdict = judge(candidate, pool, self._plan.language, self._plan.target)
        if verdict.rule is None:
            pool.add(
                Example(
                    candidate.id, candidate.instruction, candidate.instances, candidate.is_classification,
                    source=candidate.source, nearest=verdict.nearest,
                )
            )  # fmt: skip
        # A reply without any task stands for all those that it was asked for.
        weight = self._plan.tasks_per_request if verdict.rule == "unparsable" and not candidate.instruction else 1
        self._state.recent.extend([verdict.rule is None] * weight)
        return verdict

    def _closed_by(self) -> str | None:
        if len(self._state.pool.accepted) >= self._plan.target:
            return "target"
        recent, window = self._state.recent, self._plan.saturation_window
        while len(recent) > window:
            recent.popleft()
        saturated = len(recent) == window and sum(recent) < self._plan.min_yield * window
        return "saturated" if saturated else None

    async def _watch_signals(self, everything: anyio.CancelScope) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread hears signals
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            interrupted = False
            async for _ in signals:
                if interrupted:
                    self._aborted = True
                    self._teacher.abort()
                    everything.cancel()
                interrupted = True
                self._stop(Interrupted("interrupted; everything so far is kept, and the same command resumes"))
                if in_flight := self._teacher.in_flight:
                    logger.warning("interrupted: %d request(s) in flight come to an end; once more aborts", in_flight)


def _only(error: BaseException) -> BaseException:
    """The error inside the groups that task groups make of it; one of ours before others, a mere stop last."""
    while inner := getattr(error, "exceptions", None):
        error = min(inner, key=lambda e: (not isinstance(e, Error), isinstance(e, Stopped)))
    return error


def identity(plan: Plan, others: dict[str, Any]) -> dict[str, Any]:
    """Everything that shapes the data, as JSON values: a run with another identity is another run."""
    names = [f.name for f in fields(plan) if f.name not in ("strategy", "target")]
    return {name: getattr(plan, name) for name in names} | others
