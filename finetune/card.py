"""The card of an adapter or a merged model: what it was made of, what it learnt from, what is not known about it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.folder import TrainRecord, TrainSummary
from selfinstruct.characters import visible
from selfinstruct.embedded import PUBLIC_NAME, public_name
from selfinstruct.files import read_toml
from selfinstruct.markdown import front_matter, inline

_ADAPTER = """\
{front}
# LoRA adapter for {base}

Trained on {rows} instruction rows with rank {rank}, alpha {alpha:g}, learning rate {learning_rate:g}, {steps} steps of
up to {batch_size} rows. Only the answers were learnt, each with its end-of-sequence token.

| | |
|---|---|
| Base model | {base} |
| SHA-256 over its weights | {weights} |
| Template | {template} (SHA-256 {template_sha256}) |
| Training loss | {train_loss} |
| Evaluation loss before and after | {before}, {after} |
| Tokens trained on, and of those learnt | {tokens:,}, {supervised_tokens:,} |

## Use

{usage}
## Data

| Used for | File | Rows | SHA-256 |
|---|---|---|---|
{files}

Rows kept out for evaluation: {eval_rows}. Rows not used: {dropped}.
{lineage}
## Licence

- Licence of this adapter: not stated. It is for you to state before you share it.
- Licence of the base model: {base_licence}
- Licence of the data: not recorded here; where a model wrote the rows, the terms of that model apply as well.

## Versions

{versions}
"""

_ADAPTER_USAGE = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), "path/to/this/folder")
```

{serving}

Render prompts with the same template: another one gives other tokens than those learnt. `selfinstruct.json` beside this
card names it.
"""

_SERVED = """\
Served by vLLM:

```bash
vllm serve {base} --enable-lora --max-lora-rank {max_rank} --lora-modules tuned=path/to/this/folder
```"""
_NOT_SERVED = "vLLM serves no DoRA adapters: `finetune merge` makes a model folder of it first."

_MERGED = """\
{front}
# {base} with a merged LoRA adapter

The adapter was added to the weights in fp32 and the sum stored in {dtype}. Loaded again, the folder puts the same token
first as base model and adapter at {agreement:.1%} of the positions compared; logits differ by up to {difference:.1e} of
the largest.

| | |
|---|---|
| Base model | {base} |
| SHA-256 of the adapter's weights | {adapter_sha256} |
| Template | {template} (SHA-256 {template_sha256}) |

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```

Served by vLLM: `vllm serve path/to/this/folder`. The chat template in the folder is the one that was trained with.

{rest}
"""

# What a merged model's card takes over from its adapter's.
_KEPT = ("Data", "Licence")
# Ranks that vLLM allocates for (vllm/config/lora.py, MaxLoRARanks); its default is 16.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def card(record: TrainRecord, summary: TrainSummary) -> str:
    """The README.md of an adapter; file names only, no local paths."""
    config, base = record.config, record.base.public_name
    rank = int(config["rank"])
    max_rank = next((allowed for allowed in _VLLM_RANKS if rank <= allowed), rank)
    argument = shlex.quote(" ".join(visible(base).split()))
    serving = _NOT_SERVED if config.get("dora") else _SERVED.format(base=argument, max_rank=max_rank)
    return _ADAPTER.format(
        front=_front_matter(base, "adapter", library_name="peft", tags=["lora", "instruction-tuning"]),
        base=inline(base),
        weights=record.base.weights_sha256 or "not known",
        template=record.template.name,
        template_sha256=record.template.sha256,
        rows=summary.rows_used,
        eval_rows=summary.eval_rows,
        steps=summary.steps,
        tokens=summary.tokens,
        supervised_tokens=summary.supervised_tokens,
        train_loss=_loss(summary.train_loss),
        before=_loss(summary.eval_loss_before),
        after=_loss(summary.eval_loss),
        usage=_ADAPTER_USAGE.format(base=json.dumps(base), serving=serving),
        files="\n".join(f"| {f.role} | {inline(Path(f.path).name)} | {f.rows} | {f.sha256} |" for f in record.files),
        dropped=", ".join(f"{n} {reason}" for reason, n in summary.rows_dropped.items()) or "none",
        lineage=_lineage([Path(f.path) for f in record.files]),
        base_licence="Apache-2.0." if base == PUBLIC_NAME else f"not recorded here; see {inline(base)}.",
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
        **{name: config[name] for name in ("rank", "alpha", "learning_rate", "batch_size")},
    )


def merged_card(
    *,
    base: str,
    dtype: str,
    template: str,
    template_sha256: str,
    adapter_sha256: str,
    agreement: float,
    difference: float,
    adapter_card: str,
) -> str:
    """The README.md of a merged model.

    Args:
        base: Public name of the base model.
        dtype: Of the stored weights.
        template: Name of the template that the adapter was trained with.
        template_sha256: Its hash.
        adapter_sha256: Of the adapter's weights.
        agreement: Share of positions at which both put the same token first, 0 to 1.
        difference: Largest difference of two logits, as a share of the largest.
        adapter_card: README.md of the adapter, whose data and licence sections are taken over; "" if it has none.
    """
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", adapter_card, re.MULTILINE | re.DOTALL))
    kept = [f"## {name}\n\n{sections[name].strip()}" for name in _KEPT if name in sections]
    rest = "\n\n".join(kept) or "## Data\n\nNot known: the adapter's card does not say what it was trained on."
    return _MERGED.format(
        front=_front_matter(base, "merge", library_name="transformers", tags=["instruction-tuning", "merge"]),
        base=inline(base), dtype=dtype, template=template, template_sha256=template_sha256,
        adapter_sha256=adapter_sha256, agreement=agreement, difference=difference, rest=rest,
    )  # fmt: skip


def _front_matter(base: str, relation: str, *, library_name: str, tags: Sequence[str]) -> str:
    """The block that the hub reads (huggingface.co/docs/hub/model-cards); without a licence, which is the user's."""
    return front_matter(
        {
            "base_model": base,
            "base_model_relation": relation,
            "library_name": library_name,
            "pipeline_tag": "text-generation",
            "tags": tags,
        }
    )


def _lineage(files: Sequence[Path]) -> str:
    """What the folders of runs among the files say about how rows were made; "" where none is."""
    lines = []
    for file in files:
        run = file.parent / "run.toml"
        options = read_toml(run).get("generate") if file.name == "dataset.jsonl" and run.is_file() else None
        if isinstance(options, Mapping):
            teacher = inline(public_name(str(options.get("model", "not known"))))
            strategies = inline(_strategies(options.get("strategy")))
            lines.append(f"- `{file.name}` was generated by {teacher} with the strategy {strategies}.")
    if not lines:
        return ""
    return "\n".join(
        ["", *lines, "- Whether its terms allow this use of what a teacher wrote is for you to check.", ""]
    )


def _strategies(value: Any) -> str:
    """Strategies as run.toml holds them: a name, tables with a kind, or a list of either."""
    entries = value if isinstance(value, list) else [value]
    names = [str(entry.get("kind", "")) if isinstance(entry, Mapping) else str(entry) for entry in entries]
    return " and ".join(dict.fromkeys(names))


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
