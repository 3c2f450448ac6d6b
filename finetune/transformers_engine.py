"""The engine that computes here, with transformers, on a GPU or the CPU: ranks options and generates greedy answers."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finetune.answers import Answer
from finetune.engines import KeepAnswers
from finetune.models import ModelSource, check_base, load_adapter, load_model, renderer_of, resolve, tokenizer_of
from finetune.questions import Question
from selfinstruct.asking import Spent
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.scoring import EncodedOptions, Tokens

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Batch = list[int]


class TransformersEngine:
    """A model on this machine; an adapter is put on it, not merged into it.

    A batch for which memory does not suffice is halved, and so are those after it; the answers stay the same.

    Args:
        model: As `models.resolve` takes it.
        adapter: Folder of a PEFT adapter.
        template: As `models.renderer_of` takes it.
        max_new_tokens: Most tokens of a generated answer.
        batch_tokens: Most tokens of a batch, with padding and longest answers.
        threads: CPU threads; None for as many as there are cores.

    Raises:
        InputError: For a model, tokenizer or adapter that cannot be read.
        UsageError: For a name that is no model.
    """

    ranks = True
    packages: tuple[str, ...] = ("torch", "transformers", "peft")
    spent: Spent | None = None

    def __init__(
        self, model: str, adapter: Path | None, template: str, max_new_tokens: int, batch_tokens: int,
        threads: int | None,
    ) -> None:  # fmt: skip
        import torch

        self._source = resolve(model)
        self._adapter, self._threads = adapter, threads
        self._max_new_tokens, self._batch_tokens = max_new_tokens, batch_tokens
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.location = self._source.public_name, self._source.location
        self.identity: Mapping[str, Any] = {
            "model": self.model,
            "weights": self._source.weights_sha256 or self._source.revision or NEWEST,
            "adapter": "none" if adapter is None else _adapter_sha256(adapter),
            "device": self._device,
        }
        if adapter is not None:
            check_base(adapter, self._source)
        self._tokenizer = tokenizer_of(self._source, adapter)
        self.renderer = renderer_of(self._tokenizer, self._source, adapter, template)
        self._context_length = _context_length(self._source)
        self._model: Any = None
        self._encoded: dict[tuple[str, tuple[str, ...]], EncodedOptions | Tokens] = {}

    def problem(self, question: Question) -> str | None:
        """Why a question cannot be put to the model at all; None when it can."""
        encoded = self._encode(question)
        n_tokens = len(encoded) + self._max_new_tokens if isinstance(encoded, list) else encoded.n_tokens
        if self._context_length is None or n_tokens <= self._context_length:
            return None
        return f"takes {n_tokens} tokens with its answer, the model's context is {self._context_length}"

    def answer(self, questions: Mapping[int, Question], keep: KeepAnswers) -> None:
        """Answer questions, those with options to rank first; see `Engine`.

        Raises:
            Error: When memory does not suffice for a single question, or the model's numbers are broken.
        """
        from finetune import scoring

        model = self.load()
        options, prompts = {}, {}
        for index, question in questions.items():
            encoded = self._encode(question)
            if isinstance(encoded, list):
                prompts[index] = encoded
            else:
                options[index] = encoded

        scorer = scoring.OptionScorer(model)

        def rank(batch: Batch, following: Batch) -> list[list[float]]:
            return scorer([options[i] for i in batch], [options[i] for i in following])

        def plan_ranked(left: Batch, max_tokens: int) -> list[Batch]:
            packs = scoring.plan_packs([options[i] for i in left], max_tokens)
            return [[left[place] for place in pack] for pack in packs]

        pack_tokens = min(self._batch_tokens, scoring.pack_tokens(self._device))
        for batch, scores in _in_batches(list(options), plan_ranked, pack_tokens, rank):
            keep({i: _ranked(questions[i], options[i], s) for i, s in zip(batch, scores, strict=True)})

        eos_ids = _eos_ids(model, self._tokenizer)

        def generate(batch: Batch, following: Batch) -> list[Tokens]:
            asked = [prompts[i] for i in batch]
            return scoring.generate(model, asked, max_new_tokens=self._max_new_tokens, eos_ids=eos_ids)

        def plan_generated(left: Batch, max_tokens: int) -> list[Batch]:
            sizes = [len(prompts[i]) + self._max_new_tokens for i in left]
            return [[left[place] for place in batch] for batch in scoring.plan_batches(sizes, max_tokens)]

        for batch, answers in _in_batches(list(prompts), plan_generated, self._batch_tokens, generate):
            keep({i: self._generated(prompts[i], a, eos_ids) for i, a in zip(batch, answers, strict=True)})

    def _encode(self, question: Question) -> EncodedOptions | Tokens:
        """Token ids; kept, since they are needed to tell what fits, and then again."""
        from finetune.scoring import encode, encode_options

        key = question.prompt, question.item.options if question.is_ranked else ()
        if key not in self._encoded:
            self._encoded[key] = encode_options(self._tokenizer, *key) if key[1] else encode(self._tokenizer, key[0])
        return self._encoded[key]

    def load(self) -> Any:
        """The model with its adapter, ready to compute; `answer` does so by itself."""
        import torch

        if self._model is not None:
            return self._model
        if self._threads:
            torch.set_num_threads(self._threads)
        model: Any = load_model(self._source).to(self._device)
        if self._adapter is not None:
            model = load_adapter(model, self._adapter)
        self._model = model.eval()
        return self._model

    def _generated(self, prompt: Tokens, answer: Tokens, eos_ids: set[int]) -> Answer:
        return Answer(
            text=self._tokenizer.decode(answer, skip_special_tokens=True).strip(),
            stop="eos" if answer[-1] in eos_ids else "length",
            prompt_tokens=len(prompt),
            answer_tokens=len(answer),
        )


NEWEST = "newest on the hub"
"""In the place of the weights in an identity that does not tell which they are."""


def _in_batches(
    indices: Batch, plan: Callable[[Batch, int], list[Batch]], max_tokens: int,
    compute: Callable[[Batch, Batch], list[ResultT]],
) -> Iterator[tuple[Batch, list[ResultT]]]:  # fmt: skip
    """Compute batch after batch; where memory runs out, go on with smaller ones.

    Args:
        indices: Of what is computed.
        plan: Makes batches of at most so many tokens.
        max_tokens: To begin with.
        compute: Is given a batch and the one after it.

    Raises:
        Error: When memory does not suffice for a batch of one.
    """
    batches = deque(plan(indices, max_tokens)) if indices else deque()
    while batches:
        batch = batches.popleft()
        results = _unless_out_of_memory(lambda: compute(batch, batches[0] if batches else []))  # noqa: B023
        if results is not None:
            yield batch, results
            continue
        if len(batch) == 1:
            raise Error("memory does not suffice for one item by itself; lower --max-new-tokens or use a smaller model")
        max_tokens //= 2
        logger.info("out of memory; going on with batches of at most %d tokens", max_tokens)
        batches = deque(plan([*batch, *(index for later in batches for index in later)], max_tokens))


def _unless_out_of_memory(compute: Callable[[], ResultT]) -> ResultT | None:
    """The result; None when memory ran out, which is free again then."""
    import torch

    try:
        return compute()
    except RuntimeError as error:
        # On a CPU it is no error of its own kind.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
    # Only here, where the error has let go of the tensors.
    torch.cuda.empty_cache()
    return None


def _ranked(question: Question, encoded: EncodedOptions, scores: Sequence[float]) -> Answer:
    if not all(map(math.isfinite, scores)):
        raise Error(
            f"the model's log-likelihoods for item '{question.item.id}' are no finite numbers; its weights are broken"
        )
    return Answer(prompt_tokens=min(encoded.n_given), option_scores=tuple(scores), option_tokens=encoded.n_scored)


def _adapter_sha256(adapter: Path) -> str:
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(
            f"holds no {weights.name}, so it is no adapter" if adapter.is_dir() else "no such folder",
            path=adapter, remedy="give the folder adapter/ that `finetune train` wrote",
        )  # fmt: skip
    return sha256_file(weights)


def _context_length(source: ModelSource) -> int | None:
    """Most tokens that the model takes; None where its configuration sets no limit."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            source.location,
            revision=source.revision or "main",
            local_files_only=source.is_local,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise UsageError(f"the configuration of {source.name} cannot be used: {problem}") from error
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _eos_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's authors set for generation."""
    ended = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ended if isinstance(ended, list) else [ended])} - {None}
