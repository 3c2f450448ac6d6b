"""Models, tokenizers and adapters from wherever they are: the embedded model, a folder, a GGUF file or the hub.

Weights are read from safetensors only and no code of a model's repository is run. A GGUF file is converted once to a
cached folder of fp32 safetensors.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from selfinstruct.embedded import PUBLIC_NAME, WEIGHTS_SHA256, cache_folder, weights
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import read_json, sha256_file, validate, write_json
from selfinstruct.labelled_data import hub_can_be_found
from selfinstruct.render import Renderer, renderer_for

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
# Part of the name of a converted folder; raise it when the conversion changes, so that old copies are left alone.
CONVERSION_VERSION = 1
_HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_PUBLIC_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that was asked for, and where it is.

    Attributes:
        name: As the user gave it.
        location: Folder, or name on the hub.
        public_name: What may be written into an adapter's card and configuration: never a local path.
        revision: Commit, tag or branch on the hub; None for the newest, and for a folder.
    """

    name: str
    location: str
    public_name: str
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the location is a folder."""
        return Path(self.location).is_dir()

    @property
    def weights_sha256(self) -> str | None:
        """Hash over the weights of a folder, as `sha256sum *.safetensors | sha256sum` prints it; None on the hub."""
        if not self.is_local:
            return None
        files = sorted(Path(self.location).glob("*.safetensors"))
        listing = "".join(f"{sha256_file(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()


def resolve(model: str) -> ModelSource:
    """Find a model.

    Args:
        model: "embedded", a folder of safetensors, a GGUF file, or a name on the hub ("org/name" or
            "org/name@revision"). A GGUF file, which the embedded model is too, is converted on first use.

    Raises:
        InputError: For a path that does not lead to a model.
        UsageError: For anything else that is not a model's name, and when the embedded weights are not installed.
    """
    if model == EMBEDDED:
        return _from_folder(model, _converted(weights()))
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(
                "is no model", path=path, remedy="give a folder with config.json and *.safetensors, or a .gguf file"
            )
        return _from_folder(model, _converted(path))
    if path.is_dir():
        return _from_folder(model, path.resolve())
    if hub := _HUB_NAME.fullmatch(model):
        return ModelSource(model, hub["name"], hub["name"], hub["revision"])
    if "/" in model or path.suffix == ".gguf":
        raise InputError("no such file or folder", path=model, remedy="check the path")
    raise UsageError(
        f"'{model}' is no model: give '{EMBEDDED}', a folder, a .gguf file or the name of a model on the hub (org/name)"
    )


def _from_folder(name: str, folder: Path) -> ModelSource:
    config = folder / "config.json"
    if not config.is_file():
        remedy = "give a folder with config.json and *.safetensors"
        if (folder / "adapter_config.json").is_file():
            remedy = "this is an adapter: give it with --adapter and its base model with --model"
        raise InputError("holds no config.json, so it is no model", path=folder, remedy=remedy)
    values = read_json(config)
    recorded = values.get("_name_or_path") if isinstance(values, dict) else None
    is_public = isinstance(recorded, str) and _PUBLIC_NAME.fullmatch(recorded)
    return ModelSource(name, str(folder), str(recorded) if is_public else folder.name)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer.

    Raises:
        InputError: When a folder holds none that can be read.
        UsageError: When the hub has none under that name or cannot be reached.
    """
    from transformers import AutoTokenizer

    with _reading(source, "the tokenizer"):
        return AutoTokenizer.from_pretrained(source.location, **_safe_options(source))


def load_model(source: ModelSource, *, dtype: torch.dtype | None = None, quantization: Any = None) -> PreTrainedModel:
    """Load a causal language model in evaluation mode, into the memory of the CPU.

    Its `name_or_path` is the public name, so that what PEFT writes about its base holds no local path.

    Args:
        source: From `resolve`.
        dtype: Of the weights; default fp32 on a CPU (bf16 is emulated on most, several times slower), bf16 where a
            CUDA device computes in it.
        quantization: A `BitsAndBytesConfig`; such a model is loaded onto this process's device at once.

    Raises:
        InputError: When a folder's files are missing, broken, incomplete or of an unknown architecture.
        UsageError: When the hub has no such model or cannot be reached.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype is None:
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = torch.bfloat16 if has_bf16 else torch.float32
    options = _safe_options(source)
    if quantization:
        device = int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.is_available() else "cpu"
        options |= {"quantization_config": quantization, "device_map": {"": device}}
    with _reading(source, "the model"):
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source.location, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True,
            **options,
        )  # fmt: skip
    # In the place of weights that are missing or misshapen, transformers goes on with random ones.
    if mismatched := sorted(name for name, *_ in loaded["mismatched_keys"]):
        raise _unreadable(source, "the model", f"{mismatched[0]} has not the shape that config.json asks for")
    if missing := sorted(loaded["missing_keys"]):
        raise _unreadable(source, "the model", f"lacks {len(missing)} weights, {missing[0]} among them")
    if unused := sorted(loaded["unexpected_keys"]):
        logger.warning("%s: %d weights are not used, %s among them", source.name, len(unused), unused[0])
    model.name_or_path = model.config._name_or_path = source.public_name
    return model


def _safe_options(source: ModelSource) -> dict[str, Any]:
    from huggingface_hub.constants import ENDPOINT

    return {
        "trust_remote_code": False,
        "local_files_only": source.is_local or not hub_can_be_found(ENDPOINT),
        "revision": source.revision or "main",
    }


def load_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """Put a PEFT adapter on its base model, for inference.

    Args:
        model: From `load_model`; changed in place.
        adapter: Folder with adapter_config.json and adapter_model.safetensors.

    Raises:
        InputError: When the folder is no adapter, is broken, holds values that are not finite, or was trained on
            another base.
    """
    from peft import PeftConfig, PeftModelForCausalLM
    from safetensors import SafetensorError

    base = adapter_settings(adapter).base_model_name_or_path
    # Another organisation's copy of a model is the same model, so only the last part of the name counts.
    if base and _last_part(base) != _last_part(model.name_or_path):
        raise InputError(
            f"was trained on {base}, not on {model.name_or_path}", path=adapter / "adapter_config.json",
            field="base_model_name_or_path", remedy="give --model its base, or mend the name if it is the same model",
        )  # fmt: skip
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        with warnings.catch_warnings():
            # PEFT's own use of what transformers renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            tuned = PeftModelForCausalLM(model, config)
        result = tuned.load_adapter(str(adapter), "default", torch_device=str(model.device))
    except SafetensorError as error:
        raise InputError(f"is broken: {_short(error)}", path=adapter / "adapter_model.safetensors") from error
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InputError(
            f"does not fit {model.name_or_path}: {_short(error)}", path=adapter, remedy="give --model its base"
        ) from error
    if strangers := [*result.missing_keys, *result.unexpected_keys]:
        raise InputError(
            f"does not fit {model.name_or_path}: {len(strangers)} weights have no match, {strangers[0]} among them",
            path=adapter, remedy="give --model its base",
        )  # fmt: skip
    for name, parameter in tuned.named_parameters():
        if "default" in name.split(".") and not parameter.isfinite().all():
            raise InputError(
                f"holds values that are not finite, in {name} among others", path=adapter / "adapter_model.safetensors",
                remedy="train it again with a lower --learning-rate",
            )  # fmt: skip
    return tuned


class AdapterSettings(BaseModel):
    """What is read here of PEFT's adapter_config.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    base_model_name_or_path: str | None = None
    peft_type: str = "LORA"
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None


def adapter_settings(adapter: Path) -> AdapterSettings:
    """What an adapter says of itself.

    Raises:
        InputError: When the folder is no adapter.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            problem = f"holds no {name}, so it is no adapter" if adapter.is_dir() else "no such folder"
            raise InputError(problem, path=adapter, remedy="give the folder adapter/ that `finetune train` wrote")
    path = adapter / "adapter_config.json"
    return validate(AdapterSettings, read_json(path), path=path)


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


class _RecordedBase(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    weights_sha256: str | None = None


class _Recorded(BaseModel):
    """selfinstruct.json, which `finetune train` and `finetune merge` write beside the weights."""

    model_config = ConfigDict(extra="ignore")

    template: Literal["alpaca", "chat", "plain"]
    template_sha256: str | None = None
    base: _RecordedBase = _RecordedBase()


RECORD = "selfinstruct.json"


def _recorded(folder: Path) -> _Recorded | None:
    path = folder / RECORD
    return validate(_Recorded, read_json(path), path=path) if path.exists() else None


def check_base(adapter: Path, source: ModelSource) -> None:
    """Make sure that a model's weights are those that an adapter was trained on, where both are known.

    Raises:
        InputError: When they are others, also under the same name.
    """
    recorded = _recorded(adapter)
    trained_on = recorded.base.weights_sha256 if recorded else None
    if recorded and trained_on and source.weights_sha256 not in (None, trained_on):
        raise InputError(
            f"was trained on other weights than those of {source.name} ({recorded.base.name}, SHA-256 "
            f"{trained_on[:16]}, not {str(source.weights_sha256)[:16]})",
            path=adapter / RECORD, field="base", remedy="give --model the base that it was trained on",
        )  # fmt: skip


def tokenizer_of(source: ModelSource, adapter: Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that an adapter was trained with, where it brought one, else the model's.

    Raises:
        InputError: When it cannot be read.
        UsageError: When the hub has none under that name or cannot be reached.
    """
    if adapter and (adapter / "tokenizer_config.json").is_file():
        return load_tokenizer(ModelSource(str(adapter), str(adapter), adapter.name))
    return load_tokenizer(source)


def renderer_of(
    tokenizer: PreTrainedTokenizerBase, source: ModelSource, adapter: Path | None = None, template: str = "auto"
) -> Renderer:
    """The renderer for a model with or without an adapter.

    Args:
        tokenizer: From `tokenizer_of`.
        source: The model, which may be a merged one and record its template, too.
        adapter: The adapter, if any.
        template: "auto" for the recorded one, else the chat template, or alpaca where there is none; or its name.

    Raises:
        InputError: When the recorded template is not the one that this tokenizer gives: the prompts would be others
            than those learnt from.
        UsageError: See `renderer_for`.
    """
    folder = adapter or (Path(source.location) if source.is_local else None)
    recorded = _recorded(folder) if folder else None
    if template != "auto" or not recorded:
        has_none = template == "auto" and not tokenizer.chat_template
        return renderer_for(tokenizer, "alpaca" if has_none else template)
    renderer = renderer_for(tokenizer, recorded.template)
    if folder and recorded.template_sha256 not in (None, renderer.sha256):
        raise InputError(
            f"was trained with another template than the tokenizer beside it holds (SHA-256 "
            f"{str(recorded.template_sha256)[:16]}, not {renderer.sha256[:16]})",
            path=folder / RECORD, field="template_sha256", remedy="restore its tokenizer and chat template",
        )  # fmt: skip
    return renderer


@contextmanager
def _reading(source: ModelSource, what: str) -> Iterator[None]:
    """Convert whatever transformers raises for files that it cannot use, and keep it off stderr."""
    with quiet():
        try:
            yield
        except Exception as error:
            if _is_out_of_memory(error) or _is_out_of_space(error):
                raise
            raise _unreadable(source, what, _short(error)) from error


def _unreadable(source: ModelSource, what: str, problem: str) -> UsageError:
    if source.is_local:
        remedy = "give a folder with config.json, *.safetensors and a tokenizer"
        return InputError(f"{what} cannot be used: {problem}", path=source.location, remedy=remedy)
    return UsageError(
        f"{what} of {source.name} cannot be had from the hub: {problem} (check the name and the connection, or give a "
        "local folder)"
    )


def _short(error: BaseException) -> str:
    """The first line of a message, and the second where the first only announces it."""
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (f"{first} {rest[0]}" if first.endswith(":") and rest else first).rstrip(" .")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports: what matters in them is raised or logged here."""
    from transformers.utils import logging as transformers_logging

    had_bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def _converted(gguf: Path) -> Path:
    """Folder with the fp32 copy of a GGUF file, made on first use; two processes make it once."""
    sha256 = sha256_file(gguf)
    folder = cache_folder() / "models" / f"{gguf.stem}-{sha256[:16]}-v{CONVERSION_VERSION}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(folder.parent / f".{folder.name}.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"the cache folder {cache_folder()} cannot be written ({error.strerror}); set SELFINSTRUCT_CACHE to another"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _convert(gguf, sha256, folder)
    return folder


def _convert(gguf: Path, sha256: str, folder: Path) -> None:
    """Convert, under the lock; the folder appears whole or not at all."""
    logger.info("converting %s to fp32 safetensors in %s, once", gguf.name, folder)
    # Always the same name, so that what a killed process left is removed by the next.
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with quiet():
            _write_converted(gguf, sha256, partial)
        for file in partial.iterdir():
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
        partial.replace(folder)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if _is_out_of_space(error):
            raise Error(
                f"no space left for the converted {gguf.name} in {folder.parent}; free some, or set SELFINSTRUCT_CACHE "
                "to another folder"
            ) from error
        if isinstance(error, Error | OSError):
            raise
        raise InputError(f"cannot be converted: {_short(error)}", path=gguf) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Also by torch's text: on a CPU it has no type of its own for this."""
    said = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def _is_out_of_space(error: Exception) -> bool:
    """Also through safetensors, which writes from Rust and tells the operating system's code in its text only."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in codes or any(f"(os error {code})" in str(error) for code in codes)


def _write_converted(gguf: Path, sha256: str, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    fields = GGUFReader(gguf).fields
    options = {"gguf_file": gguf.name, "local_files_only": True}
    # The progress bar of the dequantising is none of those that transformers can switch off.
    with redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **options
        )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    pre = fields.get("tokenizer.ggml.pre")
    _mend(tokenizer, pre.contents() if pre else None)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "config.json")
    config.pop("_model_name_or_path", None)
    config["_name_or_path"] = PUBLIC_NAME if sha256 == WEIGHTS_SHA256 else gguf.stem
    write_json(folder / "config.json", config)


def _mend(tokenizer: PreTrainedTokenizerBase, pre: str | None) -> None:
    r"""Split text before BPE as llama.cpp does: transformers does not read the file's `tokenizer.ggml.pre`.

    "smollm" splits off each digit (\p{N}) and then as GPT-2 does (llama.cpp, src/llama-vocab.cpp,
    LLAMA_VOCAB_PRE_TYPE_SMOLLM).
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if pre == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        )
    elif pre not in (None, "default", "llama-bpe"):
        logger.warning("the tokenizer of this GGUF file splits text by '%s', which the conversion may get wrong", pre)
