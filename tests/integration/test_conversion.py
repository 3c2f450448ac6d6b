"""GGUF to safetensors: the same model, made once, whole or not at all."""

import fcntl
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from finetune.models import load_model, load_tokenizer, resolve
from selfinstruct.embedded import PUBLIC_NAME
from selfinstruct.errors import InputError
from tests.tiny import build_tiny_llama

RESOLVE = """
import sys
from finetune.models import resolve
print("asking", flush=True)
print(resolve(sys.argv[1]).location)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def gguf(tiny, tmp_path_factory):
    return write_gguf(tiny, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def write_gguf(folder, path):
    """A model folder as GGUF, with llama.cpp's names and its order of the rows of q and k."""
    from gguf import GGUFWriter

    source = resolve(str(folder))
    model, tokenizer = load_model(source), load_tokenizer(source)
    config = model.config
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)

    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    weights = model.model.state_dict()
    writer.add_tensor("token_embd.weight", weights["embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", weights["norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for theirs, ours in names.items():
            values = weights[f"layers.{layer}.{theirs}.weight"].numpy()
            if ours in ("attn_q", "attn_k"):
                n_heads = config.num_attention_heads if ours == "attn_q" else config.num_key_value_heads
                halves = values.reshape(n_heads, 2, values.shape[0] // n_heads // 2, values.shape[1])
                values = halves.swapaxes(1, 2).reshape(values.shape)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def left_behind(cache):
    """What a conversion left: all but the lock files."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_the_converted_model_is_the_same_model(tiny, gguf, cache, capfd):
    source = resolve(str(gguf))
    assert capfd.readouterr() == ("", "")
    assert Path(source.location).parent == cache
    assert source.public_name == "tiny"
    ids = torch.tensor([[5, 60, 7, 80, 9]])
    with torch.no_grad():
        expected, found = (load_model(each)(ids).logits for each in (resolve(str(tiny)), source))
    assert torch.equal(found, expected)


def test_the_copy_is_made_once(gguf, cache):
    location = Path(resolve(str(gguf)).location)
    made = (location / "model.safetensors").stat()
    assert resolve(str(gguf)).location == str(location)
    assert (location / "model.safetensors").stat() == made


def test_processes_that_want_it_at_once_wait_for_one(gguf, cache):
    location = Path(resolve(str(gguf)).location)
    shutil.rmtree(location)
    with open(location.with_name(f".{location.name}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asking = [
            subprocess.Popen([sys.executable, "-c", RESOLVE, str(gguf)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        assert [process.stdout.readline() for process in asking] == ["asking\n"] * 2
        time.sleep(0.5)
        assert left_behind(cache) == []
    assert [process.communicate(timeout=120)[0] for process in asking] == [f"{location}\n"] * 2
    assert left_behind(cache) == [location.name]


def test_what_a_killed_process_left_is_replaced(gguf, cache):
    location = Path(resolve(str(gguf)).location)
    partial = location.with_name(f".{location.name}.partial")
    location.rename(partial)
    (partial / "model.safetensors").write_bytes(b"half")
    assert load_model(resolve(str(gguf))).num_parameters() > 0
    assert left_behind(cache) == [location.name]


def test_a_full_disk_leaves_nothing(gguf, cache):
    """The limit on the size of a file stands for a full disk."""
    limited = subprocess.run(
        [sys.executable, "-c", RESOLVE, str(gguf)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert "selfinstruct.errors.Error: no space left for the converted tiny.gguf" in limited.stderr
    assert left_behind(cache) == []


@pytest.mark.parametrize("n_bytes", [0, 100, 10_000, -1000])
def test_a_broken_file_is_named_and_leaves_nothing(gguf, cache, tmp_path, n_bytes):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf.read_bytes()[:n_bytes])
    with pytest.raises(InputError, match=r"broken\.gguf: cannot be converted"):
        resolve(str(broken))
    assert left_behind(cache) == []


def test_a_cache_that_cannot_be_written(gguf, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Exception, match=r"cannot be written.*set SELFINSTRUCT_CACHE to another"):
        resolve(str(gguf))


def test_the_embedded_model(embedded_folder):
    source = resolve("embedded")
    assert source.location == str(embedded_folder)
    assert source.public_name == PUBLIC_NAME
    assert resolve(str(embedded_folder)).public_name == PUBLIC_NAME
    assert load_model(source).num_parameters() == 134_515_008
