"""The program `finetune`: train an adapter, evaluate a model, compare evaluations."""

from __future__ import annotations

import sys

from selfinstruct.command import LazyCommand, LazyGroup, run_program

GROUP = LazyGroup(
    {
        "train": LazyCommand("finetune.training", "train", "TrainConfig", "Train a LoRA adapter on instruction data."),
        "evaluate": LazyCommand(
            "finetune.evaluation", "evaluate", "EvaluateConfig", "Score a model on held-out tasks."
        ),
        "compare": LazyCommand(
            "finetune.comparison", "compare", "CompareConfig", "Say what got better or worse between evaluations.",
            arguments=("base", "tuned"),
        ),
        "judge": LazyCommand(
            "finetune.judging", "judge", "JudgeConfig", "Let a model behind an endpoint compare generated answers.",
            arguments=("base", "tuned"),
        ),
    },
    help="Fine-tune an open model with LoRA, and show on held-out tasks what it changed.",
    distribution="selfinstruct",
)  # fmt: skip


def main() -> None:
    """Run the program and end with its exit code."""
    sys.exit(run_program(GROUP, "finetune"))


if __name__ == "__main__":
    main()
