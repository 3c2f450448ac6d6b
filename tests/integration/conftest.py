"""The test server, one process a module, with a fresh log and default behaviour for every test."""

from __future__ import annotations

import pytest

from tests.generating import FreshServer
from tests.server import running_server


@pytest.fixture(scope="module")
def shared():
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared):
    return FreshServer(shared)
