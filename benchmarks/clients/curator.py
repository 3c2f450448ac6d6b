"""Curator's LLM with its openai backend; no limits but the concurrency, since its own would hold it back."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from bespokelabs import curator

from benchmarks.clients.cell import Cell, given

NO_LIMIT = 10**9  # a minute; unset, it falls back to 200 requests


def keep_tokenizer_local() -> None:
    """Have tiktoken read the vocabulary that litellm, which curator needs, brings along, instead of fetching it."""
    litellm = find_spec("litellm")
    assert litellm and litellm.origin
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers")


def ask_all(cell: Cell) -> None:
    """Ask every prompt. The replies are stored as JSON lines, then in a data set."""
    keep_tokenizer_local()
    model = curator.LLM(
        model_name=cell.model,
        backend="openai",
        generation_params={"max_tokens": cell.max_tokens, "temperature": 0.7},
        backend_params={
            "base_url": cell.base_url,
            "api_key": "none",
            "max_concurrent_requests": cell.concurrency,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT * 1000,
        },
    )
    prompts = cell.prompts()
    cell.ready()
    cell.done(model(prompts, working_dir=cell.folder).dataset["response"])


if __name__ == "__main__":
    ask_all(given())
