"""Evol-Instruct: what is drawn and asked, what is eliminated and by which rule."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import anyio
import pytest
from pydantic import ValidationError

from selfinstruct.parsing import Block
from selfinstruct.records import Completion, Example, Instance, Prompt, Source
from selfinstruct.strategies import Slot
from selfinstruct.strategies.evol_instruct import (
    IN_BREADTH,
    IN_DEPTH,
    EvolInstruct,
    Evolution,
    copied_prompt,
    evolved_task,
    generation,
    useless,
)  # fmt: skip

SEEDS = [
    Example(f"seed-{n}", f"Sum up the {word} report.", (Instance(f"It was {word}.", "Fine."),), False)
    for n, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth"))
]
EVOLVED = "Explain to a newcomer in which two ways the report misleads its readers.\nInput: It was long."


def accepted(n, of_generation):
    source = Source(
        "evol-instruct", "m", 0, "p", "c", ("seed-0",), {"operation": "deepen", "generation": of_generation}
    )
    return Example(f"evolved-{n}", f"Weigh up report number {n}.", (Instance("", "Good."),), False, source=source)


def slot_of(replies=lambda step, prompt: "", number=0, pool=(), endpoint="chat", language="en", screen=None):
    """A slot whose model is a function of step and prompt; its log is `slot.asked`."""
    asked: dict[str, Prompt] = {}

    async def ask(step, prompt):
        asked[step] = prompt
        given = replies(step, prompt)
        completions = given if isinstance(given, list) else [given]
        return tuple(
            c if isinstance(c, Completion) else Completion(step, f"{step}/{n}", c, "stop")
            for n, c in enumerate(completions)
        )

    return asked, Slot(
        number=number, rng=Random(f"1/{number}"), run_rng=lambda purpose: Random(f"1/{purpose}"), seeds=SEEDS,
        accepted=list(pool), ask_all=ask, screen=screen or (lambda instruction: False), strategy="evol-instruct",
        model="m", endpoint=endpoint, language=language, max_output_tokens=99,
    )  # fmt: skip


def answering(evolved=EVOLVED, check="No", answer="It hides the costs and praises itself."):
    """A model that gives each step its reply."""
    return lambda step, prompt: {"evolve": evolved, "check": check, "answer": answer}[step.partition("/")[0]]


def proposed(replies, strategy=None, **options):
    asked, slot = slot_of(replies, **options)
    return asked, anyio.run((strategy or EvolInstruct(tasks_per_request=1)).propose, slot)


# -- what is drawn ---------------------------------------------------------------------------------------------------


def test_all_operations_are_equally_likely_by_default():
    drawn = Counter(EvolInstruct().evolution(Random(n), SEEDS[0]).operation for n in range(6000))
    assert set(drawn) == {*IN_DEPTH, IN_BREADTH}
    assert all(850 < count < 1150 for count in drawn.values())


@pytest.mark.parametrize(("breadth", "share"), [(0, 0), (1, 1)])
def test_breadth_is_an_option(breadth, share):
    strategy = EvolInstruct(breadth=breadth)
    siblings = [strategy.evolution(Random(n), SEEDS[0]).operation == IN_BREADTH for n in range(200)]
    assert sum(siblings) == 200 * share


def test_a_harder_task_is_of_the_next_generation_and_a_sibling_of_its_parents():
    strategy = EvolInstruct(generations=3)
    for n in range(100):
        for parent, of_parent in ((SEEDS[0], 0), (accepted(0, "2"), 2), (accepted(0, "3"), 3)):
            evolution = strategy.evolution(Random(n), parent)
            assert evolution.generation == of_parent + (evolution.operation != IN_BREADTH)
            assert evolution.generation <= 3
    assert generation(accepted(0, "2")) == 2


def test_without_generations_there_are_siblings_only():
    strategy = EvolInstruct(generations=0)
    assert {strategy.evolution(Random(n), SEEDS[0]).operation for n in range(50)} == {IN_BREADTH}


def test_parents_are_different_ones_and_partly_seeds():
    pool = [accepted(n, "1") for n in range(30)]
    strategy, ids = EvolInstruct(seed_share=0.25), Counter()
    for number in range(400):
        parents = [e.parent.id for e in strategy.evolutions(slot_of(number=number, pool=pool)[1])]
        assert len(set(parents)) == 4
        ids.update(parents)
    from_seeds = sum(count for id, count in ids.items() if id.startswith("seed")) / 1600
    assert 0.2 < from_seeds < 0.3
    assert len(ids) == 36
    # While nothing is accepted, all are seeds, and at most as many as there are.
    assert len(EvolInstruct(tasks_per_request=9).evolutions(slot_of()[1])) == len(SEEDS)


def test_draws_are_the_slots_own():
    pool = [accepted(n, "1") for n in range(30)]
    drawn = [EvolInstruct().evolutions(slot_of(number=n, pool=pool)[1]) for n in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


# -- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [*IN_DEPTH, IN_BREADTH])
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_rewriting_shows_the_parent_and_says_how(operation, endpoint):
    _, slot = slot_of(endpoint=endpoint, language="de")
    prompt = EvolInstruct(replies_per_request=3).evolving_prompt(slot, Evolution(SEEDS[1], operation, 1))
    text = prompt.messages[0]["content"]
    assert "Given task\nInstruction: Sum up the second report.\nInput: It was second.\n" in text
    assert text.endswith("Instruction:")
    assert "Everything is in German." in text
    assert [name for name, method in IN_DEPTH.items() if method in text] == [operation] * (operation in IN_DEPTH)
    assert (prompt.n, prompt.demonstrations) == (3, ("seed-1",))
    assert not re.search(r"[{}]", text)


def test_checks_and_answers_follow_for_each_reply():
    strategy = EvolInstruct(tasks_per_request=2, replies_per_request=2)
    asked, candidates = proposed(lambda step, prompt: [EVOLVED, EVOLVED] if "evolve" in step else "No", strategy)
    assert set(asked) == {
        "evolve/0", "evolve/1", *(f"{step}/{n}.{k}" for step in ("check", "answer") for n in (0, 1) for k in (0, 1)),
    }  # fmt: skip
    assert len({candidate.id for candidate in candidates}) == 4
    check = asked["check/0.0"].messages[0]["content"]
    assert EVOLVED in check
    assert any(seed.instruction in check for seed in SEEDS)
    # A chat gets the task as its user would put it; a plain completion is told what the text is.
    assert asked["answer/0.0"].messages[0]["content"] == EVOLVED.replace("\nInput: ", "\n\n")
    asked, _ = proposed(answering(), endpoint="completions")
    assert asked["answer/0.0"].messages[0]["content"].endswith(f"Instruction: {EVOLVED}\nOutput:")
    assert {"\nInstruction:", "\nInput:", "\nOutput:"} < set(asked["answer/0.0"].stop)


def test_plain_completion_is_led_to_its_yes_or_no():
    for endpoint, end, stop in (("completions", "Yes or No.\nAnswer:", ("\n",)), ("chat", "Yes or No.", ())):
        asked, _ = proposed(answering(), endpoint=endpoint)
        prompt = asked["check/0.0"]
        assert prompt.messages[0]["content"].endswith(end)
        assert (prompt.stop, prompt.max_tokens) == (stop, 3)


@pytest.mark.parametrize(
    ("check", "rule"), [(" Yes", "no_gain"), ("yes.", "no_gain"), (" No", None), ("The second", None), ("?", None)]
)
def test_only_a_yes_says_that_nothing_was_gained(check, rule):
    _, (candidate,) = proposed(answering(check=check), endpoint="completions")
    assert (candidate.rejection.rule if candidate.rejection else None) == rule


def test_steps_are_the_requests_of_a_slot():
    _, slot = slot_of()
    for check in (True, False):
        strategy = EvolInstruct(tasks_per_request=3, check=check)
        asked, _ = proposed(answering(), strategy)
        per_slot = [step for step in strategy.steps(slot) if not step.per_task]
        assert len(per_slot) == sum(not step.startswith("answer") for step in asked) == 3 * (1 + check)
        assert sum(step.per_task for step in strategy.steps(slot)) == 1


# -- what comes of it ------------------------------------------------------------------------------------------------


def test_evolved_task_with_its_lineage():
    _, (candidate,) = proposed(answering(), EvolInstruct(tasks_per_request=1, breadth=0))
    assert candidate.rejection is None
    assert candidate.instruction == EVOLVED.partition("\n")[0]
    assert candidate.instances == (Instance("It was long.", "It hides the costs and praises itself."),)
    assert candidate.source.demonstrations[0] in {seed.id for seed in SEEDS}
    assert candidate.source.attributes["operation"] in IN_DEPTH
    assert candidate.source.attributes["generation"] == "1"


@pytest.mark.parametrize(
    ("reply", "instruction", "input"),
    [
        (" Name two rivers.\nInput: (none)", "Name two rivers.", ""),
        ("Name two rivers.", "Name two rivers.", ""),
        ("Instruction: Name two\nrivers.\nInput: Of Asia", "Name two rivers.", "Of Asia"),
        ("**Instruction:** Count.\n\n**Input:**\na | b\n1 | 2", "Count.", "a | b\n1 | 2"),
        ("Here is the rewritten task:\n\nInstruction: Count.\nInput: a\n\nb", "Count.", "a\n\nb"),
        ("Name two.\nInput: Asia\nOutput: Ob, Lena", "Name two.", "Asia"),
    ],
)
def test_replies_are_read(reply, instruction, input):
    assert evolved_task(reply) == Block(instruction, (Instance(input, ""),))


@pytest.mark.parametrize("reply", ["", " \n", "Input: only this"])
def test_reply_without_a_task_is_one_rejected_row(reply):
    asked, (candidate,) = proposed(answering(evolved=reply))
    assert candidate.rejection.rule == "unparsable"
    assert candidate.source.demonstrations
    assert set(asked) == {"evolve/0"}


@pytest.mark.parametrize(
    ("replies", "rule", "last_step"),
    [
        (answering(evolved=Completion("p", "k", EVOLVED, "length")), "truncated", "evolve/0"),
        (answering(evolved="Turn the given prompt into a harder one."), "copied_prompt", "evolve/0"),
        (answering(check="Yes, they are."), "no_gain", "check/0.0"),
        (answering(check=Completion("p", "k", "", "length")), "unparsable", "check/0.0"),
        (answering(answer="I'm sorry, I have not got that report."), "refusal", "answer/0.0"),
        (answering(answer="..."), "no_content", "answer/0.0"),
        (answering(answer=Completion("p", "k", "It hides", "length")), "truncated", "answer/0.0"),
        (answering(answer=Completion("p", "k", "", "error", "too long")), "unparsable", "answer/0.0"),
    ],
)
def test_each_elimination_is_a_rejected_row_and_nothing_is_paid_after_it(replies, rule, last_step):
    asked, (candidate,) = proposed(replies)
    assert candidate.rejection.rule == rule
    assert candidate.rejection.detail
    assert list(asked)[-1] == last_step


def test_without_check_nothing_is_asked_about_gain():
    asked, (candidate,) = proposed(answering(check="Yes"), EvolInstruct(tasks_per_request=1, check=False))
    assert set(asked) == {"evolve/0", "answer/0.0"}
    assert candidate.rejection is None


def test_task_that_is_certain_to_be_rejected_is_not_completed():
    asked, (candidate,) = proposed(answering(), screen=lambda text: text.startswith("Explain"))
    assert (candidate.screened, candidate.rejection, candidate.instances) == (True, None, ())
    assert set(asked) == {"evolve/0"}


def copied(instruction, parent=SEEDS[0]):
    prompt = EvolInstruct().evolving_prompt(slot_of()[1], Evolution(parent, "deepen", 1))
    return copied_prompt(instruction, parent, prompt)


@pytest.mark.parametrize(
    "instruction",
    [
        "#Rewritten# Sum it up in two lines.",
        "Sum up the given task in one line.",
        "Make the Rewritten Prompt short.",
        "It stays reasonable: somebody who knows the subject understands it and can answer it.",
        "Answer it so that nothing that belongs to the task gets lost, please.",
        "How to make it harder: ask for causes.",
        "Sum it up. What matters: brevity.",
        'Sum it up, with "(none)" for the input.',
    ],
)
def test_words_of_the_prompt_are_recognised(instruction):
    assert copied(instruction).rule == "copied_prompt"


def test_words_of_the_parent_and_ordinary_ones_are_no_copy():
    text = "Follow the given instruction: somebody who knows the subject understands it and can answer it."
    assert copied("Sum up the first report so that a friend who knows the subject can follow.") is None
    assert copied(text).rule == "copied_prompt"
    assert copied(text, Example("seed-9", text, (Instance("", "Fine."),), False)) is None


@pytest.mark.parametrize(
    ("answer", "language", "rule"),
    [
        ("Sorry, I cannot do that.", "en", "refusal"),
        ("Sorry " + "is a word that people use for regret " * 10, "en", None),  # long enough to be an answer
        ("He was in sorrytown.", "en", None),
        ("?!", "en", "no_content"),
        ("It is what they were.", "en", "no_content"),
        ("It is what they were.", "de", None),
        ("是", "zh", None),
        ("。。。", "zh", "no_content"),
        ("42", "en", None),
        ("A", "en", None),  # the label of an option
        ("To be", "en", "no_content"),
        ("", "en", None),  # a filter's business
    ],
)
def test_useless_answers(answer, language, rule):
    verdict = useless(Block("Sum up the report.", (Instance("", ""),)), answer, language)
    assert (verdict.rule if verdict else None) == rule


def test_who_has_to_apologise_may_be_sorry():
    task = Block("Write to a friend whose birthday you forgot: one line of apology.", (Instance("", ""),))
    assert useless(task, "I am so sorry, dear friend!", "en") is None


@pytest.mark.parametrize("options", [{"breadth": 1.1}, {"generations": -1}, {"seed_share": 2}, {"depth": 1}])
def test_impossible_options(options):
    with pytest.raises(ValidationError):
        EvolInstruct(**options)
    with pytest.raises(ValidationError):
        EvolInstruct().check = False
