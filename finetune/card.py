"""The card of an adapter: what it is an adapter of, what it learnt from, and what is not known about it."""

from __future__ import annotations

from pathlib import Path

from finetune.folder import TrainRecord, TrainSummary

_TEMPLATE = """\
---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags:
- lora
- instruction-tuning
---

# LoRA adapter for {base}

Trained on {rows} instruction rows with rank {rank}, alpha {alpha:g}, learning rate {learning_rate:g}, {steps} steps of
up to {batch_size} rows. Only the answers were learnt, each with its end-of-sequence token.

| | |
|---|---|
| Base model | {base} |
| SHA-256 over its weights | {weights} |
| Template | {template} (SHA-256 {template_sha256}) |
| Evaluation loss before and after | {before}, {after} |

Render prompts with the same template: another one gives other tokens than those learnt. `selfinstruct.json` beside this
card names it.

## Data

| Used for | File | Rows | SHA-256 |
|---|---|---|---|
{files}

Rows kept out for evaluation: {eval_rows}. Rows not used: {dropped}.

## Licence

- Licence of this adapter: not stated. It is for you to state before you share it.
- Licence of the base model: not recorded here; see {base}.
- Licence of the data: not recorded here; where a model wrote the rows, the terms of that model apply as well.

## Versions

{versions}
"""


def card(record: TrainRecord, summary: TrainSummary) -> str:
    """The README.md of an adapter; file names only, no local paths."""
    return _TEMPLATE.format(
        base=record.base.public_name,
        weights=record.base.weights_sha256 or "not known",
        template=record.template.name,
        template_sha256=record.template.sha256,
        rows=summary.rows_used,
        eval_rows=summary.eval_rows,
        steps=summary.steps,
        before=_loss(summary.eval_loss_before),
        after=_loss(summary.eval_loss),
        files="\n".join(f"| {f.role} | {Path(f.path).name} | {f.rows} | {f.sha256} |" for f in record.files),
        dropped=", ".join(f"{n} {reason}" for reason, n in summary.rows_dropped.items()) or "none",
        versions=", ".join(f"{name} {version}" for name, version in record.versions.items()),
        **{name: record.config[name] for name in ("rank", "alpha", "learning_rate", "batch_size")},
    )


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
