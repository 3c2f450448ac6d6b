import pytest

from finetune.questions import Setting, ask, limited, with_demonstrations
from finetune.wordings import AS_WRITTEN, N_GENERAL, wordings
from selfinstruct.errors import InputError
from selfinstruct.records import Instance, TaskItem
from selfinstruct.render import AlpacaRenderer

RENDERER = AlpacaRenderer("", "")


def item(id, task="t", cluster="c", **more):
    return TaskItem(id, task, cluster, "Do it.", "x", ("y",), **more)


def test_a_limit_takes_the_tasks_of_a_cluster_in_turn():
    items = [item(f"a{i}", "a") for i in range(4)] + [item(f"b{i}", "b") for i in range(1)]
    items += [item(f"c{i}", "c") for i in range(4)] + [item("z", "a", cluster="other")]
    assert [i.id for i in limited(items, 4)] == ["a0", "a1", "b0", "c0", "z"]
    assert [i.id for i in limited(items, 6)] == ["a0", "a1", "a2", "b0", "c0", "c1", "z"]
    assert limited(items, 100) == limited(items, None) == items


def asked(*items, pool=None, **setting):
    return ask(items, pool or items, RENDERER, Setting(**setting))


def test_demonstrations_come_before_the_input():
    assert with_demonstrations([], "Do it.", "in") == ("Do it.", "in")
    instruction, text = with_demonstrations([Instance("1", "one"), Instance("2", "two")], "Do it.", "3")
    assert instruction == "Do it."
    assert text == (
        "Example 1:\nInput: 1\nOutput: one\n\nExample 2:\nInput: 2\nOutput: two\n\n"
        "Now complete the following example:\nInput: 3\nOutput:"
    )


def test_shots_take_the_first_demonstrations():
    shown = item("a", demonstrations=(Instance("1", "one"), Instance("2", "two"), Instance("3", "three")))
    (question,) = asked(shown, shots=2)
    assert "Output: one" in question.prompt
    assert "Output: two" in question.prompt
    assert "three" not in question.prompt
    assert asked(shown)[0].prompt == RENDERER.prompt("Do it.", "x")


def test_missing_demonstrations_are_an_error_that_names_the_item():
    with pytest.raises(InputError, match="item 'a' has 1 demonstrations, --shots asks for 2"):
        asked(item("a", demonstrations=(Instance("1", "one"),)), shots=2)


def test_other_items_of_the_task_stand_in_but_never_the_item_itself():
    items = [TaskItem(f"a{n}", "t", "c", "Do it.", f"in {n}", (f"out {n}",)) for n in range(3)]
    items.append(TaskItem("z", "other", "c", "Do it.", "in z", ("out z",)))
    first, second = asked(*items[:2], pool=items, shots=2, borrow_shots=True)
    assert "Input: in 1\nOutput: out 1\n\nExample 2:\nInput: in 2\nOutput: out 2" in first.prompt
    assert "out 0" not in first.prompt
    assert "Input: in 0\nOutput: out 0" in second.prompt
    with pytest.raises(InputError, match="item 'z' has 0 demonstrations, --shots asks for 2"):
        asked(items[3], pool=items, shots=2, borrow_shots=True)


def test_whole_prompts_stand_one_after_the_other():
    items = [TaskItem(str(n), "t", "c", f"Is {n} even?", "", ("yes",)) for n in range(2)]
    assert RENDERER.prompt("Is 1 even?\nyes\n\nIs 0 even?", "") == asked(*items, shots=1, borrow_shots=True)[0].prompt


def test_options_are_listed_at_the_end_where_asked_for():
    choice = item("a", options=("y", "n"), metric="accuracy")
    assert "OPTIONS" not in asked(choice)[0].prompt
    assert "x\nOPTIONS:\n- y\n- n\n" in asked(choice, list_options=True)[0].prompt
    assert "OPTIONS" in asked(item("a", options=("y", "n"), metric="option_match"))[0].prompt
    bare = TaskItem("b", "t", "c", "Do it.", "", ("y",), ("y", "n"), wordings=("Please do.",), metric="option_match")
    assert all("\nOPTIONS:\n- y\n- n" in question.prompt for question in asked(bare, wordings=2))


def test_own_wordings_come_before_general_ones():
    texts = wordings(item("a", wordings=("Please do it.",)), 3)
    assert list(texts.items())[:2] == [(AS_WRITTEN, ("Do it.", "x")), ("variant 1", ("Please do it.", "x"))]
    assert len(texts) == 3
    every = wordings(item("a"), 100)
    assert len(every) == N_GENERAL == len(set(every.values()))
    assert all("Do it." in instruction and "x" in given for instruction, given in every.values())
    assert list(wordings(item("a", template="t7"), 1)) == ["t7"]


def test_the_key_of_a_question_tells_what_its_answer_depends_on():
    ranked, generated = item("a", options=("y", "n"), metric="accuracy"), item("b")
    (one,), (same,) = asked(ranked), asked(item("z", options=("y", "n"), metric="accuracy_per_token"))
    assert one.key(5) == same.key(9)
    (free,) = asked(generated)
    assert (
        len({one.key(5), free.key(5), free.key(6), asked(item("a", options=("n", "y"), metric="accuracy"))[0].key(5)})
        == 4
    )
