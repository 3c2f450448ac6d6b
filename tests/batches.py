"""Files and batches of the test server, as OpenAI's API has them. Time passes by the clock, but only when asked."""

from __future__ import annotations

import email
import json
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.server import Behaviour

ENDPOINTS = ("/v1/chat/completions", "/v1/completions")
# Parts of a batch's whole time at whose end it is validated, and answered; a cancellation takes as long as validation.
VALIDATED, ANSWERED = 0.1, 0.8
# Codes of lines that were never asked, and why, as in OpenAI's documentation of a batch's output.
UNASKED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
# The failure that OpenAI reports when too many tokens wait; it says nothing against the file.
QUEUE_FULL = {
    "code": "token_limit_exceeded", "line": None, "param": None,
    "message": "Enqueued token limit reached. Please try again once some in_progress batches have been completed.",
}  # fmt: skip


class Refused(Exception):
    """A refused call: a key of the server's table of errors, and what fills its texts."""

    def __init__(self, error: str, **values: Any) -> None:
        self.error, self.values = error, values


@dataclass(frozen=True, slots=True)
class File:
    """A stored file."""

    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: int

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id, "object": "file", "bytes": len(self.content), "created_at": self.created_at,
            "filename": self.filename, "purpose": self.purpose, "status": "processed", "expires_at": None,
        }  # fmt: skip


@dataclass(slots=True)
class Batch:
    """A batch; `total_s` below is the time from its creation to its end.

    Attributes:
        request: What created it.
        sender: What the log says of the one who did.
        lines: The requests.
        errors: What validation found.
        order: Numbers of the lines in the order in which they are answered and written.
        cancelled: When that was asked for, and after how many answers.
        final: The batch object once nothing changes any more.
    """

    id: str
    request: dict[str, Any]
    sender: dict[str, Any]
    lines: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    order: list[int]
    created: float
    cancelled: tuple[float, int] | None = None
    final: dict[str, Any] | None = None

    def answered(self, now: float, total_s: float) -> int:
        """How many lines have an answer by now; each takes the same time."""
        elapsed, start, end = now - self.created, VALIDATED * total_s, ANSWERED * total_s
        if elapsed <= start or elapsed >= end:
            return 0 if elapsed <= start else len(self.lines)
        return int(len(self.lines) * (elapsed - start) / (end - start))

    def outcome(self, now: float, behaviour: Behaviour) -> tuple[str, int] | None:
        """(status, lines answered) of a batch that has ended by now."""
        elapsed, total_s = now - self.created, behaviour.batch_s
        if self.cancelled and now - self.cancelled[0] >= VALIDATED * total_s:
            return "cancelled", self.cancelled[1]
        if self.errors and elapsed >= VALIDATED * total_s:
            return "failed", 0
        if self.cancelled or elapsed < total_s:
            return None
        if behaviour.batch_expires_after is None:
            return "completed", len(self.lines)
        return "expired", round(len(self.lines) * behaviour.batch_expires_after)

    def view(self, now: float, total_s: float) -> dict[str, Any]:
        """The batch object."""
        if self.final:
            return self.final
        validated, answered = (now - self.created >= part * total_s for part in (VALIDATED, ANSWERED))
        status = "finalizing" if answered else "in_progress" if validated else "validating"
        done = self.cancelled[1] if self.cancelled else self.answered(now, total_s)
        return {
            "id": self.id, "object": "batch", "endpoint": self.request["endpoint"], "errors": None,
            "model": self.lines[0]["body"].get("model") if self.lines else None,
            "input_file_id": self.request["input_file_id"],
            "completion_window": self.request["completion_window"],
            "status": "cancelling" if self.cancelled else status,
            "output_file_id": None, "error_file_id": None,
            "created_at": int(self.created), "expires_at": int(self.created) + 24 * 3600,
            "in_progress_at": int(self.created + VALIDATED * total_s) if validated else None,
            "finalizing_at": int(self.created + ANSWERED * total_s) if answered else None,
            "cancelling_at": int(self.cancelled[0]) if self.cancelled else None,
            "completed_at": None, "failed_at": None, "expired_at": None, "cancelled_at": None,
            "request_counts": {"total": len(self.lines) if validated else 0, "completed": done, "failed": 0},
            "usage": None, "metadata": self.request.get("metadata"),
        }  # fmt: skip


class Batches:
    """Everything under /v1/files and /v1/batches.

    Args:
        answer: Answers, bills and logs one line of a batch; gives its log entry and the reply.
    """

    def __init__(self, answer: Callable[[dict[str, Any], Batch], tuple[dict[str, Any], dict[str, Any]]]) -> None:
        self._answer = answer
        self._files: dict[str, File] = {}
        self._batches: dict[str, Batch] = {}
        self._open: list[Batch] = []

    def call(
        self, method: str, path: str, query: dict[str, str], content_type: str, raw: bytes, *,
        sender: dict[str, Any], behaviour: Behaviour,
    ) -> dict[str, Any] | bytes:  # fmt: skip
        """Answer one call.

        Raises:
            Refused: The call is not served.
        """
        match (method, *path.strip("/").split("/")[1:]):
            case ("POST", "files"):
                return self._upload(form(content_type, raw)).view()
            case ("GET", "files"):
                listed = [file.view() for file in self._files.values()]
                listed = [view for view in listed if query.get("purpose", view["purpose"]) == view["purpose"]]
                return _page(listed if query.get("order") == "asc" else listed[::-1], query, 10_000, 10_000)
            case ("GET", "files", name):
                return self._file(name).view()
            case ("GET", "files", name, "content"):
                return self._file(name).content
            case ("DELETE", "files", name):
                del self._files[self._file(name).id]
                return {"id": name, "object": "file", "deleted": True}
            case ("POST", "batches"):
                return self._create(json.loads(raw), sender, behaviour)
            case ("GET", "batches"):
                listed = [batch.view(time.time(), behaviour.batch_s) for batch in self._batches.values()]
                return _page(listed[::-1], query, 20, 100)
            case ("GET", "batches", name):
                return self._batch(name).view(time.time(), behaviour.batch_s)
            case ("POST", "batches", name, "cancel"):
                return self._cancel(self._batch(name), behaviour)
        raise Refused("not_found", path=path)

    def settle(self, behaviour: Behaviour) -> None:
        """End the batches whose time is over; their lines are answered and billed now, once."""
        now = time.time()
        for batch in list(self._open):
            if outcome := batch.outcome(now, behaviour):
                self._end(batch, now, *outcome, behaviour)
                self._open.remove(batch)

    def _file(self, name: str) -> File:
        if name not in self._files:
            raise Refused("no_such_file", name=name)
        return self._files[name]

    def _batch(self, name: str) -> Batch:
        if name not in self._batches:
            raise Refused("no_such_batch", name=name)
        return self._batches[name]

    def _store(self, filename: str, purpose: str, content: bytes) -> File:
        file = File(f"file-{uuid.uuid4().hex}", filename, purpose, content, int(time.time()))
        self._files[file.id] = file
        return file

    def _upload(self, fields: dict[str, tuple[str | None, bytes]]) -> File:
        for name in ("file", "purpose"):
            if name not in fields:
                raise Refused("missing_parameter", name=name)
        filename, content = fields["file"]
        return self._store(filename or "upload", fields["purpose"][1].decode(), content)

    def _create(self, request: dict[str, Any], sender: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
        for name, accepted in (("input_file_id", None), ("endpoint", ENDPOINTS), ("completion_window", ("24h",))):
            if name not in request:
                raise Refused("missing_parameter", name=name)
            if accepted and request[name] not in accepted:
                raise Refused("invalid_value", name=name, value=request[name], accepted=" and ".join(accepted))
        file = self._file(request["input_file_id"])
        if file.purpose != "batch":
            raise Refused("invalid_value", name="purpose", value=file.purpose, accepted="batch")
        lines, errors = parse(file.content, request["endpoint"], behaviour.batch_lines)
        order = list(range(len(lines)))
        Random(f"{behaviour.seed}/batch/{len(self._batches)}").shuffle(order)
        errors = [QUEUE_FULL] if behaviour.batch_fails else errors
        batch = Batch(f"batch_{uuid.uuid4().hex}", request, sender, lines, errors, order, time.time())
        self._batches[batch.id] = batch
        self._open.append(batch)
        return batch.view(batch.created, math.inf)  # even one that is over at once is seen validating first

    def _cancel(self, batch: Batch, behaviour: Behaviour) -> dict[str, Any]:
        if batch.final:
            raise Refused("not_cancellable", status=batch.final["status"])
        now = time.time()
        batch.cancelled = batch.cancelled or (now, batch.answered(now, behaviour.batch_s))
        return batch.view(now, behaviour.batch_s)

    def _end(self, batch: Batch, now: float, status: str, answered: int, behaviour: Behaviour) -> None:
        final = {**batch.view(now, behaviour.batch_s), "status": status, f"{status}_at": int(now)}
        if status == "failed":
            unstarted = {"in_progress_at": None, "finalizing_at": None}
            counts = {"total": 0, "completed": 0, "failed": 0}
            errors = {"object": "list", "data": batch.errors}
            batch.final = {**final, **unstarted, "request_counts": counts, "errors": errors}
            return
        replies = {number: self._answer(batch.lines[number], batch) for number in sorted(batch.order[:answered])}
        outputs: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        for number in batch.order:
            line: dict[str, Any] = {
                "id": f"batch_req_{uuid.uuid4().hex}", "custom_id": batch.lines[number]["custom_id"],
                "response": None, "error": None,
            }  # fmt: skip
            if number in replies:
                entry, body = replies[number]
                line["response"] = {"status_code": entry["status"], "request_id": uuid.uuid4().hex, "body": body}
                (outputs if entry["status"] == 200 else failures).append(line)
            else:
                code, message = UNASKED[status]
                failures.append({**line, "error": {"code": code, "message": message}})
        for name, results in (("output", outputs), ("error", failures)):
            if results:
                content = "".join(json.dumps(result) + "\n" for result in results).encode()
                final[f"{name}_file_id"] = self._store(f"{batch.id}_{name}.jsonl", "batch_output", content).id
        final["request_counts"] = {"total": len(batch.lines), "completed": len(outputs), "failed": len(failures)}
        prompt, completion = (
            sum(entry[f"{kind}_tokens"] for entry, _ in replies.values()) for kind in ("prompt", "completion")
        )
        final["usage"] = {
            "input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        batch.final = final


def form(content_type: str, raw: bytes) -> dict[str, tuple[str | None, bytes]]:
    """(File name, content) of the fields of a multipart form, which is a MIME message without its head."""
    message = email.message_from_bytes(f"content-type: {content_type}\r\n\r\n".encode() + raw)
    if not message.is_multipart():
        return {}
    return {
        part.get_param("name", header="content-disposition"): (part.get_filename(), part.get_payload(decode=True))
        for part in message.get_payload()
    }


def parse(content: bytes, endpoint: str, most: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(Lines, errors) of a batch's input, under the codes of OpenAI's documentation."""
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    texts = [(number, text) for number, text in enumerate(content.splitlines(), 1) if text.strip()]
    for number, text in texts:
        if problem := _problem(text, endpoint, seen, lines):
            code, message, parameter = problem
            errors.append({"code": code, "message": message, "param": parameter, "line": number})
        else:
            lines.append(json.loads(text))
            seen.add(lines[-1]["custom_id"])
    if not texts:
        errors.append({"code": "empty_file", "message": "The input file is empty.", "param": None, "line": None})
    if len(texts) > most:
        message = f"The input file has {len(texts)} requests. A batch takes at most {most}."
        errors = [{"code": "too_many_tasks", "message": message, "param": None, "line": None}]
    return lines, errors


def _problem(text: bytes, endpoint: str, seen: set[str], lines: list[dict[str, Any]]) -> tuple[str, str, Any] | None:
    """(Code, message, parameter) of what is wrong with a line, if anything is."""
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        return "invalid_json_line", "This line is not parseable as valid JSON.", None
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(line.get(name), kind):
            return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
    if line["method"] != "POST":
        return "invalid_method", "Only POST is supported.", "method"
    if line["url"] != endpoint:
        return "url_mismatch", "The URL of this request does not match the endpoint of the batch.", "url"
    if line["custom_id"] in seen:
        return "duplicate_custom_id", f"The custom_id '{line['custom_id']}' is that of an earlier request.", "custom_id"
    if lines and line["body"].get("model") != lines[0]["body"].get("model"):
        return "model_mismatch", "The model of this request differs from that of the first.", "body.model"
    return None


def _page(listed: list[dict[str, Any]], query: dict[str, str], usual: int, most: int) -> dict[str, Any]:
    """The part of a list that `after` and `limit` ask for."""
    limit = int(query.get("limit", usual))
    if not 1 <= limit <= most:
        raise Refused("invalid_value", name="limit", value=limit, accepted=f"1 to {most}")
    names = [item["id"] for item in listed]
    if "after" in query and query["after"] not in names:
        raise Refused("invalid_value", name="after", value=query["after"], accepted="an id of this list")
    start = names.index(query["after"]) + 1 if "after" in query else 0
    page = listed[start : start + limit]
    return {
        "object": "list", "data": page, "has_more": start + limit < len(listed),
        "first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None,
    }  # fmt: skip
