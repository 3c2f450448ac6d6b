"""What the test server answers: a seeded corpus whose true yield is known, and the answer for each kind of prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Literal

Kind = Literal["fresh", "near_duplicate", "broken"]

OPENINGS = (
    "Summarise", "Rewrite", "Shorten", "Paraphrase", "Proofread", "Translate into German", "Explain", "Critique",
    "Ask questions on", "Headline", "Extract names from", "Justify",
    "Answer", "Compare both halves of", "Suggest improvements to", "Turn into verse", "Outline",
    "Expand", "Poke holes in", "Reorder", "Quote from", "Count claims by",
    "Strip jargon from", "Predict what follows", "Argue against", "Classify", "Rate from 1 to 5",
    "Label", "Detect emotion behind", "Categorise", "Judge",
)  # fmt: skip
OBJECTS = (
    "the customer letter", "this meeting note", "that short poem", "an angry review", "a lab report", "my diary page",
    "the weather bulletin", "this product leaflet", "that cooking recipe", "an opening speech", "a museum label",
    "our travel blog", "the job advert", "this radio dialogue", "that court notice", "an exam answer", "this fable",
    "her thank-you card", "the safety manual", "this podcast intro", "that grant proposal", "an obituary",
    "that riddle", "their newsletter", "the chess commentary", "this birthday toast", "that bug ticket",
    "an insurance claim", "a garden plan", "his apology", "the theatre programme",
)  # fmt: skip
TOPICS = (
    "about late trains", "on urban bees", "covering tide pools", "concerning bread prices", "about glaciers",
    "on library fines", "describing night shifts", "regarding old bridges", "about violin repair", "on desert storms",
    "covering school lunches", "concerning solar roofs", "about lost luggage", "on medieval coins", "describing kites",
    "regarding tap water", "about chess clubs", "on volcano tourism", "covering rare orchids", "concerning rent rises",
    "about marathon training", "on sign language", "describing harbour cranes", "regarding honey fraud",
    "about paper recycling", "on penguin colonies", "covering street markets", "concerning flu vaccines",
    "about mountain rescue", "on silent films", "describing clay pots",
)  # fmt: skip
AUDIENCES = (
    "for absolute beginners", "for busy nurses", "for bored teenagers", "so grandparents smile", "for the board",
    "to help farmers", "for exchange students", "told by pirates", "so lawyers agree", "for curious toddlers",
    "to calm passengers", "for night readers", "winning over sceptics", "for amateur bakers", "to persuade voters",
    "for lost tourists", "for tired parents", "as sailors would", "for data analysts", "to train volunteers",
    "to please gardeners", "for retired engineers", "for sleepy pupils", "to amuse colleagues", "for new tenants",
    "as historians might", "for sports fans", "to warn hikers", "for wary investors", "for bus drivers",
    "so poets applaud",
)  # fmt: skip
MANNERS = (
    "using two sentences", "without adjectives", "in formal English", "within fifty words", "with one metaphor",
    "via short bullets", "keeping every number", "like history", "with gentle humour", "as numbered steps",
    "avoiding passive voice", "in plain language", "ending on hope", "with dates first", "using only questions",
    "in reverse order", "naming no person", "with British spelling", "as telegram style", "split thrice",
    "starting from doubt", "with rhymes", "keeping it neutral", "speaking to you", "citing one example",
    "with strong verbs", "skipping all details", "like breaking news", "through lively dialogue", "with clear headings",
    "under one minute",
)  # fmt: skip
SLOTS = (OPENINGS, OBJECTS, TOPICS, AUDIENCES, MANNERS)
BASE = 31
SIZE = BASE**3
LABELLING = ("Classify", "Rate", "Label", "Detect", "Categorise", "Judge")
BREAKERS: tuple[Callable[[str], str], ...] = (
    lambda text: " ".join(text.split()[:2]),  # too short
    lambda text: f"Describe the image and {text.lower()}",  # a word that a text model cannot serve
    lambda text: f"Write a program to {text.lower()}",
    lambda text: f"; {text}",  # starts with punctuation
)


def instruction(index: int) -> str:
    """Instruction number `index` (below SIZE); any two have at most two of their five parts in common.

    The parts are a Reed-Solomon code word: the values at 0 to 4 of a polynomial of degree 2 over the integers mod 31.
    """
    a, b, c = index % BASE, index // BASE % BASE, index // BASE**2
    return " ".join(slot[(a + b * x + c * x * x) % BASE] for x, slot in enumerate(SLOTS)) + "."


@lru_cache(maxsize=1)
def _instructions() -> frozenset[str]:
    return frozenset(instruction(index).casefold() for index in range(SIZE))


def kind_of(text: str) -> Kind:
    """Which kind of draw an instruction of this corpus was; the answer to "what should a filter have done?"."""
    if text.casefold() in _instructions():
        return "fresh"
    return "near_duplicate" if text.endswith(" please") else "broken"


def demonstrations(prompt: str) -> list[str]:
    """The instructions that a prompt shows: of whole tasks in blocks or JSON, of the one to rewrite, or of a list."""
    if blocks := re.findall(r"(?m)^###\n\d+\.[ \t]*(?:Instruction:|指令：)[ \t]*(\S.*)$", prompt):
        return blocks
    if objects := re.findall(r'(?m)^\{"instruction": .*\}$', prompt):
        return [json.loads(line)["instruction"] for line in objects]
    if parent := re.findall(r"(?m)^Given task\nInstruction: (.*)$", prompt):
        return parent
    return re.findall(r"(?m)^\d+\.[ \t]*(\S.*\S)[ \t]*$", prompt)


def draw(prompt: str, rng: Random, near_duplicates: float, broken: float, pool: int) -> str:
    """One instruction: a demonstration of the prompt with a word added, one that breaks a filter, or a fresh one.

    Args:
        prompt: Its demonstrations are the stock of near-duplicates.
        near_duplicates: Their share.
        broken: Share of instructions that break a filter.
        pool: Number of different fresh instructions.
    """
    share, text = rng.random(), instruction(rng.randrange(pool))
    if share < near_duplicates and (shown := demonstrations(prompt)):
        return f"{rng.choice(shown)} please"
    return rng.choice(BREAKERS)(text) if share > 1 - broken else text


Draw = Callable[[], str]


def _case(task: str) -> tuple[str, str]:
    """(input, output) of a task, a function of its text."""
    rng = Random(task)
    parts = [rng.choice(slot) for slot in SLOTS[1:]]
    return f"We found {parts[0]} {parts[1]}, number {rng.randrange(10_000)}.", f"It reads well {parts[2]}, {parts[3]}."


def numbered_list(prompt: str, task: str, draw: Draw, length: int) -> str:
    """The list that the prompt began goes on."""
    first = int(re.findall(r"(\d+)\s*\.\s*$", prompt)[0])
    return "\n".join(f"{'' if i == first else f'{i}.'} {draw()}" for i in range(first, first + length))


def asked_list(prompt: str, task: str, draw: Draw, length: int) -> str:
    """A list with its own numbers, after a sentence, as chat models answer."""
    first, last = map(int, re.findall(r"(?:write tasks|写出第) (\d+) (?:to|到第) (\d+)", prompt)[-1])
    last = min(last, first + length - 1)
    return "Here they are:\n\n" + "\n".join(f"{i}. {draw()}" for i in range(first, last + 1))


def alpaca_list(prompt: str, task: str, draw: Draw, length: int) -> str:
    """Blocks of instruction, input and output, as Stanford Alpaca's prompt asks; every third task has no input."""
    first = int(re.findall(r"(\d+)\s*\.\s*(?:Instruction:|指令：)\s*$", prompt)[0])
    blocks = []
    for number in range(first, first + length):
        text = draw()
        input, output = _case(text)
        head = "" if number == first else f"{number}. Instruction:"
        given = "<noinput>" if number % 3 == 0 else input
        blocks.append(f"{head} {text}\n{number}. Input:\n{given}\n{number}. Output:\n{output}\n")
    return "###\n".join(blocks)


def json_list(prompt: str, task: str, draw: Draw, length: int) -> str:
    """Tasks as JSON, whole ones where the prompt shows such."""
    n = int((re.findall(r"the other (\d+) tasks", prompt) or [length])[0])
    texts = [draw() for _ in range(min(n, length))]
    cases = [dict(zip(("instruction", "input", "output"), (text, *_case(text)), strict=True)) for text in texts]
    return json.dumps({"tasks": cases if '{"instruction"' in prompt else texts})


def yes_or_no(prompt: str, task: str, draw: Draw, length: int) -> str:
    """Whether the last task is a classification task."""
    yes, no = (" 是", " 否") if "分类" in prompt else (" Yes", " No")
    return yes if task.startswith(LABELLING) else no


def labelled_cases(prompt: str, task: str, draw: Draw, length: int) -> str:
    """Cases of a classification task, class label first."""
    input, other = _case(task)
    label, other_label = Random(task).sample(("Positive", "Negative"), 2)
    further = f"\nClass label: {other_label}\nInput: {other}" if re.search(SEVERAL, prompt) else ""
    return f"{'' if prompt.endswith('Class label:') else 'Class label:'} {label}\nInput: {input}{further}"


def worked_case(prompt: str, task: str, draw: Draw, length: int) -> str:
    """One case of a task, input first."""
    input, output = _case(task)
    head = "Example 1\nInput:" if prompt.endswith("\n") else "" if prompt.endswith("Input:") else "Input:"
    further = f"\nExample 2\nInput: {output}\nOutput: {input}" if re.search(SEVERAL, prompt) else ""
    return f"{head} {input}\nOutput: {output}{further}"


def rewritten_task(prompt: str, task: str, draw: Draw, length: int) -> str:
    """A task in place of the one that the prompt gives, as Evol-Instruct asks."""
    text = draw()
    return f" {text}\nInput: {_case(text)[0]}"


def equal_or_not(prompt: str, task: str, draw: Draw, length: int) -> str:
    """Whether a rewritten task equals the one before; one in eight does."""
    return "Yes." if Random(prompt).random() < 1 / 8 else "No."


def plain(prompt: str, task: str, draw: Draw, length: int) -> str:
    """Anything else gets an answer of one sentence."""
    return _case(prompt)[1]


SEVERAL = r"\bup to \d|several where|for each possible label"  # in a prompt that asks for more than one case

# The first expression found in the last message decides; (?i) and (?s) as needed.
ANSWERS: tuple[tuple[str, Callable[[str, str, Draw, int], str]], ...] = (
    (r"\d+\s*\.\s*(?:Instruction:|指令：)\s*$", alpaca_list),
    (r"with JSON only: .*$", json_list),
    (r"(?:^|\n)\s*\d+\s*\.\s*$", numbered_list),
    (r"write tasks \d+ to \d+|写出第 \d+ 到第 \d+", asked_list),
    (r"(?i)(is it classification\?( answer yes or no\.)?|这是分类任务吗？(请回答“是”或“否”。)?)\s*$", yes_or_no),
    (r"(?s)(Class label:|类别：)$|Class label:.*\nTask: [^\n]*\n$", labelled_cases),
    (r"(Input:|输入：)$|\nTask: [^\n]*\n$", worked_case),
    (r"(?:Rewritten|New) task, in the same form[^\n]*\nInstruction:$", rewritten_task),
    (r"Are the two tasks equal\? Answer Yes or No\.(\nAnswer:)?$", equal_or_not),
    (r"", plain),
)


def answer(prompt: str, draw: Draw, length: int) -> str:
    """What the corpus says to a prompt.

    Args:
        prompt: Text of the last message.
        draw: Gives one instruction a call.
        length: Most entries of a list.
    """
    task = (re.findall(r"(?i)(?:\btask:|任务：)[ \t]*([^\n]*)", prompt) or [prompt])[-1]
    function = next(function for pattern, function in ANSWERS if re.search(pattern, prompt))
    return function(prompt, task, draw, length)
