"""The loop of a run: slots are asked in parallel and judged in order, so that timing shapes nothing.

Slot k is drawn from the pool as it stood after slot k - window was judged, with its own random generator. The data set
is then a function of configuration, seed and completions. A resumed run takes up where judgement ended (`restore`); the
slots after it run again from their start, and `Teacher.ask` finds what is already in the ledger.
"""

from __future__ import annotations

import logging
import signal
import threading
import unicodedata
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

import anyio

from selfinstruct.errors import Error, Interrupted
from selfinstruct.filters import Case, Filter, Over
from selfinstruct.filters.duplicate import Duplicate
from selfinstruct.filters.judge import Judge
from selfinstruct.filters.novelty import Novelty
from selfinstruct.ledger import JudgedSlot, Ledger
from selfinstruct.novelty import NoveltyIndex, Tokenizer
from selfinstruct.pacing import Stopped
from selfinstruct.records import Candidate, Completion, Endpoint, Example, Neighbour, Prompt, Source, Verdict
from selfinstruct.strategies import Slot, Strategy
from selfinstruct.teacher import Teacher

logger = logging.getLogger(__name__)

N_NEAREST = 10  # Self-Instruct records the ten most similar instructions


@dataclass(frozen=True, slots=True)
class Plan:
    """What shapes a run; see `run_config.GenerateConfig` for the meaning of the fields.

    Attributes:
        strategies: In a mixture if they have shares, else one after the other.
        filters: In the order of judgement.
        request_seed: Sent with every request; None to leave it out.
        target: Accepted tasks at which the run closes.
        pause_at: Accepted tasks at which it only rests, to be resumed; None to go on to the target.
    """

    strategies: tuple[Strategy, ...]
    filters: tuple[Filter, ...]
    model: str
    endpoint: Endpoint
    language: str
    seed: int
    request_seed: int | None
    target: int
    pause_at: int | None
    window: int
    novelty_tokenizer: Tokenizer
    max_output_tokens: int
    saturation_window: int
    min_yield: float

    def strategy_of(self, number: int, saturated: int) -> Strategy:
        """The strategy of a slot.

        Args:
            number: The slot.
            saturated: Which strategies are, as a bit set.
        """
        left = [strategy for n, strategy in enumerate(self.strategies) if not saturated >> n & 1]
        if not left or left[0].share is None:
            return left[0] if left else self.strategies[-1]
        shares = [strategy.share or 0.0 for strategy in left]
        return Random(f"{self.seed}/{number}/strategy").choices(left, shares)[0]  # noqa: S311


class Pool:
    """Seeds and accepted tasks, with a novelty index over their instructions, and one over instruction and input.

    Args:
        seeds: Hand-written tasks.
        tokenizer: Of the indexes.
        whole_tasks: Whether the second index is wanted.
        expected: How many tasks it will hold.
    """

    def __init__(
        self, seeds: Sequence[Example], tokenizer: Tokenizer, whole_tasks: bool = False, expected: int = 0
    ) -> None:
        self.seeds = tuple(seeds)
        self.accepted: list[Example] = []
        overs: tuple[Over, ...] = ("instruction", "task") if whole_tasks else ("instruction",)
        self._indexes = {over: NoveltyIndex(tokenizer, expected=expected) for over in overs}
        self._places: dict[Over, dict[str, int]] = {over: {} for over in overs}  # of the first task that says the same
        self._ids: list[str] = []
        for seed in seeds:
            self._add(seed)

    def add(self, example: Example) -> None:
        """Accept a task."""
        self.accepted.append(example)
        self._add(example)

    def _add(self, example: Example) -> None:
        for over, index in self._indexes.items():
            index.add(_text(example, over))
            self._places[over].setdefault(_sameness(example, over), len(self._ids))
        self._ids.append(example.id)

    def case(self, candidate: Candidate, language: str, n_accepted: int | None = None, k: int = N_NEAREST) -> Case:
        """A candidate before the filters; the pool is the seeds and the first so many accepted tasks (None: all)."""
        size = None if n_accepted is None else len(self.seeds) + n_accepted

        def nearest(over: Over) -> tuple[Neighbour, ...]:
            matches = self._indexes[over].nearest(_text(candidate, over), k, size)
            return tuple(Neighbour(self._ids[match.position], match.score) for match in matches)

        def duplicate(over: Over) -> str | None:
            place = self._places[over].get(_sameness(candidate, over))
            return None if place is None or (size is not None and place >= size) else self._ids[place]

        return Case(candidate, language, nearest, duplicate)


def pooled(candidate: Candidate) -> Example:
    """An accepted candidate as the pool keeps it: with its source only where that says what a strategy drew for it."""
    source = candidate.source if candidate.source.attributes else None
    return Example(
        candidate.id, candidate.instruction, candidate.instances, candidate.is_classification, source=source
    )  # fmt: skip


def _text(task: Example | Candidate, over: Over) -> str:
    """The instruction, or instruction and first input."""
    inputs = [instance.input for instance in task.instances[:1]] if over == "task" else []
    return " ".join([task.instruction, *inputs])


def _sameness(task: Example | Candidate, over: Over) -> str:
    """What two tasks that say the same have in common."""
    instruction = normalised(task.instruction)
    if over == "instruction":
        return instruction
    # "3 + 4" and "3 - 4" are different inputs.
    input = "".join(instance.input for instance in task.instances[:1])
    return f"{instruction}\n{' '.join(unicodedata.normalize('NFKC', input).casefold().split())}"


def normalised(text: str) -> str:
    """A text's letters and digits, in one case and one Unicode form; the text itself if it has none."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum()) or text


def screen(plan: Plan, pool: Pool, n_accepted: int) -> Callable[[str], bool]:
    """Tells of an instruction whether it is certain to be rejected.

    The pool only grows, so an instruction too similar to a part of it is too similar to all of it.
    """
    filters = [f for f in plan.filters if f.by_instruction]

    def is_certain(instruction: str) -> bool:
        case = pool.case(_bare(instruction), plan.language, n_accepted, k=1)
        return any(f.judge(case) for f in filters)

    return is_certain


def _bare(instruction: str) -> Candidate:
    return Candidate("", instruction, (), False, Source("", "", 0, "", ""))


def judge(candidate: Candidate, plan: Plan, pool: Pool) -> Verdict:
    """The verdict on a candidate, against the pool as it stands."""
    if candidate.rejection:
        return candidate.rejection
    case = pool.case(candidate, plan.language)
    filters = (f for f in plan.filters if f.by_instruction or not candidate.screened)
    if objection := next((verdict for f in filters if (verdict := f.judge(case))), None):
        return objection
    if candidate.screened:  # by other filters
        return Verdict("not_completed", "was rejected before its answer was asked for", case.nearest)
    if len(pool.accepted) >= plan.target:
        return Verdict("target_reached", f"{plan.target} were wanted", case.nearest)
    return Verdict(None, nearest=case.nearest)


def rules(judged: Iterable[tuple[Candidate, Verdict]]) -> dict[str, int]:
    """How many candidates each rule rejected."""
    return dict(Counter(verdict.rule for _, verdict in judged if verdict.rule))


def slot_of(
    plan: Plan,
    strategy: Strategy,
    number: int,
    seeds: Sequence[Example],
    accepted: Sequence[Example],
    ask: Callable[[str, Prompt], Awaitable[tuple[Completion, ...]]],
    screen: Callable[[str], bool],
) -> Slot:
    """What the strategy is handed for one slot."""

    async def seeded(step: str, prompt: Prompt) -> tuple[Completion, ...]:
        return await ask(step, replace(prompt, seed=plan.request_seed))

    return Slot(
        number=number,
        rng=Random(f"{plan.seed}/{number}"),  # noqa: S311
        run_rng=lambda purpose: Random(f"{plan.seed}/{purpose}"),  # noqa: S311
        seeds=seeds,
        accepted=accepted,
        ask_all=ask if plan.request_seed is None else seeded,
        screen=screen,
        strategy=strategy.kind,
        model=plan.model,
        endpoint=plan.endpoint,
        language=plan.language,
        max_output_tokens=plan.max_output_tokens,
    )


@dataclass(slots=True)
class State:
    """How far a run is; read by the progress line.

    Attributes:
        pool: Seeds and accepted tasks.
        history: (accepted tasks, saturated strategies as a bit set) after each of the last `window` slots.
        recent: By strategy, whether each of its last candidates was accepted; saturation is measured by it.
        n_judged: Candidates judged.
        n_slots: Slots judged.
        saturated: Strategies that slots which begin a window from now no longer use, as a bit set.
        closed_by: "target" or "saturated" once the run is closed, "pilot" when it rests, else None.
        error: What ended the run early, if anything.
    """

    pool: Pool
    history: deque[tuple[int, int]]
    recent: dict[str, deque[bool]]
    n_judged: int = 0
    n_slots: int = 0
    saturated: int = 0
    closed_by: str | None = None
    error: BaseException | None = None


async def restore(plan: Plan, seeds: Sequence[Example], ledger: Ledger) -> State:
    """The state in which an earlier process left a run, or that of a new one.

    A run that reached another target is open again, and its last slot, which the target cut, not yet judged.
    """
    whole_tasks = any(isinstance(f, Duplicate | Novelty) and f.over == "task" for f in plan.filters)
    pool = Pool(seeds, plan.novelty_tokenizer, whole_tasks, expected=len(seeds) + plan.target)
    recent = {strategy.kind: deque[bool](maxlen=plan.saturation_window) for strategy in plan.strategies}
    state = State(pool, deque(maxlen=plan.window), recent)
    closing = ledger.fact("closing")
    if closing and closing["by"] == "target" and closing["target"] != plan.target:
        await ledger.reopen()
    elif closing:
        state.closed_by = closing["by"]
    for example in ledger.pool():
        pool.add(example)
    n_accepted = len(pool.accepted)
    slots = ledger.last_slots(plan.window)
    for slot in reversed(slots):
        state.history.appendleft((n_accepted, slot.saturated))
        n_accepted -= slot.n_accepted
    if slots:
        state.n_slots, state.saturated, state.n_judged = slots[-1].number + 1, slots[-1].saturated, ledger.n_judged()
    for strategy in plan.strategies:
        verdicts = recent[strategy.kind]
        for instruction, rule in ledger.recent(strategy.kind, plan.saturation_window):
            room = plan.saturation_window - len(verdicts)
            verdicts.extendleft([rule is None] * min(_weight(strategy, instruction, rule), room))
    state.closed_by = state.closed_by or paused(plan, state)
    return state


def paused(plan: Plan, state: State) -> str | None:
    """Whether a pilot has what it wanted."""
    return "pilot" if plan.pause_at is not None and len(state.pool.accepted) >= plan.pause_at else None


def _weight(strategy: Strategy, instruction: str, rule: str | None) -> int:
    """A reply without any task stands for all those that it was asked for."""
    return strategy.tasks_per_reply if rule == "unparsable" and not instruction else 1


class Bootstrap:
    """One run of the loop.

    Args:
        plan: What shapes the run.
        state: As restored; goes on being filled.
        teacher: Answers prompts.
        ledger: Gets every verdict.
        judge_teacher: Answers the judge's prompts; None for the same one.
    """

    def __init__(
        self, plan: Plan, state: State, teacher: Teacher, ledger: Ledger, judge_teacher: Teacher | None = None
    ) -> None:
        self._plan, self._state, self._teacher, self._ledger = plan, state, teacher, ledger
        self._judge_teacher = judge_teacher or teacher
        self._finished: dict[int, tuple[Strategy, list[Candidate]]] = {}
        self._next_slot = state.n_slots
        self._unfinished: set[int] = set()  # slots that an end of asking left open
        self._aborted = False
        self._progressed = anyio.Event()

    async def run(self) -> None:
        """Run until the target, saturation, a pause, a cap, an outage or a signal; the last three are `state.error`.

        After those, slots go on being judged as long as the ledger has the replies, so that what is left is the longest
        prefix of slots that has been paid for.

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
        plan, state = self._plan, self._state
        under_way = self._next_slot - state.n_slots
        if under_way >= plan.window:
            return False
        missing = (plan.pause_at or plan.target) - len(state.pool.accepted)
        if state.n_slots == 0:
            first = plan.strategy_of(0, 0)
            return under_way == 0 or under_way * first.tasks_per_request * first.replies_per_request < missing
        per_slot = max(len(state.pool.accepted) / state.n_slots, 0.1)
        return under_way * per_slot < missing

    async def _work(self, number: int) -> None:
        plan, pool, history = self._plan, self._state.pool, self._state.history
        # The slot sees what stood after slot number - window, whatever has been judged since.
        begun_after = number - plan.window
        n_accepted, saturated = history[begun_after - self._state.n_slots] if begun_after >= 0 else (0, 0)
        strategy = plan.strategy_of(number, saturated)

        async def ask(step: str, prompt: Prompt) -> tuple[Completion, ...]:
            return await self._teacher.ask(number, step, prompt)

        screening = screen(plan, pool, n_accepted)
        slot = slot_of(plan, strategy, number, pool.seeds, pool.accepted[:n_accepted], ask, screening)
        try:
            candidates = await strategy.propose(slot)
            if not candidates:  # an endless run without a verdict
                raise AssertionError(f"{strategy.kind} made nothing of slot {number}, not even a rejected row")
            self._finished[number] = strategy, await self._graded(number, candidates)
        except Exception as group:
            self._unfinished.add(number)
            error = _only(group)
            if not isinstance(error, Stopped):
                self._stop(error)
        self._progressed.set()

    async def _graded(self, number: int, candidates: list[Candidate]) -> list[Candidate]:
        """Candidates with the judge's grades, if there is a judge; those that are rejected without are not graded."""
        judges = [f for f in self._plan.filters if isinstance(f, Judge)]
        graded = list(candidates)

        async def grade(place: int, judge: Judge) -> None:
            candidate = candidates[place]
            (reply, *_) = await self._judge_teacher.ask(number, f"judge/{place}", judge.prompt(candidate))
            score = judge.score(reply.text)
            graded[place] = replace(candidate, scores={} if score is None else {judge.kind: score})

        async with anyio.create_task_group() as tasks:
            for judge in judges:
                for place, candidate in enumerate(candidates):
                    if not candidate.rejection and not candidate.screened and self._is_worth_grading(candidate):
                        tasks.start_soon(grade, place, judge)
        return graded

    def _is_worth_grading(self, candidate: Candidate) -> bool:
        """Whether the filters that need no pool let it pass."""
        case = Case(candidate, self._plan.language)
        return not any(f.judge(case) for f in self._plan.filters if not isinstance(f, Judge))

    def _stop(self, error: BaseException) -> None:
        """End the run early: nothing new is sent, what is in flight finishes."""
        self._state.error = self._state.error or error
        self._end_asking()

    def _end_asking(self) -> None:
        """Send nothing new. Requests in flight may have been paid for: they finish and are stored, unless local."""
        for teacher in (self._teacher, self._judge_teacher):
            if self._plan.model == "embedded":
                teacher.abort()
            else:
                teacher.stop()

    async def _judge_finished(self) -> None:
        """Judge every slot whose turn has come."""
        state = self._state
        while state.closed_by is None and state.n_slots in self._finished:
            strategy, candidates = self._finished.pop(state.n_slots)
            position, n_accepted = state.n_judged, len(state.pool.accepted)
            judged = [(candidate, self._judge(candidate, strategy)) for candidate in candidates]
            closed_by = self._closed_by()
            n_new = len(state.pool.accepted) - n_accepted
            slot = JudgedSlot(state.n_slots, strategy.kind, len(judged), n_new, rules(judged), state.saturated)
            closing = {"slot": slot.number, "target": self._plan.target, "by": closed_by} if closed_by else None
            await self._ledger.record_slot(slot, position, judged, closing)
            state.n_judged, state.n_slots = position + len(judged), slot.number + 1
            state.history.append((len(state.pool.accepted), state.saturated))
            state.closed_by = closed_by or paused(self._plan, state)

    def _judge(self, candidate: Candidate, strategy: Strategy) -> Verdict:
        pool = self._state.pool
        verdict = judge(candidate, self._plan, pool)
        if verdict.rule is None:
            pool.add(pooled(candidate))
        weight = _weight(strategy, candidate.instruction, verdict.rule)
        self._state.recent[strategy.kind].extend([verdict.rule is None] * weight)
        return verdict

    def _closed_by(self) -> str | None:
        """What closes the run now. A saturated strategy makes way for the others."""
        plan, state = self._plan, self._state
        if len(state.pool.accepted) >= plan.target:
            return "target"
        window = plan.saturation_window
        for n, strategy in enumerate(plan.strategies):
            recent = state.recent[strategy.kind]
            if state.saturated >> n & 1 or len(recent) < window or sum(recent) >= plan.min_yield * window:
                continue
            state.saturated |= 1 << n
            if state.saturated == (1 << len(plan.strategies)) - 1:
                return "saturated"
            logger.warning(
                "%s is saturated: fewer than %.0f%% of its last %d candidates were accepted; going on without it",
                strategy.kind, 100 * plan.min_yield, window,
            )  # fmt: skip
        return None

    async def _watch_signals(self, everything: anyio.CancelScope) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread hears signals
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            interrupted = False
            async for _ in signals:
                if interrupted:
                    self._aborted = True
                    self._teacher.abort()
                    self._judge_teacher.abort()
                    everything.cancel()
                interrupted = True
                self._stop(Interrupted("interrupted; everything so far is kept, and the same command resumes"))
                if n := sum(teacher.n_draining for teacher in {self._teacher, self._judge_teacher}):
                    logger.warning("interrupted: %d request(s) in flight come to an end; once more aborts", n)


def _only(error: BaseException) -> BaseException:
    """The error inside the groups that task groups make of it; one of ours before others, a mere stop last."""
    while inner := getattr(error, "exceptions", None):
        error = min(inner, key=lambda e: (not isinstance(e, Error), isinstance(e, Stopped)))
    return error


def identity(plan: Plan, others: dict[str, Any]) -> dict[str, Any]:
    """What shapes the replies, as JSON values: a run with another identity asks other requests.

    Filters shape the data by their verdicts, which shape later prompts: they belong to it.
    """
    names = [f.name for f in fields(plan) if f.name not in ("strategies", "filters", "target", "pause_at")]
    specs = {name: [spec.model_dump(mode="json") for spec in getattr(plan, name)] for name in ("strategies", "filters")}
    return {name: getattr(plan, name) for name in names} | specs | others
