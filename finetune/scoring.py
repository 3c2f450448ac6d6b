"""What a model makes of prompts: log-likelihoods of given options, and greedy answers; one batch at a time.

Options are scored on a tree of tokens: what several sequences begin with (a prompt, the demonstrations of a task) is
computed once, and each option sees its own prompt and itself only, by its mask. Generated answers are batched with
padding on the left, so that all prompts end in one column. Positions are counted from each prompt's own first token:
numbers do not depend on what is computed together, up to floating-point rounding.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfinstruct.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[int]

# Tokens of one pass over a tree: enough to keep the device busy, and mask and attention grow with the square.
CPU_PACK_TOKENS, GPU_PACK_TOKENS = 512, 4096
# A shorter opening that prompts share is computed again rather than kept.
MIN_SHARED = 16


@dataclass(frozen=True, slots=True)
class EncodedOptions:
    """A prompt with each of the answers to rank after it, as token ids.

    Attributes:
        sequences: The prompt with each option.
        n_given: For each how many tokens are the prompt's, and not scored.
    """

    sequences: tuple[Tokens, ...]
    n_given: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt with its longest option."""
        return max(map(len, self.sequences))

    @property
    def n_scored(self) -> tuple[int, ...]:
        """Tokens of each option."""
        return tuple(len(tokens) - n for tokens, n in zip(self.sequences, self.n_given, strict=True))


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
    sequences = tuple(encode(tokenizer, prompt + option) for option in options)
    n_given = tuple(_n_shared(alone, tokens) for tokens in sequences)
    if min(n_given) == 0:
        raise UsageError(f"the prompt {prompt!r} has no token of its own before the options")
    for option, tokens, n in zip(options, sequences, n_given, strict=True):
        if len(tokens) == n:
            raise UsageError(f"the option {option!r} adds no token to its prompt, so it has no log-likelihood")
    return EncodedOptions(sequences, n_given)


def _n_shared(first: Tokens, second: Tokens) -> int:
    """Length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def plan_batches(sizes: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group prompts of similar length.

    Args:
        sizes: Tokens of each, with its longest answer.
        max_tokens: Most tokens of a batch, padding included; one larger than that has a batch of its own.

    Returns:
        Indices into `sizes`, the longest first.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if not batches or (len(batches[-1]) + 1) * longest > max_tokens:
            batches.append([])
            longest = sizes[index]
        batches[-1].append(index)
    return batches


def pack_tokens(device: str) -> int:
    """Most tokens of a pass over a tree on a type of device."""
    return CPU_PACK_TOKENS if device == "cpu" else GPU_PACK_TOKENS


def plan_packs(items: Sequence[EncodedOptions], max_tokens: int) -> list[list[int]]:
    """Group prompts that begin alike, for `OptionScorer`.

    A pack ends early where the next prompt begins so differently that more would be computed again than fits.

    Args:
        items: Prompts with their options.
        max_tokens: Most tokens of a pack, without what its first prompt shares with the one before; a prompt larger
            than that has a pack of its own.

    Returns:
        Indices into `items`, in the order of their tokens.
    """
    packs: list[list[int]] = []
    room = n_common = 0
    before: Tokens = []
    for index in sorted(range(len(items)), key=lambda i: items[i].sequences[0]):
        item = items[index]
        n_prompt = min(item.n_given)
        n_shared = min(n_prompt, _n_shared(before, item.sequences[0]))
        n_new = n_prompt - n_shared + sum(len(tokens) - n_prompt for tokens in item.sequences)
        is_worse = len(packs[-1]) > 1 and n_common - n_shared > room if packs else False
        if not packs or n_new > room or is_worse:
            packs.append([])
            room, n_common = max_tokens, n_prompt
        else:
            n_common = min(n_common, n_shared)
        packs[-1].append(index)
        room -= n_new
        before = item.sequences[0]
    return packs


class TokenTree:
    """Sequences of tokens with every common beginning stored once.

    Args:
        sequences: At least one.
        n_root: Tokens that all of them begin with and that are computed elsewhere.

    Attributes:
        tokens: Of each node; a parent stands before its children.
        positions: Of each node in its sequences.
        paths: For each sequence its nodes.
    """

    def __init__(self, sequences: Sequence[Tokens], n_root: int = 0) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.paths: list[list[int]] = []
        self._n_root = n_root
        self._parents: list[int] = []
        children: dict[tuple[int, int], int] = {}
        for sequence in sequences:
            node, path = -1, []
            for position in range(n_root, len(sequence)):
                step = (node, sequence[position])
                if step not in children:
                    children[step] = len(self.tokens)
                    self.tokens.append(sequence[position])
                    self.positions.append(position)
                    self._parents.append(node)
                node = children[step]
                path.append(node)
            self.paths.append(path)

    def visible(self) -> NDArray[np.bool_]:
        """Which tokens each node sees: the root's, its ancestors and itself; shape (node, root + node)."""
        n = len(self.tokens)
        seen = np.zeros((n, self._n_root + n), dtype=bool)
        seen[:, : self._n_root] = True
        for node, parent in enumerate(self._parents):
            if parent >= 0:
                seen[node] = seen[parent]
            seen[node, self._n_root + node] = True
        return seen


class TreePass:
    """A model's passes over trees of tokens, pack by pack.

    What a whole run of packs begins with (a task's instruction and demonstrations) is computed once and kept.

    Args:
        model: A causal language model for which `takes_trees`, with or without adapter.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._root: Tokens = []
        self._root_cache: Any = None

    def tree(self, items: Sequence[EncodedOptions], following: Sequence[EncodedOptions]) -> tuple[TokenTree, int]:
        """The tree of a pack's sequences, behind as many tokens as are kept of what they begin with.

        Args:
            items: One pack.
            following: The next pack, so that what both begin with is kept.
        """
        n_root = self._choose_root(items, following)
        return TokenTree([tokens for item in items for tokens in item.sequences], n_root), n_root

    def _choose_root(self, items: Sequence[EncodedOptions], following: Sequence[EncodedOptions]) -> int:
        wanted = _n_common([*items, *following]) if following else 0
        usable = min(_n_common(items), _n_shared(self._root, items[0].sequences[0]))
        if usable >= max(MIN_SHARED, wanted / 2):
            return usable
        if wanted < MIN_SHARED:
            return 0
        root = items[0].sequences[0][:wanted]
        ids = torch.tensor([root], device=self._model.device)
        self._root_cache = self._model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        self._root = root  # only now: memory may have run out before
        return wanted

    def __call__(
        self, tree: TokenTree, n_root: int, nodes: Sequence[int], *, use_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """(Logits after some nodes (node, vocabulary), cache of the root and all nodes if it is wanted)."""
        model = self._model
        hidden = torch.from_numpy(~tree.visible()).to(model.device)
        mask = torch.zeros(hidden.shape, dtype=model.dtype, device=model.device)
        mask = mask.masked_fill_(hidden, torch.finfo(model.dtype).min)
        outputs = model(
            input_ids=torch.tensor([tree.tokens], device=model.device),
            attention_mask=mask[None, None],
            position_ids=torch.tensor([tree.positions], device=model.device),
            past_key_values=_beginning(self._root_cache, n_root) if n_root else None,
            use_cache=use_cache or n_root > 0,
            logits_to_keep=torch.tensor(nodes, device=model.device),
        )
        return outputs.logits[0], outputs.past_key_values


class OptionScorer:
    """Log-likelihoods of options, pack by pack.

    An architecture whose attention no mask can steer (sliding windows, recurrent layers) computes each sequence by
    itself.

    Args:
        model: A causal language model, with or without adapter.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._trees = TreePass(model) if takes_trees(model) else None

    @torch.inference_mode()
    def __call__(self, items: Sequence[EncodedOptions], following: Sequence[EncodedOptions] = ()) -> list[list[float]]:
        """Summed log-likelihood of each option after its prompt.

        Args:
            items: One pack.
            following: The next pack, so that what both begin with is kept.

        Returns:
            Natural logarithms, in the order of items and options.
        """
        if self._trees is None:
            return [self._one_by_one(item) for item in items]
        sequences = [tokens for item in items for tokens in item.sequences]
        given = [n for item in items for n in item.n_given]
        tree, n_root = self._trees.tree(items, following)
        # Each scored token with the node that predicts it.
        predicted = [
            (path[n - 1 - n_root + step], tokens[n + step])
            for path, tokens, n in zip(tree.paths, sequences, given, strict=True)
            for step in range(len(tokens) - n)
        ]
        nodes = sorted({node for node, _ in predicted})
        row = {node: i for i, node in enumerate(nodes)}
        logits, _ = self._trees(tree, n_root, nodes)
        log_probs = iter(_log_probs(logits, [row[node] for node, _ in predicted], [token for _, token in predicted]))
        sums = iter(
            sum(next(log_probs) for _ in range(len(tokens) - n)) for tokens, n in zip(sequences, given, strict=True)
        )
        return [[next(sums) for _ in item.sequences] for item in items]

    def _one_by_one(self, item: EncodedOptions) -> list[float]:
        scores = []
        for tokens, n in zip(item.sequences, item.n_given, strict=True):
            logits = self._model(input_ids=torch.tensor([tokens], device=self._model.device)).logits[0]
            scores.append(sum(_log_probs(logits, range(n - 1, len(tokens) - 1), tokens[n:])))
        return scores


def takes_trees(model: Any) -> bool:
    """Whether mask and positions steer all that a token sees: no sliding window, no recurrence, no fixed biases."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = model.config.get_text_config()
    return (
        {"position_ids", "logits_to_keep", "past_key_values"} <= set(_parameters(model))
        and config._attn_implementation in ("sdpa", "eager")
        and not getattr(config, "alibi", False)
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    )


def _n_common(items: Sequence[EncodedOptions]) -> int:
    """Tokens that all prompts begin with; short of each prompt's last, which predicts its options' first."""
    first, *others = [item.sequences[0] for item in items]
    shortest = min(n for item in items for n in item.n_given) - 1
    return min([shortest, *(_n_shared(first, other) for other in others)])


def _beginning(cache: Any, n_tokens: int) -> Any:
    """The keys and values of the first tokens, in a cache that may grow by itself."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        layer.keys, layer.values = layer.keys[:, :, :n_tokens], layer.values[:, :, :n_tokens]
    return twin


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
    logits, cache, mask = (_prefill_trees if takes_trees(model) else _prefill_padded)(model, prompts)
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


Prefilled = tuple[torch.Tensor, Any, torch.Tensor]
"""(Logits after each prompt (row, vocabulary), cache of the prompts, padded on the left, their mask (row, token))."""


def _prefill_trees(model: Any, prompts: Sequence[Tokens]) -> Prefilled:
    """What prompts begin with alike is computed once, and padding is not computed at all."""
    from transformers import DynamicCache

    ids, mask = _left_padded(prompts, model.device)
    items = [EncodedOptions((prompt,), (len(prompt),)) for prompt in prompts]
    packs = plan_packs(items, pack_tokens(model.device.type))
    trees = TreePass(model)
    logits, keys, values = [], [], []
    for pack, following in zip(packs, [*packs[1:], []], strict=True):
        tree, n_root = trees.tree([items[i] for i in pack], [items[i] for i in following])
        last, nodes = trees(tree, n_root, [path[-1] for path in tree.paths], use_cache=True)
        places = [[*range(n_root), *(n_root + node for node in path)] for path in tree.paths]
        padded, _ = _left_padded(places, ids.device, ids.shape[1])
        logits.append(last)
        keys.append([layer.keys[0][:, padded] for layer in nodes.layers])
        values.append([layer.values[0][:, padded] for layer in nodes.layers])
    # From the order of the packs to that of the prompts.
    order = torch.tensor([i for pack in packs for i in pack], device=ids.device).argsort()
    cache = DynamicCache()
    for number, (k, v) in enumerate(zip(zip(*keys, strict=True), zip(*values, strict=True), strict=True)):
        cache.update(torch.cat(k, 1)[:, order].transpose(0, 1), torch.cat(v, 1)[:, order].transpose(0, 1), number)
    return torch.cat(logits)[order], cache, mask


def _prefill_padded(model: Any, prompts: Sequence[Tokens]) -> Prefilled:
    ids, mask = _left_padded(prompts, model.device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    outputs = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **_last_logits(model))
    return outputs.logits[:, -1], outputs.past_key_values, mask


def _last_logits(model: Any) -> dict[str, int]:
    """Asks for the logits of the last position only, where the architecture can."""
    return {"logits_to_keep": 1} if "logits_to_keep" in _parameters(model) else {}


def _parameters(model: Any) -> Collection[str]:
    """What the architecture's forward takes, also below an adapter, whose own forward takes anything."""
    base: Callable[[], Any] = getattr(model, "get_base_model", lambda: model)
    return inspect.signature(base().forward).parameters


def _log_probs(logits: torch.Tensor, rows: Sequence[int], targets: Sequence[int]) -> list[float]:
    """Log-probability, in fp32, of each target by its row of the logits (row, vocabulary)."""
    logits = logits.float()
    picked = logits[list(rows), list(targets)] - logits.logsumexp(dim=-1)[list(rows)]
    values: list[float] = picked.tolist()
    return values


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device, longest: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (row, longest); padding is told by the mask alone, so any id does for it."""
    longest = max([longest, *map(len, rows)])
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
