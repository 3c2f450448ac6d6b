"""The converted tokenizer against llama.cpp's own, which reads the same file as its authors meant it."""

import json
import re
import urllib.request
from itertools import product

import pytest

from finetune.models import load_tokenizer, resolve
from selfinstruct.embedded import weights

# Words of several scripts, contractions, digits of several kinds, marks, spaces, line ends, code, a character of the
# chat template: each stands alone and in every frame.
PIECES = (
    "hello", "Hello World", "don't we'll I've", "naïve café", "Straße", "İstanbul", "Привет мир", "γειά σου", "שלום",
    "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดี", "你好，世界", "こんにちは", "안녕하세요", "👍🏽 🇫🇷",
    "1", "12", "123", "2024-05-17", "3.14159", "1,000,000", "v2.0.1", "٣٤٥", "Ⅻ ½ ²", "a1b2c3", "100%", "$5.00",
    "x == y", "def f(x):\n    return x**2", "a\tb", "if (a<b) { c[0]++; }", "https://example.org/?q=1&r=2",
    "C:\\temp\\new", "__init__", "user@example.org", "...", "!?!?", "“quoted”", "—",
    "\u00a0nbsp", "e\u0301", "\u200bzero width", "<|im_start|>user",
)  # fmt: skip
FRAMES = ("{}", " {}", "\n\n{}", "1. {}\n2. {}", "  {}  \n", "{}7")
TEXTS = [
    *(frame.replace("{}", piece) for frame, piece in product(FRAMES, PIECES)),
    "", " ", "   ", "\n", "\n\n", "\n\n1.", "\r\n", "\t\t", "Task 9:\n\n1. One\n2. Two\n\n10. Ten\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def expected(embedded_server):
    """Ids of every text as the server makes them."""

    def tokenize(text):
        request = urllib.request.Request(
            embedded_server.base_url.removesuffix("/v1") + "/tokenize",
            json.dumps({"content": text, "add_special": False, "parse_special": True}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)["tokens"]

    return [tokenize(text) for text in TEXTS]


def differing(tokenizer, expected):
    ids = tokenizer(TEXTS, add_special_tokens=False).input_ids
    return [text for text, one, other in zip(TEXTS, ids, expected, strict=True) if one != other]


def test_there_are_enough_texts():
    assert len(set(TEXTS)) >= 200


def test_ids_are_those_of_the_server(expected):
    assert differing(load_tokenizer(resolve("embedded")), expected) == []


def test_any_program_that_opens_the_folder_gets_the_same_ids(expected, embedded_folder):
    from transformers import AutoTokenizer

    assert differing(AutoTokenizer.from_pretrained(embedded_folder), expected) == []


def test_without_mending_they_differ(expected):
    from transformers import AutoTokenizer

    file = weights()
    unmended = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert "\n\n1." in differing(unmended, expected)


def test_decoding_gives_the_text_back(embedded_folder):
    tokenizer = load_tokenizer(resolve(str(embedded_folder)))
    ids = tokenizer(TEXTS, add_special_tokens=False).input_ids
    assert tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False) == TEXTS


def test_chat_prompts_have_as_many_tokens_as_the_server_counts(embedded_server):
    import openai

    messages = [{"role": "user", "content": "Add 12 and 345.\n\n1. First"}]
    rendered = load_tokenizer(resolve("embedded")).apply_chat_template(messages, add_generation_prompt=True)
    with openai.OpenAI(base_url=embedded_server.base_url, api_key="none") as client:
        reply = client.chat.completions.create(model="embedded", messages=messages, max_tokens=1)
    assert reply.usage.prompt_tokens == len(rendered["input_ids"])


def test_special_tokens(embedded_folder):
    tokenizer = load_tokenizer(resolve("embedded"))
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer("hello").input_ids[:1] != [tokenizer.bos_token_id]
    assert tokenizer.model_max_length == 8192
    assert re.search(r"add_generation_prompt", tokenizer.chat_template)
