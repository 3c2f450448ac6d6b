"""Loads exports with TRL's own preparation, in an environment of its own; for `benchmarks.exports`.

Its only argument is JSON: folder (exports), entries (by format, with their path), tokenizer (folder of a model), out
(file).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def main() -> None:
    """Load each export and write what would be trained on."""
    import trl
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
    found: dict[str, Any] = {}
    for name, entry in given["entries"].items():
        rows = load_dataset("json", data_files=entry["path"], split="train", cache_dir=str(folder / "cache"))
        settings = SFTConfig(
            output_dir=str(folder / "trl"), max_length=None, use_cpu=True, report_to="none"
        )  # fmt: skip
        trainer = SFTTrainer(given["tokenizer"], args=settings, train_dataset=rows, processing_class=tokenizer)
        found[name] = []
        for row in trainer.train_dataset:
            batch = trainer.data_collator([row])
            labels = batch["labels"][0].tolist()
            found[name].append(
                {
                    "text": tokenizer.decode(row["input_ids"]),
                    "answer": tokenizer.decode([label for label in labels if label != -100]),
                }
            )
    Path(given["out"]).write_text(json.dumps({"version": f"TRL {trl.__version__}", "rows": found}))


if __name__ == "__main__":
    main()
