"""A random tiny LLaMA with its own tokenizer and chat template: everything a real model folder has, in 0.3 s."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction:\n### Input:\n### Response:",
    "Name the capital of the country. Translate the sentence. Is this review positive or negative?",
)


def build_tiny_llama(
    folder: Path, *, bos: bool = False, chat_template: str | None = CHAT_TEMPLATE, hidden_size: int = 32, seed: int = 0
) -> Path:
    """Write a model folder: safetensors weights, configuration, byte-level BPE tokenizer, chat template.

    The padding token is the end-of-sequence token, <|im_end|>, as in many real models.

    Args:
        folder: Where to write; made if missing.
        bos: The tokenizer puts <s> before every text that is tokenised with special tokens.
        chat_template: Jinja source; None for a base model.
        hidden_size: Width of the model; it has 2 layers with 2 heads.
        seed: Of the random weights.

    Returns:
        The folder.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    specials = ["<|im_start|>", "<|im_end|>", "<s>"]
    backend.train_from_iterator(
        CORPUS,
        BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=ByteLevel.alphabet(), show_progress=False),
    )
    if bos:
        backend.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<s>" if bos else None,
        additional_special_tokens=["<|im_start|>"],
        model_max_length=512,
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden_size,
                intermediate_size=2 * hidden_size,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=512,
                tie_word_embeddings=True,
                initializer_range=0.1,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    # As they come, no token could get a high probability from so narrow a model, and an adapter, which leaves the
    # embeddings as they are, could learn nothing.
    model.get_input_embeddings().weight.data *= 4
    # Not earlier: the embedding of a padding token starts as zero, and here it is the end-of-sequence token's.
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    return folder
