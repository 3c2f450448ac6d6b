"""llama.cpp's server with the real weights: it answers, and no process of it outlives its parent."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from selfinstruct.embedded import embedded_server as start
from selfinstruct.embedded import weights
from selfinstruct.errors import Error, UsageError


@pytest.fixture(scope="module")
def client(embedded_server):
    with openai.OpenAI(base_url=embedded_server.base_url, api_key="none", max_retries=0) as client:
        yield client


def test_chat(client):
    reply = client.chat.completions.create(
        model="embedded", max_tokens=24, temperature=0,
        messages=[{"role": "user", "content": "Say hello."}],
    )  # fmt: skip
    assert "hello" in reply.choices[0].message.content.lower()
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "embedded"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_completions_end_at_a_stop_string(client):
    reply = client.completions.create(
        model="embedded", prompt="Colours:\n1. red\n2. green\n3.", max_tokens=24, temperature=0, stop=["\n"]
    )
    assert reply.choices[0].finish_reason == "stop"
    assert "\n" not in reply.choices[0].text
    assert 0 < reply.usage.completion_tokens < 24


def test_prompts_with_the_same_beginning_are_not_computed_again(client):
    beginning = "A list of tasks: " + ", ".join(f"task {number}" for number in range(60))
    cached = [
        client.completions.create(
            model="embedded", prompt=beginning + end, max_tokens=1
        ).usage.prompt_tokens_details.cached_tokens
        for end in (", and a first end", ", but another end")
    ]
    assert cached[1] > cached[0] + 100


def test_more_requests_than_slots(client):
    def ask(number):
        return client.completions.create(model="embedded", prompt=f"{number} and", max_tokens=2).usage.completion_tokens

    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(ask, range(24))) == [2] * 24


def test_ends_with_its_context_even_with_a_request_in_flight(tmp_path):
    log = tmp_path / "logs" / "server.log"
    with ThreadPoolExecutor(1) as threads:
        with start(n_parallel=1, n_ctx_per_slot=4096, log=log) as server:
            client = openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)
            reply = threads.submit(
                client.completions.create, model="embedded", prompt="Once", max_tokens=4000,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            time.sleep(1)
            leaving = time.monotonic()
        assert time.monotonic() - leaving < 5
        with pytest.raises(openai.APIConnectionError):
            reply.result()
        client.close()
    assert not is_running(server.pid)
    assert log.exists()


def test_ends_when_its_context_fails():
    with pytest.raises(RuntimeError, match="of the caller"), start(n_parallel=1, n_ctx_per_slot=256) as server:
        raise RuntimeError("of the caller")
    assert not is_running(server.pid)


PARENT = """
import http.client, sys, time
from urllib.parse import urlsplit
from selfinstruct.embedded import embedded_server

with embedded_server(n_parallel=1, n_ctx_per_slot=256) as server:
    try:
        print(server.pid, flush=True)
        time.sleep(120)
    except KeyboardInterrupt:
        time.sleep(1)  # long enough for the server to end, had it been interrupted too
        connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=20)
        connection.request("GET", "/health")
        print(connection.getresponse().status, flush=True)
"""


@pytest.fixture
def parent():
    """(A process that runs the server, the server's process id)."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        server_pid = int(process.stdout.readline())
        assert is_running(server_pid)
        yield process, server_pid
        process.kill()
    assert ends(server_pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_when_the_parent_is_killed(parent, how):
    process, server_pid = parent
    process.send_signal(how)
    assert process.wait(10) == -how
    assert ends(server_pid)


def test_ctrl_c_reaches_the_parent_alone(parent):
    process, server_pid = parent
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "200\n"
    assert process.wait(10) == 0
    assert ends(server_pid)


def test_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be used"), start(port=port):
            pass


def test_a_given_port_is_used():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with start(port=port, n_parallel=1, n_ctx_per_slot=256) as server:
        assert urlsplit(server.base_url).port == port


def test_broken_weights_are_told_with_the_servers_own_words(tmp_path, monkeypatch):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(weights().read_bytes()[:5_000_000])
    monkeypatch.setenv("SELFINSTRUCT_EMBEDDED_GGUF", str(broken))
    with pytest.raises(Error, match=r"(?s)did not start.*failed to load model.*broken\.gguf"), start():
        pass


def test_modules_in_the_users_folder_do_not_hide_the_servers(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('hidden')")
    monkeypatch.chdir(tmp_path)
    with start(n_parallel=1, n_ctx_per_slot=256) as server:
        connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()


def is_running(pid):
    """Whether a process exists and is more than a zombie (field 3 of /proc/pid/stat, see proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ends(pid, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)
