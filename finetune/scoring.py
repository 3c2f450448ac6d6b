"""What a model makes of prompts: log-likelihoods of given options, and greedy answers; one batch at a time.

Batches are padded on the left, so that all prompts end in one column, with positions counted from each prompt's own
first token: a row's numbers do not depend on the rows beside it, up to floating-point rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from selfinstruct.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[int]


@dataclass(frozen=True, slots=True)
class EncodedOptions:
    """A prompt with the answers to rank after it, as token ids.

    Attributes:
        context: What all options have before them: the prompt, or all of it but its last tokens where an option's
            first letters merge with them.
        continuations: For each option the tokens after `context`.
        n_given: For each option how many of those are still the prompt's, and not scored.
    """

    context: Tokens
    continuations: tuple[Tokens, ...]
    n_given: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt with its longest option."""
        return len(self.context) + max(map(len, self.continuations))


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    """Token ids of a rendered text, whose special tokens stand in it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def encode_options(tokenizer: PreTrainedTokenizerBase, prompt: str, options: Sequence[str]) -> EncodedOptions:
    """Tokenise a prompt with each option appended directly to it.

    An option's tokens are those of prompt + option after their longest common prefix with the prompt's own, so that a
    token which spans both counts as the option's.

    Raises:
        UsageError: When the prompt or an option has no token of its own, so that there is nothing to rank.
    """
    alone = encode(tokenizer, prompt)
    whole = [encode(tokenizer, prompt + option) for option in options]
    shared = [_n_shared(alone, tokens) for tokens in whole]
    n_context = min(shared)
    if n_context == 0:
        raise UsageError(f"the prompt {prompt!r} has no token of its own before the options")
    for option, tokens, n_shared in zip(options, whole, shared, strict=True):
        if len(tokens) == n_shared:
            raise UsageError(f"the option {option!r} adds no token to its prompt, so it has no log-likelihood")
    return EncodedOptions(
        context=alone[:n_context],
        continuations=tuple(tokens[n_context:] for tokens in whole),
        n_given=tuple(n_shared - n_context for n_shared in shared),
    )


def _n_shared(first: Tokens, second: Tokens) -> int:
    """Length of the longest common prefix."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def plan_batches(sizes: Sequence[tuple[int, int]], max_tokens: int) -> list[list[int]]:
    """Group items of similar length.

    Args:
        sizes: (rows, tokens a row) of each item.
        max_tokens: Most tokens of a batch, padding included; an item larger than that has a batch of its own.

    Returns:
        Indices into `sizes`, the longest rows first.
    """
    batches: list[list[int]] = []
    n_rows = longest = 0
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i][1]):
        rows, tokens = sizes[index]
        if not batches or (n_rows + rows) * longest > max_tokens:
            batches.append([])
            n_rows, longest = 0, tokens
        batches[-1].append(index)
        n_rows += rows
    return batches


@torch.inference_mode()
def option_log_likelihoods(model: Any, items: Sequence[EncodedOptions]) -> list[list[float]]:
    """Summed log-likelihood of each option after its prompt.

    Each prompt runs through the model once; its keys and values are then repeated for its options. The last token of
    an option is predicted only, so options of one token need no second pass.

    Args:
        model: A causal language model, with or without adapter.
        items: One batch.

    Returns:
        Natural logarithms, in the order of items and options.
    """
    ids, mask = _left_padded([item.context for item in items], model.device)
    first, cache = _prefill(model, ids, mask)

    options = [option for item in items for option in item.continuations]
    n_tokens = torch.tensor([len(option) for option in options], device=model.device)
    n_given = torch.tensor([n for item in items for n in item.n_given], device=model.device)
    row_item = torch.tensor([i for i, item in enumerate(items) for _ in item.continuations], device=model.device)
    targets = _right_padded(options, model.device)  # (option, token)
    log_probs = _log_probs(first[row_item, None], targets[:, :1])
    fed = targets[:, :-1]
    if fed.shape[1]:
        cache.batch_select_indices(row_item)
        logits = model(
            input_ids=fed,
            # Padding comes after the options, where no token of theirs looks.
            attention_mask=torch.cat([mask[row_item], torch.ones_like(fed)], dim=1),
            position_ids=mask.sum(dim=1)[row_item, None] + torch.arange(fed.shape[1], device=model.device),
            past_key_values=cache,
        ).logits
        log_probs = torch.cat([log_probs, _log_probs(logits, targets[:, 1:])], dim=1)
    columns = torch.arange(targets.shape[1], device=model.device)
    is_scored = (columns >= n_given[:, None]) & (columns < n_tokens[:, None])
    sums = iter(log_probs.masked_fill(~is_scored, 0.0).sum(dim=1).tolist())
    return [[next(sums) for _ in item.continuations] for item in items]


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[Tokens], *, max_new_tokens: int, eos_ids: Collection[int]) -> list[Tokens]:
    """Greedy answers; a finished answer leaves the batch, so that only unfinished ones are computed.

    Args:
        model: A causal language model, with or without adapter.
        prompts: One batch.
        max_new_tokens: Most tokens of an answer.
        eos_ids: Tokens that end an answer.

    Returns:
        The new tokens of each prompt, with the token that ended them as the last one; where there is none, the answer
        was cut at `max_new_tokens`.
    """
    ids, mask = _left_padded(prompts, model.device)
    logits, cache = _prefill(model, ids, mask)
    positions = mask.sum(dim=1, keepdim=True)
    answers: list[Tokens] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    while True:
        tokens = logits.argmax(dim=-1)
        for row, token in zip(active, tokens.tolist(), strict=True):
            answers[row].append(token)
        kept = [i for i, row in enumerate(active) if answers[row][-1] not in eos_ids]
        if not kept or len(answers[active[kept[0]]]) == max_new_tokens:
            return answers
        if len(kept) < len(active):
            active = [active[i] for i in kept]
            index = torch.tensor(kept, device=model.device)
            cache.batch_select_indices(index)
            tokens, mask, positions = tokens[index], mask[index], positions[index]
        mask = torch.cat([mask, torch.ones_like(positions)], dim=1)
        logits = model(
            input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache
        ).logits[:, -1]
        positions = positions + 1


def _prefill(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """(logits after each prompt (row, vocabulary), cache of the prompts)."""
    outputs = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
        **({"logits_to_keep": 1} if "logits_to_keep" in _parameters(model) else {}),
    )
    return outputs.logits[:, -1], outputs.past_key_values


def _parameters(model: Any) -> Collection[str]:
    """What the architecture's forward takes, also below an adapter, whose own forward takes anything."""
    base: Callable[[], Any] = getattr(model, "get_base_model", lambda: model)
    return inspect.signature(base().forward).parameters


def _log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability, in fp32, of each target; logits (row, token, vocabulary), targets (row, token)."""
    logits = logits.float()
    return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(dim=-1)


def _left_padded(rows: Sequence[Tokens], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (row, longest); padding is told by the mask alone, so any id does for it."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _right_padded(rows: Sequence[Tokens], device: torch.device) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
