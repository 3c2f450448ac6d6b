"""Instruction data to a LoRA adapter, an adapter to scores, scores to a comparison.

One function a command, of the same name; each takes its configuration and returns its result:

    from finetune import TrainConfig, train
    summary = train(TrainConfig(data=[Path("runs/first")], out=Path("runs/first-adapter")))

Names are imported when they are first used, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.comparison import CompareConfig as CompareConfig
    from finetune.comparison import compare as compare
    from finetune.config import TrainConfig as TrainConfig
    from finetune.conversation import ChatConfig as ChatConfig
    from finetune.conversation import chat as chat
    from finetune.evaluation import EvaluateConfig as EvaluateConfig
    from finetune.evaluation import evaluate as evaluate
    from finetune.inspection import InspectConfig as InspectConfig
    from finetune.inspection import inspect as inspect
    from finetune.judging import JudgeConfig as JudgeConfig
    from finetune.judging import judge as judge
    from finetune.lineages import LineageConfig as LineageConfig
    from finetune.lineages import lineage as lineage
    from finetune.merging import MergeConfig as MergeConfig
    from finetune.merging import merge as merge
    from finetune.splitting import SplitConfig as SplitConfig
    from finetune.splitting import split as split
    from finetune.training import train as train

_HOMES = {
    "config": ("TrainConfig",),
    "training": ("train",),
    "inspection": ("inspect", "InspectConfig"),
    "evaluation": ("evaluate", "EvaluateConfig"),
    "comparison": ("compare", "CompareConfig"),
    "judging": ("judge", "JudgeConfig"),
    "lineages": ("lineage", "LineageConfig"),
    "splitting": ("split", "SplitConfig"),
    "merging": ("merge", "MergeConfig"),
    "conversation": ("chat", "ChatConfig"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"finetune.{module}"), name)
    raise AttributeError(f"module 'finetune' has no attribute '{name}'")
