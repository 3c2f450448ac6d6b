"""The endpoint's batch API: requests go as a file, replies come within a day, at half the price.

All that is asked at a time is one batch. Its requests are in the ledger before it is made, and its name before it is
waited for, so that a process that ends meanwhile loses nothing: the next one collects what it finds.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import anyio
import openai
import orjson

from selfinstruct.address import is_loopback
from selfinstruct.budget import Budget
from selfinstruct.endpoint import Reply, Server, of_status, read_json, redacted, refused, reply_of
from selfinstruct.errors import CapReached, Error, PermanentError, StoppedEarly, TransientError, UsageError
from selfinstruct.ledger import BatchRequest, Ledger
from selfinstruct.pacing import Stopped
from selfinstruct.records import Completion, Prompt, Usage
from selfinstruct.teacher import Teacher, refusal

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

MAX_REQUESTS, MAX_BYTES = 50_000, 150 * 2**20  # of one file; OpenAI's limits are 50,000 and 200 MB
_GATHER_S = 0.2  # after the last request that is asked for, before a batch is made of them
_MAX_FRUITLESS = 3  # batches in a row without a single reply, before the endpoint counts as lost
_MARK = "selfinstruct"  # metadata by which a batch is found whose name was not learnt
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits for its reply."""

    slot: int
    step: str
    prompt: Prompt
    request: Mapping[str, Any]
    answered: asyncio.Future[None]


class BatchTeacher(Teacher):
    """Sends requests by batches.

    Args:
        server, ledger, budget, config_key: See `Teacher`.
        poll_s: How often to ask for the state of a batch.
    """

    def __init__(self, server: Server, ledger: Ledger, budget: Budget, config_key: str, poll_s: float) -> None:
        super().__init__(server, ledger, budget, config_key)
        self._client = _make_client(server)
        self._poll_s = poll_s
        self._asked: dict[str, _Asked] = {}
        self._more = asyncio.Event()
        self._n_open = self._n_fruitless = 0
        self._scope = anyio.CancelScope()
        self._making = anyio.CancelScope(shield=True)
        self._driver: asyncio.Task[None] | None = None

    async def __aenter__(self) -> BatchTeacher:
        self._driver = asyncio.create_task(self._drive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._driver:
            await self._driver
        if self._n_open:
            logger.warning(
                "%d request(s) go on as a batch at %s; the same command collects them", self._n_open, self._server.host
            )
        await self._client.close()

    @property
    def in_flight(self) -> int:
        """How many requests are under way in a batch."""
        return self._n_open

    @property
    def n_draining(self) -> int:
        """None: a batch goes on without us."""
        return 0

    @property
    def limit(self) -> int | None:
        """None: a batch takes all that is asked."""
        return None

    def stop(self) -> None:
        """Send nothing new and wait for nothing but a call that makes a batch: the batch goes on without us."""
        super().stop()
        self._scope.cancel()

    def abort(self) -> None:
        """Send nothing new, and wait for nothing."""
        self._making.shield = False
        self.stop()

    async def _ask(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> tuple[Completion, ...]:
        asked = _Asked(slot, step, prompt, request, asyncio.get_running_loop().create_future())
        self._asked[prompt_key] = asked
        self._more.set()
        await asked.answered
        return self._ledger.completions(prompt_key)

    # -- one batch after another -------------------------------------------------------------------------------

    async def _drive(self) -> None:
        """Make batches of what is asked until stopped; what ends it ends all that wait."""
        try:
            with self._scope:
                for batch, name in self._ledger.open_batches(self._config_key):
                    await self._take_up(batch, name)
                while True:
                    await self._gather()
                    await self._collect(*await self._make(self._affordable()))
        except Exception as error:
            self._ended_by = error
        self._stopped = True
        while self._asked:
            _, asked = self._asked.popitem()
            if not asked.answered.done():
                asked.answered.set_exception(self._ended_by)

    async def _gather(self) -> None:
        """Wait until something is asked for, and then until nothing more comes."""
        for key in [key for key in self._asked if self._ledger.completions(key)]:
            self._answer(key)  # by a batch of an earlier process
        waiting_s = None if not self._asked else _GATHER_S
        while True:
            self._more.clear()
            with anyio.move_on_after(waiting_s) as quiet:
                await self._more.wait()
            if quiet.cancelled_caught:
                return
            waiting_s = _GATHER_S

    def _answer(self, prompt_key: str) -> None:
        asked = self._asked.pop(prompt_key, None)
        if asked and not asked.answered.done():
            asked.answered.set_result(None)

    def _affordable(self) -> list[tuple[BatchRequest, bytes]]:
        """What goes into the next batch: in the order of slots, as much as caps and the file's limits allow.

        Returns:
            Requests, their money reserved, and their lines in the file.

        Raises:
            CapReached: When not even one fits.
        """
        chunk: list[tuple[BatchRequest, bytes]] = []
        n_bytes = 0
        for key, asked in sorted(self._asked.items(), key=lambda item: (item[1].slot, item[1].step)):
            body = self._dialect.body(asked.prompt)
            line = orjson.dumps({"custom_id": key, "method": "POST", "url": f"/v1{self._server.path}", "body": body})
            n_bytes += len(line) + 1
            if len(chunk) == MAX_REQUESTS or (chunk and n_bytes > MAX_BYTES):
                break
            try:
                reserved = self._budget.reserve(*self._max_tokens(body, asked.prompt))
            except CapReached:
                if chunk:
                    break
                raise
            chunk.append((BatchRequest(key, asked.slot, asked.step, asked.request, reserved), line))
        return chunk

    async def _make(self, chunk: Sequence[tuple[BatchRequest, bytes]]) -> tuple[int, str]:
        """Record, upload and start a batch; gives its number and the endpoint's name for it."""
        data = b"\n".join(line for _, line in chunk) + b"\n"
        with anyio.CancelScope(shield=True) as self._making:
            if not self._ledger.fact("mark"):
                await self._ledger.record_fact("mark", secrets.token_hex(8))
            batch = await self._ledger.begin_batch(self._config_key, [request for request, _ in chunk])
            self._n_open = len(chunk)
            try:
                file = await self._called(lambda: self._upload(data))
            except (Error, Stopped) as error:
                await self._give_up(batch, str(error) or "stopped", Usage(0, 0))
                raise
            try:
                name = await self._called(self._starting(batch, file))
            except StoppedEarly:  # it may have been made all the same: the next process looks for it
                raise
            except Error as error:
                await self._give_up(batch, str(error), Usage(0, 0))
                raise
            await self._ledger.name_batch(batch, name)
        logger.info("batch %s: %d requests", name, len(chunk))
        return batch, name

    async def _upload(self, data: bytes) -> str:
        file = await self._client.files.create(file=("requests.jsonl", io.BytesIO(data)), purpose="batch")
        return file.id

    def _starting(self, batch: int, file: str) -> Callable[[], Awaitable[str]]:
        """Makes the batch; at a second try it first looks whether the one before did, whose reply got lost."""
        tried = False

        async def start() -> str:
            nonlocal tried
            if tried and (found := await self._find(batch)):
                return found
            tried = True
            made = await self._client.batches.create(
                input_file_id=file,
                endpoint="/v1/chat/completions" if self._server.endpoint == "chat" else "/v1/completions",
                completion_window="24h",
                metadata={_MARK: self._mark(batch)},
            )
            return made.id

        return start

    def _mark(self, batch: int) -> str:
        return f"{self._ledger.fact('mark')}/{batch}"

    async def _find(self, batch: int) -> str | None:
        """The endpoint's name of the batch with our mark, if there is one."""
        async for found in self._client.batches.list(limit=100):
            if (found.metadata or {}).get(_MARK) == self._mark(batch):
                return found.id
        return None

    async def _take_up(self, batch: int, name: str | None) -> None:
        """Go on with a batch of an earlier process, which may have ended before it learnt the batch's name."""
        self._n_open = len(self._ledger.open_requests(batch))
        if name is None:
            try:
                name = await self._called(lambda: self._find(batch))
            except UsageError:  # the endpoint cannot list batches
                logger.warning("%d request(s) of a batch were lost; they may have been billed", self._n_open)
                await self._give_up(batch, "its name was never learnt", Usage())
                return
            if name is None:
                await self._give_up(batch, "the batch was never made", Usage(0, 0))
                return
            await self._ledger.name_batch(batch, name)
        logger.warning("batch %s of an earlier process: collecting its %d request(s)", name, self._n_open)
        await self._collect(batch, name)

    async def _give_up(self, batch: int, why: str, usage: Usage) -> None:
        """End a batch of which no reply will come."""
        for request in self._ledger.open_requests(batch):
            cost = self._budget.settle(request.reserved_usd, usage)
            await self._ledger.fail_attempt(request.attempt, why, cost, usage, 0.0)
        await self._ledger.end_batch(batch, why)
        self._n_open = 0

    # -- its results -------------------------------------------------------------------------------------------

    async def _collect(self, batch: int, name: str) -> None:
        """Wait for a batch and store what it brought."""
        started = time.monotonic()
        while True:
            found = await self._called(lambda: self._state(name))
            if found.status in _ENDED:
                break
            await anyio.sleep(self._poll_s)
        lines: dict[str, Any] = {}
        for file in filter(None, (found.output_file_id, found.error_file_id)):
            lines |= await self._called(lambda id=file: self._download(id))  # type: ignore[misc]
        with anyio.CancelScope(shield=True):
            # Replies first: they show that the refusals are not of the way of asking.
            requests = sorted(self._ledger.open_requests(batch), key=lambda r: not _answers(lines.get(r.prompt_key)))
            seconds = time.monotonic() - started
            outcomes = await asyncio.gather(*(self._store(r, lines, found.status, seconds) for r in requests))
            await self._ledger.end_batch(batch, found.status)
            self._n_open = 0
        errors = [outcome for outcome in outcomes if isinstance(outcome, Error)]
        if fatal := next((error for error in errors if not isinstance(error, TransientError)), None):
            raise fatal
        self._n_fruitless = self._n_fruitless + 1 if len(errors) == len(outcomes) else 0
        if found.status == "failed":
            said = "; ".join(str(e.message) for e in (found.errors and found.errors.data) or [])
            raise UsageError(
                f"{self._server.host} refuses the batch: {redacted(said, self._server) or 'no reason given'}; nothing"
                " was billed. Mend what it says, or go on without --batch"
            )
        if self._n_fruitless >= _MAX_FRUITLESS:
            raise StoppedEarly(
                f"{_MAX_FRUITLESS} batches in a row brought no reply (the last: {errors[-1]}); everything so far is"
                " kept, and the same command resumes"
            )

    async def _state(self, name: str) -> openai.types.Batch:
        found = await self._client.batches.retrieve(name)
        if not found.status:
            raise ValueError("no status")
        return found

    async def _download(self, file: str) -> dict[str, Any]:
        """The lines of a result file by the key of their prompt."""
        content = (await self._client.files.content(file)).content
        try:
            values = [read_json(line) for line in content.splitlines() if line.strip()]
            return {str(value["custom_id"]): value for value in values}
        except (ValueError, KeyError, TypeError) as error:
            raise TransientError(f"malformed result file ({type(error).__name__})") from error

    async def _store(
        self, request: BatchRequest, lines: Mapping[str, Any], status: str, seconds: float
    ) -> Error | None:
        """Give a request of a batch its outcome.

        Returns:
            Why it has no reply, if it is to be asked again or all is to end.
        """
        prompt = Prompt.of_request(request.request)
        body = self._dialect.body(prompt)
        key = request.prompt_key
        try:
            reply = self._reply(lines.get(key), status)
            self._dialect.check_thinking(reply, body, prompt)
        except Error as error:
            usage, cost = self._charge(error, request.reserved_usd)
            if not isinstance(error, PermanentError) or not self._is_outcome(error, body):
                await self._ledger.fail_attempt(request.attempt, str(error), cost, usage, seconds)
                if not isinstance(error, PermanentError):
                    return error
                if not self._dialect.has_alternative(error.parameter, body):
                    return self._fatal(error)
                self._dialect.learn(error.parameter, body)
                return None
            completions = refusal(key, error)
        else:
            usage, cost = reply.usage, self._budget.settle(request.reserved_usd, reply.usage)
            completions = self._completions(key, reply, prompt)
        self._count(usage)
        await self._ledger.complete_attempt(
            request.attempt, completions, request.slot, request.step, request.request, cost, usage, seconds
        )
        self._answer(key)
        return None

    def _reply(self, line: Any, status: str) -> Reply:
        """What a line of the results says.

        Raises:
            Error: What a refusal means, as if the request had been sent by itself.
        """
        if line is None:
            raise TransientError(f"no result in a batch that is {status}", refused=status != "completed")
        try:
            response = line.get("response") or {}
            values = response.get("body")
            if line.get("error") or not values:
                said = redacted(str((line.get("error") or {}).get("message") or "no reply"), self._server)
                raise TransientError(said, refused=True)
            if response.get("status_code") != 200:
                error = values.get("error") if isinstance(values, dict) else None
                raise of_status(int(response.get("status_code") or 500), error, str(values), {}, self._server)
        except (AttributeError, TypeError, ValueError) as error:
            raise TransientError(f"malformed result ({type(error).__name__})") from error
        return reply_of(values, self._server)

    async def _called(self, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """A call of the batch API, made again after transient errors."""

        async def once() -> ResultT:
            try:
                result = await call()
            except openai.OpenAIError as error:
                # Not chained: the client's error may echo the key, which a traceback would show.
                raise self._converted(error) from None
            except (ValueError, AttributeError) as error:  # no JSON, or not that of the API
                raise TransientError(f"malformed reply ({type(error).__name__})") from error
            self._last_reply = time.monotonic()
            return result

        try:
            return await self._persist(once)
        except PermanentError as error:
            raise UsageError(f"{self._server.host} refuses the batch: {error}") from error
        except UsageError as error:
            raise UsageError(
                f"{self._server.host} has no batch API, it seems; go on without --batch ({error})"
            ) from error

    def _converted(self, error: openai.OpenAIError) -> Error:
        """An error of the openai package as one of ours, without secrets."""
        if isinstance(error, openai.APIStatusError):
            return refused(error.status_code, error.response.content, error.response.headers, self._server)
        return TransientError(redacted(f"{error} {error.__cause__ or ''}".strip(), self._server))


def _answers(line: Any) -> bool:
    """Whether a line of the results holds a reply."""
    response = line.get("response") if isinstance(line, dict) else None
    return isinstance(response, dict) and response.get("status_code") == 200


def _make_client(server: Server) -> openai.AsyncOpenAI:
    """The openai package's client of an endpoint, without retries of its own."""
    return openai.AsyncOpenAI(
        base_url=server.base_url,
        api_key=server.api_key or "none",  # the client would look for OPENAI_API_KEY by itself when none is given
        max_retries=0,
        timeout=server.timeout_s,
        # A proxy of the environment is for other machines.
        http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=not is_loopback(server.base_url)),
    )
