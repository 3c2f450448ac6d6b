"""Writes the corpus of replies: hand-written shapes, filled with tasks, and the right parse beside each.

    python -m tests.replies.make

A shape is how a model lays out its reply; the contents are tasks that try the layout's borders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
Task = tuple[str, str, str]  # instruction, input, output
Shape = Callable[[Sequence[Task]], str]

CONTENTS: dict[str, list[Task]] = {
    "plain": [
        ("Add the numbers.", "2 and 3", "5"),
        ("Name a river of Siberia.", "", "The Lena."),
        ("Put the sentence into the past tense.", "She walks home.", "She walked home."),
    ],
    "lines": [
        ("List three uses of vinegar.", "", "1. Cleaning windows\n2. Pickling\n3. Descaling kettles"),
        ("Turn the notes into a message.", "late, train\nstart without me", "Hi,\n\nmy train is late.\n\nAnna"),
        ("Write a haiku on rain.", "", "Rain on the tin roof\nthe cat counts every droplet\nand falls asleep first"),
    ],
    "traps": [
        ("When was the bridge at https://ex.org:80/b opened?", "It opened at 10:30.", "At 10:30, in 2020. Yes: 2020."),
        ("Explain recursion with an example: keep it short.", "", "A call to itself. Example: 3! = 3 * 2!"),
        ("What does NASA stand for?", "", "Example 1 of 2: National Aeronautics and Space Administration."),
        ("Rate the mood from 1 to 5: 1 is bad.", "What a day - 5 of 5!", "Mood (Output of 5): 5."),
    ],
    "code": [
        ("Write a loop in Python.", "", "```python\nfor i in range(3):\n    print(i)\n```"),
        ("Give the record as JSON.", "Ada, 36", '{"name": "Ada", "age": 36}'),
        ("Draw a table of two planets.", "", "| Planet | Moons |\n|---|---|\n| Mars | 2 |\n| Venus | 0 |"),
    ],
    "unicode": [
        ("Übersetze „Guten Morgen“ ins Französische.", "", "Bonjour – « bon matin » sagt man nicht."),
        ("写一句关于秋天的话。", "用上“落叶”。", "落叶铺满小路，脚下沙沙作响。"),
        ("Сколько букв в слове?", "кошка", "Пять 🐈."),
    ],
    "long": [
        (f"Name item {n} of the set and say why it is there.", f"set {n}" if n % 2 else "", f"Item {n}, of course.")
        for n in range(1, 9)
    ],
}  # fmt: skip
NATIVE: dict[str, list[Task]] = {
    "zh": [("把句子改成过去时。", "他走路回家。", "他走回了家。"), ("列出三种水果。", "", "苹果、梨、桃。")],
    "ja": [
        ("文を要約してください。", "今日は雨でした。", "雨だった。"),
        ("川の名前を挙げてください。", "", "信濃川。"),
    ],
    "ko": [("문장을 요약하세요.", "오늘은 비가 왔다.", "비가 왔다."), ("강 이름을 하나 말하세요.", "", "한강.")],
    "de": [("Fasse den Satz zusammen.", "Es regnete den Tag lang.", "Regen."), ("Nenne einen Fluss.", "", "Die Elbe.")],
    "fr": [("Résume la phrase.", "Il a plu toute la journée.", "Pluie."), ("Cite un fleuve.", "", "La Loire.")],
    "es": [("Resume la frase.", "Llovió todo el día.", "Lluvia."), ("Nombra un río.", "", "El Ebro.")],
    "pt": [("Resuma a frase.", "Choveu o dia todo.", "Chuva."), ("Cite um rio.", "", "O Douro.")],
    "it": [("Riassumi la frase.", "È piovuto tutto il giorno.", "Pioggia."), ("Nomina un fiume.", "", "Il Po.")],
    "ru": [("Сократи предложение.", "Весь день шёл дождь.", "Дождь."), ("Назови реку.", "", "Волга.")],
    "ar": [("لخّص الجملة.", "أمطرت طوال اليوم.", "مطر."), ("اذكر نهرًا.", "", "النيل.")],
}
LABELS = {
    "zh": ("指令", "输入", "输出", "类别", "："), "ja": ("指示", "入力", "出力", "ラベル", "："),
    "ko": ("지시", "입력", "출력", "분류", ":"), "de": ("Anweisung", "Eingabe", "Ausgabe", "Klasse", ":"),
    "fr": ("Consigne", "Entrée", "Sortie", "Classe", " :"), "es": ("Instrucción", "Entrada", "Salida", "Clase", ":"),
    "pt": ("Instrução", "Entrada", "Saída", "Classe", ":"), "it": ("Istruzione", "Input", "Output", "Classe", ":"),
    "ru": ("Инструкция", "Ввод", "Вывод", "Класс", ":"), "ar": ("التعليمات", "المدخل", "المخرج", "الفئة", ":"),
}  # fmt: skip


def blocks(block: str, *, sep: str = "\n", head: str = "", tail: str = "", none: str = "<noinput>", first: int = 4,
           bare: str | None = None, step: int = 1) -> Shape:  # fmt: skip
    """A shape that repeats a block of {n}, {i}nstruction, {x} input and {o}utput; `bare` for tasks without input."""

    def fill(tasks: Sequence[Task]) -> str:
        filled = [
            (bare if bare is not None and not given else block).format(
                n=first + step * k, i=instruction, x=given or none, o=output
            )
            for k, (instruction, given, output) in enumerate(tasks)
        ]
        return head + sep.join(filled) + tail

    return fill


def continued(shape: Shape, lead: str) -> Shape:
    """The shape without what the prompt had already written."""
    return lambda tasks: shape(tasks).removeprefix(lead)


def as_json(wrap: Callable[[list[dict[str, str]]], Any], names: Sequence[str] = ("instruction", "input", "output"),
            text: str = "{}", indent: int | None = None) -> Shape:  # fmt: skip
    """Tasks as JSON, within a text."""

    def fill(tasks: Sequence[Task]) -> str:
        objects = [dict(zip(names, task, strict=True)) for task in tasks]
        return text.replace("{}", json.dumps(wrap(objects), ensure_ascii=False, indent=indent), 1)

    return fill


def json_lines(tasks: Sequence[Task]) -> str:
    return "\n".join(as_json(lambda objects: objects[0])([task]) for task in tasks)


def broken_json(tasks: Sequence[Task]) -> str:
    """A comma too many and an end too few."""
    return as_json(lambda objects: objects, indent=1)(tasks).replace("\n }", ",\n }").removesuffix("\n]")


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def table(tasks: Sequence[Task]) -> str:
    rows = [f"| {n} | {cell(i)} | {cell(x)} | {cell(o)} |" for n, (i, x, o) in enumerate(tasks, 4)]
    return "\n".join(["| # | Instruction | Input | Output |", "|---|---|---|---|", *rows])


def tables_of_fields(tasks: Sequence[Task]) -> str:
    fields = ("| Field | Value |\n|---|---|\n| Instruction | {} |\n| Input | {} |\n| Output | {} |",)
    return "\n\n".join(fields[0].format(cell(i), cell(x or "None"), cell(o)) for i, x, o in tasks)


def quoted(shape: Shape) -> Shape:
    return lambda tasks: "\n".join(f"> {line}".rstrip() for line in shape(tasks).split("\n"))


def drifting(tasks: Sequence[Task]) -> str:
    """The numbers of the second half jump."""
    texts = [CLASSIC_BLOCK.format(n=n if n < 5 else n + 3, i=i, x=x or "<noinput>", o=o)
             for n, (i, x, o) in enumerate(tasks, 4)]  # fmt: skip
    return "###\n".join(texts)


CLASSIC_BLOCK = "{n}. Instruction: {i}\n{n}. Input:\n{x}\n{n}. Output:\n{o}\n"
CLASSIC = blocks(CLASSIC_BLOCK, sep="###\n")
LIST_SHAPES: dict[str, Shape] = {
    "classic": CLASSIC,
    "continued": continued(CLASSIC, "4. Instruction:"),
    "closed": blocks(CLASSIC_BLOCK, sep="###\n", tail="###\n"),
    "next number begun": blocks(CLASSIC_BLOCK, sep="###\n", tail="###\n90."),
    "introduced": blocks(CLASSIC_BLOCK, sep="###\n", head="Sure! Here are the tasks:\n\n###\n"),
    "from one": blocks(CLASSIC_BLOCK, sep="###\n", first=1),
    "all the same number": blocks(CLASSIC_BLOCK, sep="###\n", first=4, step=0),
    "every other number": blocks(CLASSIC_BLOCK, sep="###\n", step=2),
    "drifting numbers": drifting,
    "on one line": blocks("{n}. Instruction: {i}\n{n}. Input: {x}\n{n}. Output: {o}", sep="\n###\n"),
    "no separator": blocks(CLASSIC_BLOCK, sep=""),
    "blank lines": blocks(CLASSIC_BLOCK, sep="\n\n"),
    "rules": blocks(CLASSIC_BLOCK, sep="\n---\n\n"),
    "double rules": blocks(CLASSIC_BLOCK, sep="======\n"),
    "no numbers": blocks("Instruction: {i}\nInput: {x}\nOutput: {o}", sep="\n###\n"),
    "no numbers, no separator": blocks("Instruction: {i}\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "number on the instruction only": blocks("{n}. Instruction: {i}\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "bold labels": blocks("**{n}. Instruction:** {i}\n**{n}. Input:** {x}\n**{n}. Output:** {o}", sep="\n\n"),
    "bold, colon outside": blocks("**Instruction**: {i}\n**Input**: {x}\n**Output**: {o}", sep="\n\n---\n\n"),
    "bold number": blocks("**{n}.** **Instruction:** {i}\n**Input:** {x}\n**Output:**\n{o}", sep="\n\n"),
    "headings": blocks("### {n}. Instruction:\n{i}\n### {n}. Input:\n{x}\n### {n}. Output:\n{o}", sep="\n\n"),
    "headings without a colon": blocks("### Instruction\n{i}\n### Input\n{x}\n### Response\n{o}", sep="\n\n"),
    "headed tasks": blocks("## Task {n}\n**Instruction:** {i}\n**Input:** {x}\n**Output:** {o}", sep="\n\n"),
    "titled tasks": blocks("### {n}. A title\n\nInstruction: {i}\n\nInput: {x}\n\nOutput: {o}", sep="\n\n"),
    "bold titles": blocks("**Task {n}: a title**\nInstruction: {i}\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "bulleted fields": blocks("{n}.\n- **Instruction:** {i}\n- **Input:** {x}\n- **Output:** {o}", sep="\n\n"),
    "indented fields": blocks("{n}.\n   Instruction: {i}\n   Input: {x}\n   Output: {o}", sep="\n"),
    "task as the label": blocks("Task {n}: {i}\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "numbered line as instruction": blocks("{n}. {i}\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "numbered line, numbered fields": blocks("{n}. {i}\n{n}. Input: {x}\n{n}. Output: {o}", sep="\n###\n"),
    "bold line as instruction": blocks("**{n}. {i}**\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "heading as instruction": blocks("### {i}\nInput: {x}\nOutput: {o}", sep="\n\n"),
    "nothing but a separator": blocks("{i}\nInput: {x}\nOutput: {o}", sep="\n###\n", head="###\n"),
    "input left out": blocks(CLASSIC_BLOCK, sep="###\n", bare="{n}. Instruction: {i}\n{n}. Output:\n{o}\n"),
    "none": blocks("{n}. Instruction: {i}\n{n}. Input: {x}\n{n}. Output: {o}\n", sep="###\n", none="None"),
    "n/a": blocks("{n}. Instruction: {i}\n{n}. Input: {x}\n{n}. Output: {o}\n", sep="###\n", none="N/A"),
    "no input in brackets": blocks(CLASSIC_BLOCK, sep="###\n", none="(no input)"),
    "parentheses": blocks("{n}) Instruction: {i}\n{n}) Input: {x}\n{n}) Output: {o}\n", sep="###\n"),
    "lower case": blocks("{n}. instruction: {i}\n{n}. input: {x}\n{n}. output: {o}\n", sep="###\n"),
    "upper case": blocks("INSTRUCTION: {i}\nINPUT: {x}\nOUTPUT: {o}\n", sep="\n"),
    "space before the colon": blocks("{n}. Instruction : {i}\n{n}. Input : {x}\n{n}. Output : {o}\n", sep="###\n"),
    "answer and text": blocks("Instruction: {i}\nText: {x}\nAnswer: {o}", sep="\n\n"),
    "response": blocks("Instruction: {i}\nInput: {x}\nResponse: {o}", sep="\n\n"),
    "full-width": blocks("{n}．Instruction：{i}\n{n}．Input：{x}\n{n}．Output：{o}", sep="\n###\n"),
    "ideographic comma": blocks("{n}、指令：{i}\n{n}、输入：{x}\n{n}、输出：{o}", sep="\n\n", none="无"),
    "brackets": blocks("【指令】：{i}\n【输入】：{x}\n【输出】：{o}", sep="\n\n", none="（无）"),
    "quotation": quoted(blocks("Instruction: {i}\nInput: {x}\nOutput: {o}", sep="\n\n")),
    "inline separator": blocks("{n}. Instruction: {i}\n{n}. Input: {x}\n{n}. Output: {o} ###", sep="\n"),
    "Windows lines": lambda tasks: CLASSIC(tasks).replace("\n", "\r\n"),
    "fence around all": blocks(CLASSIC_BLOCK, sep="###\n", head="```text\n", tail="```"),
    "fence around each": blocks("```\nInstruction: {i}\nInput: {x}\nOutput: {o}\n```", sep="\n\n"),
    "fence around outputs": blocks("{n}. Instruction: {i}\n{n}. Input: {x}\n{n}. Output:\n```\n{o}\n```", sep="\n"),
    "fence around inputs": blocks("Instruction: {i}\nInput:\n```\n{x}\n```\nOutput:\n{o}", sep="\n###\n"),
    "table": table,
    "tables of fields": tables_of_fields,
    "JSON array": as_json(lambda objects: objects),
    "JSON object": as_json(lambda objects: {"tasks": objects}, indent=2),
    "JSON fenced": as_json(lambda objects: objects, text="```json\n{}\n```", indent=2),
    "JSON after prose": as_json(lambda objects: objects, text="Here they are:\n\n{}\n\nEnjoy!"),
    "JSON fenced in prose": as_json(lambda objects: objects, text="Sure:\n```\n{}\n```\nShall I go on?", indent=1),
    "JSON lines": json_lines,
    "JSON by number": as_json(lambda objects: {str(n): o for n, o in enumerate(objects, 4)}),
    "JSON, other names": as_json(lambda objects: objects, ("Task", "Text", "Answer")),
    "JSON, Chinese names": as_json(lambda objects: objects, ("指令", "输入", "输出")),
    "JSON, broken": broken_json,
}  # fmt: skip
# What a layout cannot say: lines of a fenced answer within a fence, "###" that both ends and is in a text, ...
UNSAYABLE = {("fence around each", "code"), ("fence around outputs", "code"), ("fence around all", "code")}


def numbered(form: str, sep: str = "\n", head: str = "", tail: str = "", first: int = 9) -> Callable[[list[str]], str]:
    return lambda items: head + sep.join(form.format(n=n, i=i) for n, i in enumerate(items, first)) + tail


ITEM_SHAPES: dict[str, Callable[[list[str]], str]] = {
    "dots": numbered("{n}. {i}"),
    "parentheses": numbered("({n}) {i}"),
    "half parentheses": numbered("{n}) {i}", first=1),
    "bold": numbered("**{n}.** {i}"),
    "all bold": numbered("**{n}. {i}**", sep="\n\n"),
    "headings": numbered("### Task {n}: {i}", sep="\n\n"),
    "tasks": numbered("Task {n}: {i}"),
    "labelled": numbered("{n}. Instruction: {i}"),
    "introduced": numbered("{n}. {i}", head="Of course:\n\n", tail="\n\nShall I go on?"),
    "fenced": numbered("{n}. {i}", head="```\n", tail="\n```"),
    "all one": lambda items: "\n".join(f"1. {i}" for i in items),
    "full-width": numbered("{n}．{i}", first=1),
    "ideographic": numbered("{n}、{i}", first=1),
    "bullets": numbered("- {i}"),
    "table": numbered("| {n} | {i} |", head="| # | Task |\n|---|---|\n"),
    "JSON": lambda items: json.dumps(items, ensure_ascii=False),
    "JSON object": lambda items: "```json\n" + json.dumps({"tasks": items}, indent=1) + "\n```",
    "JSON tasks": lambda items: json.dumps([{"id": n, "instruction": i} for n, i in enumerate(items)]),
}
CASE_SHAPES: dict[str, Shape] = {
    "pairs": blocks("Input: {x}\nOutput: {o}", none="(none)"),
    "blank lines": blocks("Input: {x}\nOutput: {o}", sep="\n\n", none="(none)"),
    "examples": blocks("Example {n}\nInput: {x}\nOutput: {o}", first=1, none="None"),
    "examples with colons": blocks("Example {n}:\nInput: {x}\nOutput: {o}", sep="\n\n", first=1, none="None"),
    "bold examples": blocks("**Example {n}**\n**Input:** {x}\n**Output:** {o}", sep="\n\n", first=1, none="None"),
    "headed examples": blocks("### Example {n}\nInput:\n{x}\n\nOutput:\n{o}", sep="\n\n", first=1, none="None"),
    "numbered labels": blocks("Input {n}: {x}\nOutput {n}: {o}", first=1, none="None"),
    "rules between": blocks("Input: {x}\nOutput: {o}", sep="\n---\n", none="None"),
    "introduced": blocks("Input: {x}\nOutput: {o}", head="Here you are:\n\n", none="None"),
    "continued": continued(blocks("Input: {x}\nOutput: {o}", none="(none)"), "Input:"),
    "fenced": blocks("Input: {x}\nOutput: {o}", head="```\n", tail="\n```", none="None"),
    "Chinese": blocks("示例 {n}\n输入：{x}\n输出：{o}", first=1, none="无"),
    "JSON": as_json(lambda objects: [{"input": o["input"], "output": o["output"]} for o in objects]),
}
LABELLED_SHAPES: dict[str, Shape] = {
    "pairs": blocks("Class label: {o}\nInput: {x}"),
    "bare inputs": blocks("Class label: {o}\n{x}"),
    "blank lines": blocks("Class label: {o}\nInput: {x}", sep="\n\n"),
    "examples": blocks("Example {n}\nClass label: {o}\nInput: {x}", sep="\n\n", first=1),
    "bold": blocks("**Class label:** {o}\n**Input:** {x}", sep="\n\n"),
    "label on its own line": blocks("Class label:\n{o}\nInput:\n{x}", sep="\n\n"),
    "input first": blocks("Input: {x}\nClass label: {o}", sep="\n\n"),
    "short": blocks("Label: {o}\nText: {x}", sep="\n"),
    "continued": continued(blocks("Class label: {o}\nInput: {x}"), "Class label:"),
    "Chinese": blocks("类别：{o}\n输入：{x}"),
}
CASES: dict[str, list[Task]] = {
    "numbers": [("", "2 and 3", "5"), ("", "7 and 1", "8"), ("", "0 and 4", "4")],
    "texts": [("", "The soup was cold: again.", "Complaint"), ("", "Thank you!\n\nAnna", "Praise")],
    "foreign": [("", "Где почта?", "Вопрос"), ("", "邮局在左边。", "回答")],
    "one": [("", "Due in 2020. At 10:30.", "Late")],
    "traps": [("", "Example: a b c", "An output of 3"), ("", "see https://a.b/c: there", "An input: none")],
}  # fmt: skip


def lists() -> Iterator[dict[str, Any]]:
    """Replies to the list prompt."""
    for shape, fill in LIST_SHAPES.items():
        for content, tasks in CONTENTS.items():
            if (shape, content) not in UNSAYABLE:
                yield row("list", f"{shape} / {content}", fill(tasks), tasks)
    for language, tasks in NATIVE.items():
        i, x, o, _, colon = LABELS[language]
        for form in ("{{n}}. {0}{3} {{i}}\n{{n}}. {1}{3} {{x}}\n{{n}}. {2}{3} {{o}}",
                     "**{0}{3}** {{i}}\n**{1}{3}** {{x}}\n**{2}{3}** {{o}}"):  # fmt: skip
            fill = blocks(form.format(i, x, o, colon), sep="\n\n")
            yield row("list", f"labels / {language}", fill(tasks), tasks)


def row(kind: str, name: str, text: str, tasks: Sequence[Any]) -> dict[str, Any]:
    return {"kind": kind, "shape": name, "text": text, "tasks": [list(task) for task in tasks]}


def corpus() -> dict[str, list[dict[str, Any]]]:
    """Rows by file."""
    items = {name: [task[0] for task in tasks] for name, tasks in {**CONTENTS, **NATIVE}.items()}
    return {
        "lists": list(lists()),
        "items": [
            {"kind": "items", "shape": f"{shape} / {name}", "text": fill(texts), "tasks": texts}
            for shape, fill in ITEM_SHAPES.items()
            for name, texts in items.items()
        ],
        "instances": [
            row(kind, f"{shape} / {name}", fill(cases), [case[1:] for case in cases])
            for kind, shapes in (("worked", CASE_SHAPES), ("labelled", LABELLED_SHAPES))
            for shape, fill in shapes.items()
            for name, cases in CASES.items()
        ],
    }


def path(name: str) -> Path:
    return FOLDER / f"{name}.jsonl"


def dumped(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, rows in corpus().items():
        path(name).write_text(dumped(rows), "utf-8")
