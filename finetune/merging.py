"""`finetune merge`: a base model and its adapter to one model folder, shown to give the same answers first.

The order of things: check, merge in fp32, compare, cast, save to a partial folder, load that again, compare again, and
only then let it appear.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from finetune.card import merged_card
from finetune.folder import publish
from finetune.models import (
    RECORD,
    ModelSource,
    adapter_settings,
    check_base,
    load_adapter,
    load_model,
    quiet,
    renderer_of,
    resolve,
    tokenizer_of,
)  # fmt: skip
from selfinstruct.command import Config
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import sha256_file, write_json, write_text
from selfinstruct.render import ALPACA_WITHOUT_INPUT, Renderer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.scoring import Tokens

logger = logging.getLogger(__name__)

# What the models are compared on: short and long, prose, lists, code, numbers, other scripts.
PROMPTS = (
    "Name three primary colours.",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Is this review positive or negative?\n\nThe room was clean, but nobody ever answered the phone.",
    "What is 17 times 23? Show the steps.",
    "Translate into French: Where is the nearest railway station?",
    "用一句话介绍长城。",
    "Turn into JSON with the fields name and age: Ada, who is 36.",
)
ANSWER_TOKENS = 24
# Most that a logit may differ, as a share of the largest logit. Rounding alone, measured on a 135M model with random
# adapters on all its linear layers, moved 2.4e-6 in fp32, 9.7e-4 in fp16 and 7.0e-3 in bf16; there 1.1% of the tokens
# changed places with one that was as likely.
TOLERANCE = {"float32": 5e-5, "float16": 5e-3, "bfloat16": 5e-2}


class MergeConfig(Config):
    """What to merge, and into what."""

    model: str = Field("embedded", description="Base model: embedded, a folder, a GGUF file, or a name on the hub.")
    adapter: Path = Field(description="Adapter to merge into it: the folder adapter/ of a training.")
    out: Path = Field(description="Folder for the merged model; must not exist.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the merged weights; auto is the base model's own."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; default as many as there are cores.")


@dataclass(frozen=True, slots=True)
class Parity:
    """How two models answered the same prompts.

    Attributes:
        tokens: Positions at which they were compared: one for each token of an answer.
        max_difference: Largest difference of two logits, as a share of the largest logit.
        agreement: Share of the positions at which both put the same token first, 0 to 1.
        lost: Largest lead, in the same unit, that a token lost where they did not.
    """

    tokens: int
    max_difference: float
    agreement: float
    lost: float


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """A merged model.

    Attributes:
        merged: Of the merged weights in fp32 against base and adapter.
        saved: Of the folder as it was loaded again, against base and adapter.
    """

    out: str
    base: str
    dtype: str
    template: str
    merged: Parity
    saved: Parity


def merge(config: MergeConfig) -> MergeSummary:
    """Merge an adapter into its base model, and write a model folder that answers the same.

    The base is loaded in fp32, whatever it is stored in, and the sum is rounded once. Base with adapter and merged
    model are compared on built-in prompts, before the cast and after loading what was written; nothing appears
    otherwise.

    Raises:
        InputError: For a model or an adapter that cannot be used, or that do not belong together.
        UsageError: When --out exists.
        Error: When the models do not answer the same.
    """
    if config.out.exists():
        raise UsageError(f"--out {config.out} exists; give a new folder")
    source = resolve(config.model)
    dtype = _checked_dtype(source, config)
    check_base(config.adapter, source)
    tokenizer = tokenizer_of(source, config.adapter)
    renderer = renderer_of(tokenizer, source, config.adapter)

    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    base = load_model(source, dtype=torch.float32)
    _check_embeddings(base, tokenizer, config.adapter)
    tuned = load_adapter(base, config.adapter)
    paths = _answers(tuned, tokenizer, renderer)
    expected = _logits(tuned, paths)
    try:
        merged = tuned.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise InputError(f"cannot be merged: {error}", path=config.adapter) from error
    in_memory = _parity(expected, _logits(merged, paths))
    _require(in_memory, "float32", "the merged weights do not", config)

    with _partial(config.out) as partial:
        _save(merged.to(getattr(torch, dtype)), tokenizer, renderer, partial)
        del base, tuned, merged
        written = load_model(ModelSource(str(partial), str(partial), source.public_name), dtype=torch.float32)
        saved = _parity(expected, _logits(written, paths))
        _require(saved, dtype, f"the folder, loaded again from {dtype}, does not", config)
        summary = MergeSummary(str(config.out), source.public_name, dtype, renderer.name, in_memory, saved)
        _describe_origin(source, config.adapter, renderer, summary, partial)
        publish(partial, config.out)
    return summary


def describe(result: MergeSummary) -> str:
    """The result of `merge` in words."""
    saved = result.saved
    return (
        f"merged into {result.out} ({result.dtype}, template {result.template})\n"
        f"compared with {result.base} and the adapter: {saved.agreement:.1%} of {saved.tokens} greedy tokens are the "
        f"same, logits differ by up to {saved.max_difference:.1e} of the largest ({result.merged.max_difference:.1e} "
        "before the cast)"
    )


def _checked_dtype(source: ModelSource, config: MergeConfig) -> str:
    """The type to write, once it is clear that base and adapter are of a kind that can be merged."""
    from transformers import AutoConfig

    settings = adapter_settings(config.adapter)
    if settings.peft_type != "LORA":
        raise InputError(
            f"is a {settings.peft_type} adapter, whose weights cannot be merged",
            path=config.adapter / "adapter_config.json", field="peft_type", remedy="give a LoRA adapter",
        )  # fmt: skip
    try:
        model = AutoConfig.from_pretrained(
            source.location, revision=source.revision or "main", local_files_only=source.is_local,
            trust_remote_code=False,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration of {source.name} cannot be used: {str(error).splitlines()[0]}") from error
    if getattr(model, "quantization_config", None) is not None:
        raise UsageError(
            f"{source.name} is quantised, so that what an adapter adds would be rounded away; give the model that it "
            "was made from"
        )
    own = str(model.get_text_config().dtype or "float32").removeprefix("torch.")
    dtype = own if config.dtype == "auto" else config.dtype
    if dtype not in TOLERANCE:
        raise UsageError(f"{source.name} is stored in {dtype}; give --dtype {', '.join(TOLERANCE)}")
    return dtype


def _check_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, adapter: Path) -> None:
    """Refuse adapters that a merge would spread, or that need tokens which the model has not.

    Where input and output embeddings are one tensor, what is added to one is added to both.
    """
    settings = adapter_settings(adapter)
    targets = settings.target_modules or []
    changed = {*([targets] if isinstance(targets, str) else targets), *(settings.modules_to_save or [])}
    embeddings = {name for name, module in model.named_modules() if _is_embedding(model, module)}
    ends = {name.rsplit(".", 1)[-1] for name in embeddings}
    is_adapted = changed & (ends | embeddings) or settings.trainable_token_indices
    if is_adapted and model.config.get_text_config().tie_word_embeddings:
        raise InputError(
            f"changes {', '.join(sorted(changed & ends)) or 'embeddings'}, which are one tensor in "
            f"{model.name_or_path}: merged, the change would act twice",
            path=adapter / "adapter_config.json", field="target_modules",
            remedy="use base model and adapter unmerged, or train without the embeddings",
        )  # fmt: skip
    n_embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > n_embeddings:
        raise InputError(
            f"has a tokenizer with {len(tokenizer)} tokens, the model has embeddings for {n_embeddings}", path=adapter,
            remedy="give the model that it was trained on",
        )  # fmt: skip


def _is_embedding(model: PreTrainedModel, module: Any) -> bool:
    return module is model.get_input_embeddings() or module is model.get_output_embeddings()


def _answers(model: Any, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> list[tuple[Tokens, Tokens]]:
    """(prompt, greedy answer) for each built-in prompt."""
    from finetune.scoring import encode, generate

    prompts = [encode(tokenizer, renderer.prompt(prompt, "")) for prompt in PROMPTS]
    answers = generate(model, prompts, max_new_tokens=ANSWER_TOKENS, eos_ids={tokenizer.eos_token_id})
    return list(zip(prompts, answers, strict=True))


def _logits(model: Any, paths: Sequence[tuple[Tokens, Tokens]]) -> torch.Tensor:
    """Logits before each token of the answers, (tokens, vocabulary).

    Every model gets the same tokens. Two that put the same token first after each prefix of an answer write the same
    answer.
    """
    import torch

    with torch.inference_mode():
        parts = [
            model(input_ids=torch.tensor([[*prompt, *answer[:-1]]])).logits[0, len(prompt) - 1 :].float()
            for prompt, answer in paths
        ]
    return torch.cat(parts)


def _parity(expected: torch.Tensor, found: torch.Tensor) -> Parity:
    """Compare logits, both (tokens, vocabulary)."""
    import torch

    if expected.shape != found.shape:
        raise Error("base model and merged model have different vocabularies")
    if not (expected.isfinite().all() and found.isfinite().all()):
        raise Error("the model's logits are no finite numbers; the weights of base model or adapter are broken")
    largest = expected.abs().max()
    first, other = expected.argmax(dim=-1), found.argmax(dim=-1)
    lead = expected.gather(1, first[:, None]) - expected.gather(1, other[:, None])
    return Parity(
        tokens=len(expected),
        max_difference=float((expected - found).abs().max() / largest),
        agreement=float((first == other).to(torch.float32).mean()),
        lost=float(lead.max() / largest),
    )


def _require(parity: Parity, dtype: str, what: str, config: MergeConfig) -> None:
    """Make sure that two models answer the same, up to rounding.

    Tokens whose lead is smaller than what rounding moves may change places; in fp32 none may.

    Raises:
        Error: When they do not.
    """
    tolerance = TOLERANCE[dtype]
    may_swap = dtype != "float32"
    if parity.max_difference <= tolerance and (parity.agreement == 1 or (may_swap and parity.lost <= tolerance)):
        return
    raise Error(
        f"{what} give the answers of {config.model} with {config.adapter}: {parity.agreement:.1%} of {parity.tokens} "
        f"greedy tokens are the same, logits differ by up to {parity.max_difference:.1e} of the largest, {tolerance:g} "
        f"is allowed in {dtype}; nothing was written"
        + ("" if dtype == "float32" else " (--dtype float32 rounds nothing away)")
    )


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """An empty folder beside --out, of the same name on each try, gone after a failure."""
    partial = out.absolute().with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(model: Any, tokenizer: Any, renderer: Renderer, folder: Path) -> None:
    """Write weights, configuration and tokenizer; what serves the folder finds the template in it."""
    if renderer.name != "chat":
        tokenizer.chat_template = chat_template(renderer)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def chat_template(renderer: Renderer) -> str:
    """The Alpaca or the plain template as a chat template, so that a chat endpoint gives the prompts learnt from.

    The text is that of `renderer.turns`; a system message, which Alpaca has none of, takes the place of the preamble.
    """
    if renderer.name == "plain":
        bos, eos = (_jinja_text(text) for text in (renderer.prompt("", ""), renderer.completion("", "", "")))
        return (
            f"{{{{ {bos} }}}}{{% for message in messages %}}{{{{ message['content'] }}}}"
            f"{{% if message['role'] == 'assistant' %}}{{{{ {eos} }}}}{{% endif %}}{{% endfor %}}"
        )
    preamble, _, _ = ALPACA_WITHOUT_INPUT.partition("### Instruction:")
    bos, _, _ = renderer.prompt("", "").partition(preamble)
    eos = renderer.completion("", "", "")
    bos, preamble, eos = ("{{ " + _jinja_text(text) + " }}" if text else "" for text in (bos, preamble, eos))
    return (
        f"{bos}{{% if messages[0]['role'] == 'system' %}}{{{{ messages[0]['content'] + '\\n\\n' }}}}"
        f"{{% else %}}{preamble}{{% endif %}}"
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ ('' if loop.first or loop.previtem['role'] == 'system' else '\\n\\n') + '### Instruction:\\n' "
        "+ message['content'] + '\\n\\n### Response:' }}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ message['content'] }}}}{eos}{{% endif %}}{{% endfor %}}"
    )


def _jinja_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _describe_origin(
    source: ModelSource, adapter: Path, renderer: Renderer, summary: MergeSummary, folder: Path
) -> None:
    """Write what the folder was made of, for people and for this project's commands."""
    sha256 = sha256_file(adapter / "adapter_model.safetensors")
    record = {
        "template": renderer.name,
        "template_sha256": renderer.sha256,
        "base": {"name": source.public_name, "weights_sha256": source.weights_sha256},
        "adapter": {"weights_sha256": sha256},
    }
    write_json(folder / RECORD, record)
    readme = adapter / "README.md"
    told = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    write_text(
        folder / "README.md",
        merged_card(
            base=source.public_name, dtype=summary.dtype, template=renderer.name, template_sha256=renderer.sha256,
            adapter_sha256=sha256, agreement=summary.saved.agreement, difference=summary.saved.max_difference,
            adapter_card=told,
        ),
    )  # fmt: skip
