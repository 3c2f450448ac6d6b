"""An OpenAI-compatible server for load: each chat completion takes the same time and next to no work.

It also takes the measurements that must be the same for every client: when the first request came and the last reply
left, how many were open at once, and how much CPU time the client had used when its first request came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import glob
import json
import os
import re
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import parse_qs, urlsplit

REPLY_CHARACTERS = 400
REPLY_TOKENS = 100
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TASK = re.compile(rb"Task (\d+):")
_FILLER = "The answer goes on in plain words until it is as long as answers usually are. " * 6


@dataclass(slots=True)
class Stats:
    """What a client did since the last reset.

    Attributes:
        received: Chat completions asked for.
        answered: Replies written.
        connections: TCP connections that they came over.
        open: Requests that wait for their reply.
        max_open: Most of them at any time.
        first_s, last_s: When the first request came and when the last reply left, on the monotonic clock.
        cpu_at_first_s: CPU seconds that the client's processes had used when its first request came.
        server_cpu_s: CPU seconds of the server from then to the last reply.
    """

    received: int = 0
    answered: int = 0
    connections: int = 0
    open: int = 0
    max_open: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    cpu_at_first_s: float = 0.0
    server_cpu_s: float = 0.0


class Load:
    """Replies that wait for their time, in the order in which they were asked for, and the counts."""

    def __init__(self) -> None:
        self.stats = Stats()
        self._latency_s, self._client, self._cpu_s = 0.0, 0, 0.0
        self._waiting: deque[tuple[float, asyncio.Transport, bytes]] = deque()

    def reset(self, latency_s: float, client: int) -> None:
        """Start counting anew.

        Args:
            latency_s: Time from a request to its reply, from now on.
            client: Process id of the client, whose CPU time is read when its first request comes.
        """
        self.stats, self._latency_s, self._client = Stats(), latency_s, client

    def ask(self, transport: asyncio.Transport, body: bytes) -> None:
        """Take a request, and reply to it when its time has come."""
        now, stats = time.monotonic(), self.stats
        if not stats.received:
            self._cpu_s = time.process_time()
            stats.first_s, stats.cpu_at_first_s = now, cpu_seconds(self._client)
        stats.received += 1
        stats.open += 1
        stats.max_open = max(stats.max_open, stats.open)
        self._waiting.append((now + self._latency_s, transport, _completion(body)))
        if len(self._waiting) == 1:
            self._wake_at(now + self._latency_s)

    def _wake_at(self, due_s: float) -> None:
        """One timer serves all: with one latency, replies are due in the order of the requests."""
        delay_s = max(due_s - time.monotonic(), 0.001)  # uvloop's timers count in milliseconds
        asyncio.get_running_loop().call_later(delay_s, self._reply_to_due)

    def _reply_to_due(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, transport, reply = self._waiting.popleft()
            transport.write(reply)
            self.stats.open -= 1
            self.stats.answered += 1
        self.stats.last_s, self.stats.server_cpu_s = time.monotonic(), time.process_time() - self._cpu_s
        if self._waiting:
            self._wake_at(self._waiting[0][0])


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection."""

    def __init__(self, load: Load) -> None:
        self._load, self._received = load, b""
        self._counted_in: Stats | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < size:
                return
            method, target, _ = self._received.split(b" ", 2)
            self._serve(method, target.decode(), self._received[end + 4 : size])
            self._received = self._received[size:]

    def _serve(self, method: bytes, target: str, body: bytes) -> None:
        url = urlsplit(target)
        if method == b"POST" and url.path == "/v1/chat/completions" and _TASK.search(body):
            if self._counted_in is not self._load.stats:
                self._counted_in = self._load.stats
                self._counted_in.connections += 1
            self._load.ask(self._transport, body)
        elif url.path == "/stats":
            self._transport.write(_response(200, asdict(self._load.stats)))
        elif url.path == "/reset":
            values = parse_qs(url.query)
            self._load.reset(float(values["latency_s"][0]), int(values["client"][0]))
            self._transport.write(_response(200, {}))
        else:  # some clients look for rate limits with an empty request
            self._transport.write(_response(400, {"error": {"message": "no such request", "type": "invalid_request"}}))


def _completion(body: bytes) -> bytes:
    """The reply to a prompt, which names the prompt's number so that clients can be seen to get their own."""
    number = _TASK.search(body)
    assert number
    text = f"Answer to task {number[1].decode()}: {_FILLER}"[:REPLY_CHARACTERS]
    prompt_tokens = len(body) // 4
    return _response(
        200,
        {
            "id": f"chatcmpl-{number[1].decode()}", "object": "chat.completion", "created": 0, "model": "load",
            "choices": [
                {
                    "index": 0, "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None, "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens, "completion_tokens": REPLY_TOKENS,
                "total_tokens": prompt_tokens + REPLY_TOKENS,
            },
        },
    )  # fmt: skip


def _response(status: int, values: object) -> bytes:
    body = json.dumps(values).encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of a process and its descendants, those that have ended included.

    A living process is read from its CPU clock, whose id Linux makes of the process id (CPUCLOCK_SCHED in the kernel's
    posix-timers.h, as clock_getcpuclockid(3) does); children that were waited for from /proc/PID/stat (proc(5), fields
    16 and 17), in ticks.
    """
    total = 0.0
    with contextlib.suppress(OSError):  # a process that has just ended
        with open(f"/proc/{pid}/stat") as file:
            after_name = file.read().rpartition(")")[2].split()  # from field 3 on
        total += sum(map(int, after_name[13:15])) / os.sysconf("SC_CLK_TCK")
        total += time.clock_gettime((~pid << 3) | 2)
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path) as file:
            total += sum(cpu_seconds(int(child)) for child in file.read().split())
    return total


async def _serve(port: int) -> None:
    load = Load()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(load), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until standard input closes; the first line of output is the port."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    args = parser.parse_args()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    uvloop.run(_serve(args.port))


if __name__ == "__main__":
    main()
