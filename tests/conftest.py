"""What several test modules share: the embedded model, running and as a folder, started or made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from selfinstruct import embedded


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.EmbeddedServer]:
    """llama.cpp's server with the embedded model; `base_url` ends with /v1."""
    log = tmp_path_factory.mktemp("embedded") / "server.log"
    with embedded.embedded_server(n_parallel=4, n_ctx_per_slot=2048, log=log) as server:
        yield server


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    """The embedded model as fp32 safetensors, from the user's cache: made by the first test that wants it."""
    from finetune.models import resolve

    return Path(resolve("embedded").location)
