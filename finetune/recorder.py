"""What a training writes and shows while it runs: metrics, checkpoints, progress; and when it ends early."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from finetune.config import TrainConfig
from finetune.folder import TrainingFolder
from finetune.trainer import AdapterTrainer
from selfinstruct.errors import Error
from selfinstruct.progress import Progress


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes metrics, publishes checkpoints, shows progress and ends the training early when it should end.

    Args:
        trainer: The one that calls back.
        folder: Where to write.
        config: Says when to end and what to keep.
        lines: Steps logged by earlier calls; new ones are added.
        progress: Where to show.
        stop: Set when the training should end after the current step.
    """

    def __init__(
        self,
        trainer: AdapterTrainer,
        folder: TrainingFolder,
        config: TrainConfig,
        lines: list[dict[str, Any]],
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.lines = lines
        self._trainer, self._folder, self._config = trainer, folder, config
        self._progress, self._stop = progress, stop
        self._before = lines[-1] if lines else {"step": 0, "tokens": 0, "supervised_tokens": 0, "elapsed_s": 0.0}
        self._elapsed_s = float(self._before["elapsed_s"])
        self._unfinished: dict[str, Any] | None = None
        self._mark = 0.0

    def is_finished(self, step: int) -> bool:
        """Whether nothing is left to train after a step: a function of what is logged, so that resuming knows it."""
        patience = self._config.patience
        return step == self._trainer.args.max_steps or bool(patience and has_stalled(self._eval_losses(), patience))

    def _eval_losses(self) -> list[float]:
        return [line["eval_loss"] for line in self.lines if "eval_loss" in line]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._mark = time.perf_counter()

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Trainer sees one long epoch; trackers are told the real ones.
        state.epoch = state.global_step / self._trainer.train_dataset.steps_per_epoch
        if self._trainer.is_anywhere(self._stop.is_set()):  # all have to agree on the last step
            control.should_save = control.should_training_stop = True
        # A checkpoint or an evaluation closes a line of metrics, so that a resumed run goes on from a whole one.
        control.should_log = control.should_log or control.should_save or control.should_evaluate

    def on_log(
        self, _args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise Error(f"the loss is {logs['loss']} at step {state.global_step}; try a lower --learning-rate")
        now = time.perf_counter()
        last_s = now - self._mark
        self._elapsed_s += last_s
        self._mark = now
        tokens = self._before["tokens"] + self._trainer.tokens
        last_tokens = self.lines[-1]["tokens"] if self.lines else 0
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "tokens": tokens,
            "supervised_tokens": self._before["supervised_tokens"] + self._trainer.supervised_tokens,
            "tokens_per_s": (tokens - last_tokens) / last_s,
            "elapsed_s": self._elapsed_s,
        }
        self._progress.update(state.global_step, f"loss {line['loss']:.4f}  {line['tokens_per_s']:.0f} tokens/s")
        if control.should_evaluate:
            self._unfinished = line
        else:
            self._add(line)

    def on_evaluate(
        self, _args: Any, _state: Any, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        if self._unfinished:
            self._add({**self._unfinished, "eval_loss": metrics["eval_loss"]})
            self._unfinished = None
            losses = self._eval_losses()
            if self._config.keep == "best" and losses.index(min(losses)) == len(losses) - 1:
                control.should_save = True
            if self._config.patience and has_stalled(losses, self._config.patience):
                control.should_save = control.should_training_stop = True
        self._mark = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self._trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            partial = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            best = self._folder.best_step(self.lines) if self._config.keep == "best" else None
            self._folder.publish_checkpoint(partial, state.global_step, best)
        self._trainer.accelerator.wait_for_everyone()
        self._mark = time.perf_counter()

    def _add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self._trainer.is_world_process_zero():
            self._folder.log(line)


def has_stalled(losses: Sequence[float], patience: int) -> bool:
    """Whether none of the last so many losses is below all before it."""
    return len(losses) - 1 - losses.index(min(losses)) >= patience if losses else False
