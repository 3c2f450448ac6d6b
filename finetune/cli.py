"""The program `finetune`: look at training data, train an adapter, merge, chat, and find out what it changed."""

from __future__ import annotations

import logging
import sys

from selfinstruct.command import LazyCommand, LazyGroup, run_program

GROUP = LazyGroup(
    {
        "train": LazyCommand("finetune.training", "train", "TrainConfig", "Train a LoRA adapter on instruction data."),
        "inspect": LazyCommand(
            "finetune.inspection", "inspect", "InspectConfig", "Show training rows token by token, and what is trained."
        ),
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
        "lineage": LazyCommand(
            "finetune.lineages", "lineage", "LineageConfig",
            "Show the training rows near changed items, and what made them.", arguments=("base", "tuned"),
        ),
        "split": LazyCommand(
            "finetune.splitting", "split", "SplitConfig",
            "Make training and test sets that share no data set.", arguments=("source",),
        ),
        "merge": LazyCommand(
            "finetune.merging", "merge", "MergeConfig", "Merge an adapter into its base model, shown to be the same."
        ),
        "chat": LazyCommand("finetune.conversation", "chat", "ChatConfig", "Talk to a model in the terminal."),
    },
    help="Fine-tune an open model with LoRA, and show on held-out tasks what it changed.",
    distribution="selfinstruct",
)  # fmt: skip


def main() -> None:
    """Run the program and end with its exit code."""
    # Where bitsandbytes is installed, importing peft says that a faster 4-bit kernel for CPUs is not.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    sys.exit(run_program(GROUP, "finetune"))


if __name__ == "__main__":
    main()
