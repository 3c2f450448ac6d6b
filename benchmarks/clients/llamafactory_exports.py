"""Loads exports with LLaMA-Factory's own reader, in an environment of its own; for `benchmarks.exports`.

Its only argument is JSON: folder (exports), entries (of dataset_info.json, by format), tokenizer (folder of a model),
out (file).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DISABLE_VERSION_CHECK": "1",
}


def main() -> None:
    """Load each export and write what would be trained on."""
    import transformers  # noqa: F401  (looks for torchaudio itself, so before the stand-in)

    # Read for sound only, of which there is none here; its wheels need CUDA.
    sys.modules.setdefault("torchaudio", type(sys)("torchaudio")).__spec__ = ModuleSpec("torchaudio", None)
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.extras.env import VERSION
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    (folder / "dataset_info.json").write_text(json.dumps(given["entries"]))
    found: dict[str, Any] = {}
    for name in given["entries"]:
        model_args, data_args, training_args, *_ = get_train_args(
            {
                "model_name_or_path": given["tokenizer"], "stage": "sft", "do_train": True, "finetuning_type": "lora",
                "dataset": name, "dataset_dir": str(folder), "template": "chatml", "cutoff_len": 100_000,
                "output_dir": str(folder / "llamafactory"), "overwrite_cache": True, "report_to": "none",
                "preprocessing_num_workers": 1, "use_cpu": True,
            }
        )  # fmt: skip
        parts = load_tokenizer(model_args)
        tokenizer = parts["tokenizer"]
        template = get_template_and_fix_tokenizer(tokenizer, data_args)
        module = get_dataset(template, model_args, data_args, training_args, stage="sft", **parts)
        found[name] = [
            {
                "text": tokenizer.decode(row["input_ids"]),
                "answer": tokenizer.decode([label for label in row["labels"] if label != -100]),
            }
            for row in module["train_dataset"]
        ]
    Path(given["out"]).write_text(json.dumps({"version": f"LLaMA-Factory {VERSION}", "rows": found}))


if __name__ == "__main__":
    main()
