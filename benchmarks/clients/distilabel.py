"""distilabel's OpenAILLM, alone or in a pipeline.

It has no bound on requests in flight but the batch: a batch's prompts are asked at once, and the next batch begins when
all of them are answered. So the batch is as large as the concurrency.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.clients.cell import WARM_UP, Cell, chat, given


def language_model(cell: Cell) -> Any:
    """The client, told where to go and nothing else."""
    from distilabel.models import OpenAILLM

    return OpenAILLM(
        model=cell.model, base_url=cell.base_url, api_key="none",
        generation_kwargs={"max_new_tokens": cell.max_tokens, "temperature": 0.7},
    )  # fmt: skip


def ask_alone(cell: Cell) -> None:
    """Ask every prompt by `generate_outputs`, in batches. Nothing is stored."""
    model = language_model(cell)
    model.load()

    def ask(prompts: list[str]) -> list[str]:
        outputs = model.generate_outputs(inputs=list(map(chat, prompts)), **model.get_generation_kwargs())
        return [output["generations"][0] for output in outputs]

    prompts = cell.prompts()
    ask([WARM_UP])
    cell.ready()
    starts = range(0, len(prompts), cell.concurrency)
    cell.done([answer for start in starts for answer in ask(prompts[start : start + cell.concurrency])])


def ask_in_pipeline(cell: Cell) -> None:
    """Ask every prompt by a pipeline of one step, which stores its batches and makes a data set."""
    from distilabel.pipeline import Pipeline
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="benchmark", cache_dir=cell.folder) as pipeline:
        TextGeneration(llm=language_model(cell), input_batch_size=cell.concurrency)
    rows = [{"instruction": prompt} for prompt in cell.prompts()]
    cell.ready()
    result = pipeline.run(dataset=rows, dataset_batch_size=cell.concurrency, use_cache=False)
    cell.done(result["default"]["train"]["generation"])


if __name__ == "__main__":
    (ask_in_pipeline if "--pipeline" in sys.argv else ask_alone)(given())
