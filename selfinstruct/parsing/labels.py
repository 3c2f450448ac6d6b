"""The labels that stand before the parts of a task, in the languages and the markdown in which models write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Field = Literal["instruction", "input", "output", "label"]

# By field, what it is usually called in English, Chinese, Japanese, Korean, German, French, Spanish, Portuguese,
# Italian, Russian and Arabic; first the names that mean nothing else.
_NAMES: dict[Field, str] = {
    "instruction": "instructions?|指令|指示|지시문|지시사항|지시|명령|anweisung|instruktion|consigne"
    "|instrucci[oó]n(?:es)?|instru[cç](?:ão|ao|ões)|istruzion[ei]|инструкция|التعليمات|تعليمات|التعليمة",
    "input": "inputs?|输入|輸入|入力|입력|eingabe|entr[ée]e|entrada|входные данные|входной текст|ввод|вход"
    "|المدخلات|المدخل|مدخل|الإدخال",
    "output": "outputs?|expected output|输出|輸出|出力|출력|ausgabe|sortie|salida|sa[ií]da|выходные данные|вывод|выход"
    "|المخرجات|المخرج|الإخراج|الناتج",
    "label": "class label|类别标签|类别|類別|クラスラベル|クラス|분류|클래스|klassenlabel|klasse|classe|clase"
    "|метка класса|класс|الفئة|الصنف",
}  # fmt: skip
# Names that may be part of a text; labels only where the field has no other.
_WEAK_NAMES: dict[Field, str] = {
    "instruction": "task|任务|任務|タスク|課題|과제|작업|aufgabe|t[âa]che|tarea|tarefa|compito|задание|задача|المهمة",
    "input": "text|文本|テキスト|텍스트|texte|texto|testo|текст|النص",
    "output": "answer|response|答案|回答|答え|응답|답변|antwort|r[ée]ponse|respuesta|resposta|risposta|ответ"
    "|الإجابة|إجابة",
    "label": "label|category|标签|標籤|ラベル|カテゴリー?|라벨|레이블|etikett|[ée]tiquette|etiqueta|r[óo]tulo|etichetta"
    "|метка|категория|التصنيف",
}  # fmt: skip
TASK_WORDS = _WEAK_NAMES["instruction"]
EXAMPLE_WORDS = "example|instance|示例|例子|範例|例|예시|beispiel|exemple|ejemplo|exemplo|esempio|пример|مثال"

SPACE = "[ \t\u3000\xa0]"
MARKUP = "[ \t\u3000\xa0>#*_`|~•-]{0,16}"  # headings, bold, lists, quotations, tables
COLON = "[:：﹕]"
NUMBER = rf"[（(\[]?(?P<number>\d{{1,3}}){SPACE}?[.．。、)）\]:：]"
_GROUPS = "|".join(
    f"(?P<{kind}{field}>{names})"
    for field in _NAMES
    for kind, names in (("", _NAMES[field]), ("weak_", _WEAK_NAMES[field]))
)
# "4. Input:", "**Output:**", "### 5. 输入：", "| Input |", "- Input 2:"; alone on its line as a heading or in bold.
_LABEL = re.compile(
    rf"^(?P<markup>{MARKUP})(?:{NUMBER}{SPACE}{{0,4}}(?:[*_`]{{1,3}}{SPACE}{{0,4}}){{0,2}})?[\[【]?(?:{_GROUPS})"
    rf"(?:{SPACE}?[(（]?\d{{1,3}}[)）]?)?[\]】]?[*_` \t]{{0,4}}"
    rf"(?:(?:{COLON}|(?<=[ \t])\|)(?:[*_]{{1,3}}|`(?!`))?{SPACE}{{0,16}}|(?P<alone>$))",
    re.M | re.I,
)
_KEY = re.compile(rf"(?:{_GROUPS})", re.I)


@dataclass(frozen=True, slots=True)
class Label:
    """A label in a reply.

    Attributes:
        field: What it stands before.
        number: Of the task, where it says one.
        is_telling: Whether its name means nothing else.
        start, end: Its place in the text, markup included.
    """

    field: Field
    number: int | None
    is_telling: bool
    start: int
    end: int


def find_labels(text: str) -> list[Label]:
    """The labels that begin a line, in order; of each field only those of the more telling names that it has."""
    marks = [mark for mark in _LABEL.finditer(text) if mark["alone"] is None or set("#*【") & set(mark[0])]
    named = [(*_field(mark), mark) for mark in marks]
    telling = {field for field, weak, _ in named if not weak}
    return [
        Label(field, int(mark["number"]) if mark["number"] else None, not weak, mark.start(), mark.end())
        for field, weak, mark in named
        if not (weak and field in telling)
    ]


def field_of(name: str) -> Field | None:
    """The field that a column or a key names, if it names one."""
    mark = _KEY.fullmatch(name.strip(" \t*_`").replace("_", " "))
    return _field(mark)[0] if mark else None


def _field(mark: re.Match[str]) -> tuple[Field, bool]:
    """The field that a label names, and whether by one of its weaker names."""
    for field in _NAMES:
        if mark[field] or mark[f"weak_{field}"]:
            return field, not mark[field]
    raise AssertionError("every alternative is a field's")
