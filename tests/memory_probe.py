"""Peak memory of a training beside its estimate, in a process of its own: prints both in bytes.

Arguments: model, tokens a row, and "checkpointing" if activations are to be computed twice.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from transformers import logging

from finetune.config import TrainConfig
from finetune.fitting import make_arguments, make_trainer
from finetune.folder import BatchingRecord, TrainingFolder
from finetune.models import resolve
from finetune.plan import size
from finetune.rows import TrainingData, TrainingRow


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main(model: str, tokens: int, checkpointing: bool) -> None:
    logging.set_verbosity_error()
    source = resolve(model)
    row = TrainingRow(tuple(range(5, 5 + tokens)), ((tokens // 4, tokens),))
    data = TrainingData((row,) * 2, (), {}, {}, ())
    batching = BatchingRecord(processes=1, pack_length=0)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=[Path("none")], out=Path(folder), model=model, batch_size=1, gradient_checkpointing=checkpointing,
            threads=1,
        )  # fmt: skip
        estimate = size(config, source, data, batching, 2).memory.total
        arguments = make_arguments(config, TrainingFolder(Path(folder)), 2, evaluates=False, resumes=False)
        before = resident("VmRSS")
        trainer = make_trainer(config, source, data, batching, 2, arguments)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here: loading has one of its own
        trainer.train()
        print(estimate, resident("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "checkpointing" in sys.argv[3:])
