import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from finetune.models import load_adapter, load_model, load_tokenizer, renderer_of, resolve
from selfinstruct.errors import InputError, UsageError
from selfinstruct.render import renderer_for
from tests.tiny import build_tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# Finding a model


@pytest.mark.parametrize("path", ["./model", "/no/such/model", "~/no-such-model", "a/b/c", "../model", "model.gguf"])
def test_what_looks_like_a_path_is_looked_for_on_the_disk(path):
    with pytest.raises(InputError, match="no such file or folder"):
        resolve(path)


def test_a_word_is_no_model():
    with pytest.raises(UsageError, match="'embeded' is no model: give 'embedded'"):
        resolve("embeded")


def test_hub_names():
    source = resolve("some-org/some.model")
    assert (source.location, source.public_name, source.revision) == ("some-org/some.model",) * 2 + (None,)
    assert source.weights_sha256 is None
    pinned = resolve("some-org/some.model@refs/pr/1")
    assert (pinned.location, pinned.revision) == ("some-org/some.model", "refs/pr/1")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(InputError, match=r"is no model\. Give a folder"):
        resolve(str(tmp_path / "model.bin"))


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json"):
        resolve(str(tmp_path))


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(InputError, match="give it with --adapter"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("recorded", "public_name"),
    [("org/base", "org/base"), ("base", "base"), ("/home/me/base", "copy"), ("", "copy"), (None, "copy")],
)
def test_the_public_name_is_never_a_path(copy, recorded, public_name):
    change(copy / "config.json", _name_or_path=recorded)
    assert resolve(str(copy)).public_name == public_name


def test_the_hash_covers_all_weights(copy):
    shutil.copy(copy / "model.safetensors", copy / "another.safetensors")
    listing = subprocess.run(
        "sha256sum *.safetensors | sha256sum", shell=True, cwd=copy, capture_output=True, text=True
    )
    before = resolve(str(copy)).weights_sha256
    assert listing.stdout.split()[0] == before
    with open(copy / "another.safetensors", "ab") as file:
        file.write(b"\0")
    assert resolve(str(copy)).weights_sha256 != before


# Loading it


def test_loaded_for_evaluation_without_a_word(tiny, capfd):
    model = load_model(resolve(str(tiny)))
    assert not model.training
    assert model.dtype == (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    assert model.name_or_path == model.config.name_or_path == "tiny"
    assert load_tokenizer(resolve(str(tiny))).eos_token == "<|im_end|>"
    assert capfd.readouterr() == ("", "")


def test_the_dtype_can_be_chosen(tiny):
    assert load_model(resolve(str(tiny)), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_progress_bars_are_left_as_they_were(tiny):
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()
    load_tokenizer(resolve(str(tiny)))
    assert logging.is_progress_bar_enabled()


def damage_truncated(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def damage_no_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def damage_missing_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (damage_truncated, "model cannot be used"),
        (damage_no_safetensors, r"no file named model\.safetensors"),
        (damage_missing_weight, r"lacks 1 weights, model\.layers\.1\.mlp\.up_proj\.weight among them"),
        (lambda folder: change(folder / "config.json", model_type="unheard_of"), "unheard_of"),
        (lambda folder: change(folder / "config.json", intermediate_size=100), r"down_proj\.weight has not the shape"),
        (lambda folder: change(folder / "config.json", num_attention_heads=3), "not a multiple of the number of"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json"),
    ],
)
def test_broken_models(copy, damage, problem, capfd):
    damage(copy)
    with pytest.raises(InputError, match=rf"(?s){copy}.*{problem}"):
        load_model(resolve(str(copy)))
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_not_used_are_told(copy, caplog):
    change(copy / "config.json", num_hidden_layers=1)
    load_model(resolve(str(copy)))
    assert "9 weights are not used, model.layers.1.input_layernorm.weight among them" in caplog.text


@pytest.mark.parametrize("text", [None, "{", '{"version": "1.0"}'])
def test_broken_tokenizers(copy, text):
    (copy / "tokenizer.json").unlink()
    if text:
        (copy / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match="the tokenizer cannot be used"):
        load_tokenizer(resolve(str(copy)))


def test_code_in_a_model_folder_is_not_run(copy):
    (copy / "evil.py").write_text(f"open({str(copy / 'was_run')!r}, 'w')\nclass Evil: pass\n")
    change(
        copy / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    )
    with pytest.raises(InputError, match="model cannot be used"):
        load_model(resolve(str(copy)))
    assert not (copy / "was_run").exists()


def test_the_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, load_model):
        with pytest.raises(UsageError, match=r"of no-one/no-model cannot be had from the hub.*give a local folder"):
            load(resolve("no-one/no-model"))


# Adapters


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """An adapter of the tiny model that changes what it says."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(load_model(resolve(str(tiny))), config).save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture
def adapter(trained, tmp_path):
    """A copy of the adapter, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7]])).logits


def test_an_adapter_changes_the_model(tiny, trained):
    base = logits(load_model(resolve(str(tiny))))
    tuned = load_adapter(load_model(resolve(str(tiny))), trained)
    assert (logits(tuned) - base).abs().max() > 1e-3
    assert not tuned.training
    assert not any(parameter.requires_grad for name, parameter in tuned.named_parameters() if "lora" in name)
    with tuned.disable_adapter():
        assert torch.equal(logits(tuned), base)


def test_what_peft_writes_of_the_base_is_no_path(tiny, trained):
    assert json.loads((trained / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    assert str(tiny.parent) not in (trained / "README.md").read_text()


def test_no_adapter(tiny, tmp_path):
    model = load_model(resolve(str(tiny)))
    with pytest.raises(InputError, match="no such folder"):
        load_adapter(model, tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        load_adapter(model, tmp_path)


def test_an_adapter_of_another_base(tiny, adapter):
    change(adapter / "adapter_config.json", base_model_name_or_path="org/other")
    with pytest.raises(InputError, match=r"was trained on org/other, not on tiny.*--model"):
        load_adapter(load_model(resolve(str(tiny))), adapter)
    for same in ("another-org/Tiny", None):
        change(adapter / "adapter_config.json", base_model_name_or_path=same)
        load_adapter(load_model(resolve(str(tiny))), adapter)


def test_an_adapter_of_a_base_with_other_shapes(adapter, tmp_path):
    wider = build_tiny_llama(tmp_path / "tiny", hidden_size=48)
    with pytest.raises(InputError, match=r"does not fit tiny.*size mismatch"):
        load_adapter(load_model(resolve(str(wider))), adapter)


def test_an_adapter_of_a_base_with_more_layers(adapter, copy):
    change(copy / "config.json", num_hidden_layers=1, _name_or_path="org/tiny")
    with pytest.raises(InputError, match=r"does not fit org/tiny: 14 weights have no match"):
        load_adapter(load_model(resolve(str(copy))), adapter)


def test_a_broken_adapter(tiny, adapter):
    (adapter / "adapter_config.json").rename(adapter / "kept.json")
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        load_adapter(load_model(resolve(str(tiny))), adapter)
    (adapter / "kept.json").rename(adapter / "adapter_config.json")
    (adapter / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: is broken"):
        load_adapter(load_model(resolve(str(tiny))), adapter)


def test_the_recorded_template_is_the_one_that_is_used(tiny, tmp_path):
    source = resolve(str(tiny))
    tokenizer = load_tokenizer(source)
    chat, alpaca = (renderer_for(tokenizer, name) for name in ("chat", "alpaca"))
    assert renderer_of(tokenizer, source, tmp_path).sha256 == chat.sha256  # nothing is recorded
    record = tmp_path / "selfinstruct.json"
    record.write_text('{"template": "alpaca", "base": {"name": "tiny"}}')
    assert renderer_of(tokenizer, source, tmp_path).sha256 == alpaca.sha256
    assert renderer_of(tokenizer, source, tmp_path, "chat").sha256 == chat.sha256
    record.write_text('{"template": "chat", "template_sha256": "00"}')
    with pytest.raises(InputError, match="another template than the tokenizer"):
        renderer_of(tokenizer, source, tmp_path)
    record.write_text('{"template": "vicuna"}')
    with pytest.raises(InputError, match="field 'template'"):
        renderer_of(tokenizer, source, tmp_path)
