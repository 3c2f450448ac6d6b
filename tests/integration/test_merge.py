"""`finetune merge` with real tiny models: what is written, and what is refused without a trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTuner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from finetune.cli import GROUP
from finetune.merging import PROMPTS, MergeConfig, MergeSummary, chat_template, describe, merge
from finetune.models import RECORD, load_model, load_tokenizer, renderer_of, resolve
from finetune.scoring import encode
from finetune.training import TrainConfig, train
from selfinstruct.command import run_program
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import read_jsonl, write_json, write_jsonl
from selfinstruct.render import AlpacaRenderer, PlainRenderer, renderer_for
from tests.tiny import build_tiny_llama

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT's own
    "ignore:Model has `tie_word_embeddings=True`:UserWarning",  # what is refused here
)
ROWS = [
    {"instruction": f"Capital of {land}?", "input": "", "output": city}
    for land, city in {"Peru": "Lima", "Cuba": "Havana", "Japan": "Tokyo", "Egypt": "Cairo"}.items()
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64)


def make_adapter(model: Path, folder: Path, **options: Any) -> Path:
    """An adapter that changes every answer, recorded as a training records it."""
    source = resolve(str(model))
    torch.manual_seed(1)
    config = LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, target_modules="all-linear")
    for name, value in options.items():
        setattr(config, name, value)
    get_peft_model(load_model(source, dtype=torch.float32), config).save_pretrained(folder, save_embedding_layers=False)
    tokenizer = load_tokenizer(source)
    tokenizer.save_pretrained(folder)
    renderer = renderer_for(tokenizer, "chat")
    base = {"name": source.public_name, "weights_sha256": source.weights_sha256}
    write_json(folder / RECORD, {"template": "chat", "template_sha256": renderer.sha256, "base": base})
    return folder


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    return make_adapter(model, tmp_path / "adapter")


def merged(model: Path, adapter: Path, **options: Any) -> MergeSummary:
    return merge(
        MergeConfig.model_validate({"model": str(model), "adapter": adapter, "out": adapter.parent / "out"} | options)
    )


def answers(model: Any, folder: Path) -> list[str]:
    """Greedy answers by transformers alone, with the chat template in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in PROMPTS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
        texts.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))
    return texts


@pytest.mark.parametrize("variant", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_base_and_adapter_by_peft_alone_and_the_merged_model_say_the_same(
    model: Path, tmp_path: Path, variant: dict[str, bool]
) -> None:
    adapter = make_adapter(model, tmp_path / "adapter", **variant)
    summary = merged(model, adapter)
    assert summary.saved.agreement == 1
    assert summary.saved.max_difference < 1e-5
    base = answers(AutoModelForCausalLM.from_pretrained(model), model)
    tuned = answers(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(adapter)), adapter)
    assert answers(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tmp_path / "out") == tuned
    assert sum(a != b for a, b in zip(base, tuned, strict=True)) >= len(PROMPTS) - 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_sum_is_rounded_once(model: Path, adapter: Path, dtype: str) -> None:
    summary = merged(model, adapter, dtype=dtype)
    assert summary.dtype == dtype
    # What was compared is what was written: the rounding shows, but only after the cast.
    assert summary.merged.max_difference < 1e-5 < summary.saved.max_difference
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(adapter)).merge_and_unload()
    expected = {name: weight.to(getattr(torch, dtype)) for name, weight in tuned.state_dict().items()}
    written = load_file(adapter.parent / "out" / "model.safetensors")
    assert all(torch.equal(weight, expected[name]) for name, weight in written.items())
    assert json.loads((adapter.parent / "out" / "config.json").read_text())["dtype"] == dtype
    assert dtype in describe(summary)


def test_the_type_is_the_base_models_own(model: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(model).save_pretrained(half)
    assert merged(half, make_adapter(half, tmp_path / "adapter")).dtype == "bfloat16"


def test_the_folder_is_whole_and_tells_no_local_path(model: Path, adapter: Path) -> None:
    (adapter / "README.md").write_text(
        "# x\n\n## Data\n\n| train | rows.jsonl | 4 |\n\n## Licence\n\nyours\n\n## Other\n"
    )
    merged(model, adapter)
    out = adapter.parent / "out"
    assert sorted(file.name for file in adapter.parent.iterdir()) == ["adapter", "out"]
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "selfinstruct.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert not [file.name for file in out.iterdir() if str(adapter.parent.parent).encode() in file.read_bytes()]
    card = ModelCard.load(out / "README.md")
    assert (card.data.base_model, card.data.library_name) == ("tiny", "transformers")
    assert card.data.license is None
    assert "| train | rows.jsonl | 4 |" in card.text
    assert "yours" in card.text
    # The template that was trained with is the merged model's, for this project's commands too.
    tokenizer = load_tokenizer(resolve(str(out)))
    recorded = json.loads((adapter / RECORD).read_text())
    assert renderer_of(tokenizer, resolve(str(out))).sha256 == recorded["template_sha256"]


def test_an_adapter_trained_in_the_alpaca_template_is_served_in_it(model: Path, adapter: Path) -> None:
    tokenizer = load_tokenizer(resolve(str(model)))
    renderer = renderer_for(tokenizer, "alpaca")
    record = json.loads((adapter / RECORD).read_text())
    write_json(adapter / RECORD, record | {"template": "alpaca", "template_sha256": renderer.sha256})
    assert merged(model, adapter).template == "alpaca"
    served = AutoTokenizer.from_pretrained(adapter.parent / "out")
    for prompt in PROMPTS:
        ids = served.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert ids == encode(tokenizer, renderer.prompt(prompt, ""))
    assert renderer_of(served, resolve(str(adapter.parent / "out"))).name == "alpaca"


@pytest.mark.parametrize("kind", [AlpacaRenderer, PlainRenderer])
def test_the_chat_template_gives_the_renderers_text(model: Path, kind: type[AlpacaRenderer | PlainRenderer]) -> None:
    tokenizer = load_tokenizer(resolve(str(model)))
    renderer = kind("<s>", "it's\\done")
    template = chat_template(renderer)
    messages = [
        {"role": role, "content": f"text {i} {{{{ x }}}}"} for i, role in enumerate(["user", "assistant", "user"])
    ]
    for n in (1, 3):
        text = tokenizer.apply_chat_template(messages[:n], chat_template=template, tokenize=False)
        assert text == renderer.turns(messages[:n])
    assert renderer.turns(messages[:1]) == renderer.prompt("text 0 {{ x }}", "")


def refused(model: Path, adapter: Path, error: type[Error], problem: str, **options: Any) -> None:
    before = sorted(adapter.parent.rglob("*"))
    with pytest.raises(error, match=problem) as raised:
        merged(model, adapter, **options)
    assert type(raised.value) is error
    assert sorted(adapter.parent.rglob("*")) == before


def test_an_existing_folder_is_left_alone(model: Path, adapter: Path) -> None:
    refused(model, adapter, UsageError, "exists; give a new folder", out=adapter)


def test_other_weights_under_the_same_name_are_refused(adapter: Path, tmp_path: Path) -> None:
    other = build_tiny_llama(tmp_path / "tiny", hidden_size=64, seed=5)
    refused(other, adapter, InputError, r"selfinstruct\.json: field 'base': was trained on other weights")


def test_a_base_of_another_name_is_refused(model: Path, adapter: Path) -> None:
    record = json.loads((adapter / RECORD).read_text())
    write_json(adapter / RECORD, record | {"base": {}})
    settings = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", settings | {"base_model_name_or_path": "org/other"})
    refused(model, adapter, InputError, "was trained on org/other")


def test_a_changed_template_is_refused(model: Path, adapter: Path) -> None:
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    refused(model, adapter, InputError, "was trained with another template")


def test_no_adapter_is_refused(model: Path, tmp_path: Path) -> None:
    refused(model, tmp_path / "none", InputError, "no such folder")
    refused(model, tmp_path, InputError, r"holds no adapter_config\.json")


def spoil(adapter: Path, value: float) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = value
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused(model: Path, adapter: Path, value: float) -> None:
    spoil(adapter, value)
    refused(model, adapter, InputError, "holds values that are not finite")


def test_weights_that_overflow_the_type_are_refused(model: Path, adapter: Path) -> None:
    spoil(adapter, 1e7)
    refused(model, adapter, Error, "finite|nothing was written", dtype="float16")


def test_an_adapter_of_another_kind_is_refused(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(load_model(resolve(str(model))), config).save_pretrained(adapter, save_embedding_layers=False)
    refused(model, adapter, InputError, "PROMPT_TUNING adapter, whose weights cannot be merged")


@pytest.mark.parametrize(
    "options", [{"target_modules": ["q_proj", "embed_tokens"]}, {"target_modules": ["q_proj", "lm_head"]}]
)
def test_an_adapter_of_tied_embeddings_is_refused(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = make_adapter(model, tmp_path / "adapter", **options)
    refused(model, adapter, InputError, "one tensor in tiny: merged, the change would act twice")


def test_an_adapter_with_added_tokens_is_refused(model: Path, adapter: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    tokenizer.add_tokens(["<a>", "<b>"])
    tokenizer.save_pretrained(adapter)
    refused(model, adapter, InputError, "has a tokenizer with 322 tokens, the model has embeddings for 320")


def test_a_quantised_base_is_refused(model: Path, adapter: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy" / "tiny"))
    config = json.loads((copy / "config.json").read_text())
    write_json(copy / "config.json", config | {"quantization_config": {"quant_method": "bitsandbytes"}})
    refused(copy, adapter, UsageError, "is quantised")


@pytest.mark.parametrize("place", [(BaseTuner, "merge_and_unload"), (LlamaForCausalLM, "save_pretrained")])
def test_a_merge_that_says_something_else_writes_nothing(
    model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
) -> None:
    """A fault in what PEFT adds, or in what is stored, is put in on purpose."""
    owner, name = place
    real = getattr(owner, name)

    def faulty(self: Any, *args: Any, **options: Any) -> Any:
        next(weight for key, weight in self.named_parameters() if "down_proj" in key).data *= 1.01
        return real(self, *args, **options)

    monkeypatch.setattr(owner, name, faulty)
    refused(model, adapter, Error, "nothing was written")


def test_the_command_says_what_was_compared(model: Path, adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", str(model), "--adapter", str(adapter), "--out", str(adapter.parent / "out")]
    assert run_program(GROUP, "finetune", ["merge", *flags]) == 0
    printed = capfd.readouterr()
    assert "100.0% of" in printed.out
    assert "logits differ by up to" in printed.out
    assert printed.err == ""


# What a training leaves behind


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a real training on a run's folder and on a file."""
    folder = tmp_path_factory.mktemp("trained")
    run = folder / "run"
    run.mkdir()
    write_jsonl(run / "dataset.jsonl", ROWS)
    (run / "run.toml").write_text(
        '[generate]\nmodel = "org/teacher"\n[[generate.strategy]]\nkind = "evol-instruct"\n'
        '[[generate.strategy]]\nkind = "alpaca"\n'
    )
    write_jsonl(folder / "more|rows.jsonl", ROWS[:1])
    train(
        TrainConfig(
            data=[run, folder / "more|rows.jsonl"], model=str(model), out=folder / "out", max_steps=8, rank=24,
            learning_rate=1e-2,
        )
    )  # fmt: skip
    return folder / "out" / "adapter"


def test_the_card_says_what_the_adapter_was_made_of(trained: Path) -> None:
    card = ModelCard.load(trained / "README.md")
    assert (card.data.base_model, card.data.library_name, card.data.pipeline_tag) == ("tiny", "peft", "text-generation")
    assert card.data.license is None
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    files = list(read_jsonl(trained.parents[1] / "run" / "dataset.jsonl"))
    assert f"| train | dataset.jsonl | {len(files)} |" in card.text
    assert "| train | more\\|rows.jsonl | 1 |" in card.text
    assert "generated by org/teacher with the strategy evol-instruct and alpaca" in card.text
    assert str(trained.parents[1]) not in card.content


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_lines_of_the_card_load_the_adapter(model: Path, trained: Path) -> None:
    code = (trained / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('"tiny"', repr(str(model))).replace('"path/to/this/folder"', repr(str(trained))), names)
    ours = answers(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(trained)), trained)
    assert answers(names["model"], trained) == ours
    merged(model, trained, out=trained.parent / "merged")
    code = (trained.parent / "merged" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code.replace('"path/to/this/folder"', repr(str(trained.parent / "merged"))), names)
    assert answers(names["model"], trained) == ours


def test_peft_finds_the_base_by_the_name_in_the_adapter(
    model: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)  # where "tiny" is the model, as a name on the hub would be
    found = AutoPeftModelForCausalLM.from_pretrained(str(trained))
    ours = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(trained))
    assert answers(found, trained) == answers(ours, trained)


def test_vllm_can_serve_the_adapter(trained: Path) -> None:
    """What vLLM asks of a folder (vllm/lora/peft_helper.py and lora_model.py), without vLLM."""
    settings = json.loads((trained / "adapter_config.json").read_text())
    assert settings["bias"] == "none"
    assert not settings["modules_to_save"]
    assert not settings["use_dora"]
    assert not settings["rank_pattern"]
    assert not settings["alpha_pattern"]
    assert {"r", "lora_alpha", "target_modules"} <= settings.keys()
    assert not Path(settings["base_model_name_or_path"]).is_absolute()
    served = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    for name, weight in load_file(trained / "adapter_model.safetensors").items():
        # base_model.model.MODULE.lora_A.weight
        prefix, module, kind = name.split(".", 2)[:2], name.split(".")[-3], name.split(".")[-2]
        assert prefix == ["base_model", "model"]
        assert module in served
        assert (weight.shape[0] if kind == "lora_A" else weight.shape[1]) == settings["r"] == 24
    card = (trained / "README.md").read_text()
    assert "--max-lora-rank 32" in card  # the smallest that vLLM knows and that holds 24
