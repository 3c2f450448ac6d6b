import pytest

from selfinstruct.errors import InputError
from selfinstruct.generation import GenerateConfig, describe, generate
from tests.server import running_server

PRICED = {"model": "m", "base_url": "https://api.example", "input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}


def forecast(tmp_path, **options):
    return generate(GenerateConfig(out=tmp_path / "run", dry_run=True, **{"num_instructions": 200, **options}))


def test_nothing_is_sent_or_written_and_no_key_is_needed(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = forecast(tmp_path, model="gpt-4o-mini")
    assert result.endpoint == "https://api.openai.com/v1"
    assert 0 < result.cost_usd[0] < result.cost_usd[1]
    assert "nothing was sent" in describe(result)
    assert list(tmp_path.iterdir()) == []


def test_cost_is_tokens_times_price(tmp_path):
    result = forecast(tmp_path, **PRICED)
    for cost, prompt, completion in zip(result.cost_usd, result.prompt_tokens, result.completion_tokens, strict=True):
        # Priced request by request, in whole tokens.
        assert cost == pytest.approx((2 * prompt + 8 * completion) / 1e6, rel=0.05)
    free = forecast(tmp_path, **{**PRICED, "input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0})
    assert free.cost_usd == (0.0, 0.0)


def test_embedded_model_is_free_and_an_unknown_price_is_said(tmp_path):
    assert forecast(tmp_path).cost_usd == (0.0, 0.0)
    unknown = forecast(tmp_path, model="m", base_url="https://api.example")
    assert unknown.cost_usd is None
    assert "unknown" in describe(unknown)


def test_fewer_accepted_tasks_take_more(tmp_path):
    for strategy in ("self-instruct", "alpaca"):
        result = forecast(tmp_path, strategy=strategy, **PRICED)
        for low, high in (result.requests, result.prompt_tokens, result.completion_tokens, result.cost_usd):
            assert low < high
        twice = forecast(tmp_path, strategy=strategy, num_instructions=400, **PRICED)
        assert twice.requests[0] == pytest.approx(2 * result.requests[0], rel=0.05)


def test_wrong_seeds_are_found(tmp_path):
    (tmp_path / "seeds.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"seeds\.jsonl:1"):
        forecast(tmp_path, seeds=tmp_path / "seeds.jsonl")


@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
def test_a_run_takes_about_what_was_forecast(tmp_path, strategy):
    with running_server() as server:
        options = {"model": "m", "base_url": server.base_url, "api_key_env": "", "strategy": strategy}
        result = forecast(tmp_path, **options)
        summary = generate(
            GenerateConfig(out=tmp_path / "run", num_instructions=200, concurrency=16, window=16, **options)
        )
    # The server accepts about four tasks of five and counts a word as a token; three words are about four tokens.
    assert 0.9 * result.requests[0] <= summary.requests["completed"] <= 1.1 * result.requests[1]
    assert 0.8 * result.prompt_tokens[0] <= summary.tokens["prompt"] * 4 / 3 <= 1.2 * result.prompt_tokens[1]
