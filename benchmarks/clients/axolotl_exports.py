"""Loads exports with Axolotl's own preparation, in an environment of its own; for `benchmarks.exports`.

Its only argument is JSON: folder (exports), entries (of `datasets`, by format), tokenizer (folder of a model),
out (file).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
}


def main() -> None:
    """Load each export and write what would be trained on."""
    import axolotl
    from axolotl.cli.config import load_cfg
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.data.sft import prepare_datasets

    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    found: dict[str, Any] = {}
    for name, entry in given["entries"].items():
        settings = {
            "base_model": given["tokenizer"], "datasets": [entry], "sequence_len": 100_000, "val_set_size": 0,
            "shuffle_merged_datasets": False, "dataset_num_proc": 1, "seed": 1, "num_epochs": 1, "micro_batch_size": 1,
            "gradient_accumulation_steps": 1, "learning_rate": 0.0001, "optimizer": "adamw_torch",
            "lr_scheduler": "constant", "output_dir": str(folder / "out"),
            "dataset_prepared_path": str(folder / "axolotl" / name),
        }  # fmt: skip
        file = folder / f"{name}.yml"
        file.write_text(json.dumps(settings))  # YAML reads JSON
        cfg = load_cfg(str(file))
        tokenizer = load_tokenizer(cfg)
        rows, *_ = prepare_datasets(cfg, tokenizer)
        found[name] = [
            {
                "text": tokenizer.decode(row["input_ids"]),
                "answer": tokenizer.decode([label for label in row["labels"] if label != -100]),
            }
            for row in rows
        ]
    Path(given["out"]).write_text(json.dumps({"version": f"Axolotl {axolotl.__version__}", "rows": found}))


if __name__ == "__main__":
    main()
