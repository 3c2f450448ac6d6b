"""Alpaca's generation exactly as published: one list of 20, its constants, stops and parser.

The sentences are this project's; the prompt is in English whatever the run's language.

Flaws that are kept:
    * The stop "20." cuts "in 2020." to "in 20", reported as a regular end, so the cut text is kept.
    * A block whose number is not its place, or that lacks a label, is dropped, and "###" in an answer ends it.
    * "4. Input:" is found inside "14. Input:", which drops that block's own fields.
    * Only "<noinput>" means no input; an empty output is kept.
    * A demonstration loses its colon at the end.
    * The filters `alpaca-heuristics` and `novelty` with the tokenizer "rouge", which sees only [a-z0-9].

Deviations:
    * One prompt a request, not five, and no bias against GPT-3's end-of-text token, an id that means
      something else to other models.
    * A chat model gets the same text as a message; "4. Instruction:" at the start of its reply is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfinstruct.parsing import originals
from selfinstruct.records import Candidate, Completion, Example, Prompt, Verdict
from selfinstruct.strategies import Slot, unparsable

_REQUIREMENTS = """\
Please write 20 varied instructions for a text model, together with inputs and the model's outputs. They shall show how
well a language model carries out instructions.

What is required:
1. Use as many different verbs as possible.
2. Use different language: some are questions, some are commands.
3. Use different types: open generation, classification, editing and so on.
4. A language model with text alone must be able to do it: no picture to make or see, no reminder to set.
5. Write in English.
6. One or two sentences each, as a command or a question.
7. Give an input where the instruction needs one: realistic, specific, under 100 words, no stand-in. Where it needs
none, put "<noinput>".
8. The output is a fitting answer to instruction and input, under 100 words.

The list of 20:

"""


def list_prompt(shown: Sequence[Example]) -> Prompt:
    """The requirements, the demonstrations as blocks, and the start of the next block."""
    blocks = "".join(_block(number, task) for number, task in enumerate(shown, start=1))
    return Prompt(
        ({"role": "user", "content": f"{_REQUIREMENTS}{blocks}###\n{len(shown) + 1}. Instruction:"},),
        max_tokens=3072,
        temperature=1.0,
        stop=("\n20", "20.", "20."),
        demonstrations=tuple(task.id for task in shown),
    )


def _block(number: int, task: Example) -> str:
    instruction, instance = " ".join(task.instruction.split()).rstrip(":"), task.instances[0]
    fields = (f"Instruction: {instruction}", f"Input:\n{instance.input or '<noinput>'}", f"Output:\n{instance.output}")
    return "###\n" + "".join(f"{number}. {field}\n" for field in fields)


def candidates(slot: Slot, prompt: Prompt, completion: Completion) -> list[Candidate]:
    """What the original reads out of a reply, and each block that it drops."""
    first = len(prompt.demonstrations) + 1
    text = completion.text
    if slot.endpoint == "chat":
        text = text.lstrip().removeprefix("###").lstrip().removeprefix(f"{first}. Instruction:")
    blocks = originals.numbered_blocks(text, first)
    found = []
    for index, block in enumerate(blocks):
        instruction, instances = (block[0], (block[1],)) if isinstance(block, tuple) else (block[:200], ())
        rejection = None
        if completion.finish_reason == "length" and index == len(blocks) - 1:
            rejection = Verdict("truncated", "the reply reached its token limit inside this block")
        elif isinstance(block, str):
            rejection = Verdict("unparsable", f"not one instruction, input and output numbered {first + index}")
        if block:
            found.append(
                slot.candidate(completion, index, instruction, instances, False, prompt.demonstrations, rejection)
            )
    return found if completion.text.strip() else [unparsable(slot, completion, prompt.demonstrations)]
