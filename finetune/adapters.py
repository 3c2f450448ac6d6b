"""Adapters: putting new ones on a base model, and checking and writing what became of them."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.config import TrainConfig
from finetune.models import ModelSource
from finetune.rows import TrainingData
from selfinstruct.errors import Error, InputError, UsageError

FILES = ("adapter_config.json", "adapter_model.safetensors")


def with_adapter(model: torch.nn.Module, config: TrainConfig) -> PeftModel:
    """Freeze a model and put new adapters on its linear layers: by default on all but the output projection.

    The base keeps its dtype and is not prepared in any other way, quantised or not: PEFT's preparation would turn
    norms and embeddings into fp32, which costs memory and changes nothing that is learnt. The adapters are fp32.

    Raises:
        UsageError: When the model has no such layers, or adapters on them could not be merged.
    """
    names = [name.strip() for name in config.target_modules.split(",")]
    adapters = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=config.target_modules if names == ["all-linear"] else names,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
    )
    embeddings = _names(model, [model.get_input_embeddings(), model.get_output_embeddings()])  # type: ignore[operator]
    if getattr(model.config, "tie_word_embeddings", False) and (tied := embeddings & set(names)):
        raise UsageError(
            f"--target-modules {', '.join(sorted(tied))}: this model has one matrix for input and output, which an "
            "adapter would make two; leave it out"
        )
    with warnings.catch_warnings():
        # PEFT still asks for a property that transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            adapted = get_peft_model(model, adapters)
        except ValueError as error:
            raise UsageError(f"--target-modules {config.target_modules}: {str(error).splitlines()[0]}") from error
    # A set in PEFT; sorted, adapter_config.json is the same whenever the training is.
    adapted.peft_config["default"].target_modules = sorted(adapted.peft_config["default"].target_modules)
    for module in adapted.modules():
        # Autocast has matrices multiplied in bf16; PEFT would turn each input into fp32 before, and that back again.
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
    return adapted


def _names(model: torch.nn.Module, modules: Iterable[torch.nn.Module]) -> set[str]:
    """Last parts of the modules' names, by which adapters are placed."""
    wanted = {id(module) for module in modules}
    return {name.rpartition(".")[2] for name, module in model.named_modules() if id(module) in wanted}


def empty_model(source: ModelSource) -> Any:
    """A model's structure without any weight, on the device "meta"."""
    model_config = AutoConfig.from_pretrained(
        source.location, revision=source.revision, local_files_only=source.is_local, trust_remote_code=False
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config)


def n_trainable(model: torch.nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def check_vocabulary(data: TrainingData, num_embeddings: int) -> None:
    """Refuse tokens that the model has no embedding for, as when a tokenizer was extended and the model was not.

    New embeddings would have to be trained whole, and untied where input and output share them; an adapter has neither.

    Raises:
        UsageError: Naming the token.
    """
    highest = max(max(row.input_ids) for row in (*data.rows, *data.eval_rows))
    if highest >= num_embeddings:
        raise UsageError(
            f"the tokenizer gives token {highest}, but the model has embeddings for {num_embeddings} only; use the "
            "tokenizer that belongs to the model"
        )


def check_weights(model: torch.nn.Module, source: ModelSource) -> None:
    """Refuse a base model with weights that are not finite, whose loss could never be.

    Raises:
        InputError: Naming the first such weight.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            lowest, highest = parameter.detach().aminmax()  # one pass, nothing allocated
            if not math.isfinite(lowest) or not math.isfinite(highest):
                raise InputError(
                    f"the weights {name} hold values that are not finite", path=source.location,
                    remedy="get the model again",
                )  # fmt: skip


def adapter_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is trained, by name; under FSDP gathered, which all processes have to ask for together."""
    return {
        name: (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().cpu()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def save_adapter(checkpoint: Path, tokenizer: Any, folder: Path) -> None:
    """Write an adapter as it was at a checkpoint, and the tokenizer.

    Args:
        checkpoint: Folder with the adapter.
        tokenizer: Of the base model; its chat template goes along.
        folder: Where to write; replaced if it is there.

    Raises:
        Error: When the training left no trace in the adapter, or the adapter is not finite.
    """
    weights = load_file(checkpoint / FILES[1])
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise Error("the trained adapter holds values that are not finite; try a lower --learning-rate")
    # LoRA's B starts at zero (Hu et al. 2021, section 4.1), so that an untrained adapter changes nothing.
    if not any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name):
        raise Error("the training left the adapter as it was at the start; try a higher --learning-rate or more steps")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(checkpoint / name, folder)
    tokenizer.save_pretrained(str(folder))


def decoder_layers(model: torch.nn.Module) -> Sequence[torch.nn.Module]:
    """The repeated layers of a model: its longest list of modules."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(lists, key=len, default=()))
