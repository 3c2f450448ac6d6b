import pytest

from finetune.questions import ask, limited, with_demonstrations
from selfinstruct.errors import InputError
from selfinstruct.records import Instance, TaskItem
from selfinstruct.render import renderer_for
from tests.tiny import build_tiny_llama


def item(id, task="t", cluster="c", **more):
    return TaskItem(id, task, cluster, "Do it.", "x", ("y",), **more)


def test_a_limit_takes_the_tasks_of_a_cluster_in_turn():
    items = [item(f"a{i}", "a") for i in range(4)] + [item(f"b{i}", "b") for i in range(1)]
    items += [item(f"c{i}", "c") for i in range(4)] + [item("z", "a", cluster="other")]
    assert [i.id for i in limited(items, 4)] == ["a0", "a1", "b0", "c0", "z"]
    assert [i.id for i in limited(items, 6)] == ["a0", "a1", "a2", "b0", "c0", "c1", "z"]
    assert limited(items, 100) == limited(items, None) == items


def test_demonstrations_come_before_the_input():
    assert with_demonstrations([], "in") == "in"
    text = with_demonstrations([Instance("1", "one"), Instance("2", "two")], "3")
    assert text == (
        "Example 1:\nInput: 1\nOutput: one\n\nExample 2:\nInput: 2\nOutput: two\n\n"
        "Now complete the following example:\nInput: 3\nOutput:"
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_shots_take_the_first_demonstrations_under_any_template(tokenizer, template):
    renderer = renderer_for(tokenizer, template)
    shown = item("a", demonstrations=(Instance("1", "one"), Instance("2", "two"), Instance("3", "three")))
    prompt = ask(shown, renderer, tokenizer, shots=2).prompt
    assert "Output: one" in prompt
    assert "Output: two" in prompt
    assert "three" not in prompt
    assert ask(shown, renderer, tokenizer, shots=0).prompt == renderer.prompt("Do it.", "x")


def test_missing_demonstrations_are_an_error_that_names_the_item(tokenizer):
    renderer = renderer_for(tokenizer, "chat")
    with pytest.raises(InputError, match="item 'a' has 1 demonstrations, --shots asks for 2"):
        ask(item("a", demonstrations=(Instance("1", "one"),)), renderer, tokenizer, shots=2)


def test_sizes(tokenizer):
    renderer = renderer_for(tokenizer, "chat")
    n_prompt = len(tokenizer(renderer.prompt("Do it.", "x"), add_special_tokens=False).input_ids)
    assert ask(item("a"), renderer, tokenizer, 0).size(max_new_tokens=7) == (1, n_prompt + 7)
    ranked = ask(item("a", options=("y", "no way")), renderer, tokenizer, 0)
    assert ranked.size(max_new_tokens=7) == (2, n_prompt + len(tokenizer("no way").input_ids))
