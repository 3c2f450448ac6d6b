"""The texts of prompts, by language: English and Chinese in full, others in English with the language to write in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfinstruct.languages import language_name


@dataclass(frozen=True, slots=True)
class Wording:
    """Labels and sentences of prompts.

    Attributes:
        language: What tasks are written in, as the sentences say it.
        colon: What stands between a label and its text.
        none: In place of an input that a task does without.
        series: What a list to be continued begins with.
        classification_series: The same for classification tasks only.
        listed: What stands before a list in a chat.
        go_on: What is asked of a chat model after the list, {first} to {last}.
        classification_only: Added where only classification tasks are wanted.
        as_list, as_json: In which form to answer.
        is_classification: Before the demonstrations of the second step.
        question: Its question, at the end of each.
        yes_or_no: Added in a chat.
        input_first, output_first: Before the demonstrations of the third step, for one instance.
        inputs_first, outputs_first: The same for up to {n}.
        now: What is asked of a chat model after them; ends before the first label.
        write_in: Added to a request where nothing else tells the language.
        requirements: Before the demonstrations of a list of {n} whole tasks.
        tasks_as_json: After them, where the {m} new ones are wanted as JSON.
    """

    language: str
    task: str
    instruction: str
    input: str
    output: str
    label: str
    example: str
    colon: str
    none: str
    yes: str
    no: str
    series: str
    classification_series: str
    listed: str
    go_on: str
    classification_only: str
    as_list: str
    as_json: str
    is_classification: str
    question: str
    yes_or_no: str
    input_first: str
    output_first: str
    inputs_first: str
    outputs_first: str
    now: str
    write_in: str
    requirements: str
    tasks_as_json: str


_ENGLISH = Wording(
    language="English",
    task="Task",
    instruction="Instruction",
    input="Input",
    output="Output",
    label="Class label",
    example="Example",
    colon=": ",
    none="(none)",
    yes="Yes",
    no="No",
    series="Come up with a series of tasks",
    classification_series="Come up with a series of classification tasks; where you can, name the possible labels",
    listed="Here is a list of tasks that people gave to a text-only assistant:",
    go_on="Go on with the list: write tasks {first} to {last}. Each must be new, unlike all others in subject, kind and"
    " wording, possible to do by reading and writing alone, and complete: if it works on a text, say what kind of text,"
    " but leave the text itself out.",
    classification_only=" All are classification tasks; where you can, name the possible labels.",
    as_list=" Answer with the numbered list only, one task a line.",
    as_json=' Answer with JSON only: {"tasks": ["...", "..."]}.',
    is_classification="Is the answer to a task one of a few fixed labels? Then it is a classification task.",
    question="Is it classification?",
    yes_or_no=" Answer Yes or No.",
    input_first='Write one example for each task: an input, or "(none)" where the task needs none, and the output.',
    output_first="Write one example for each task: first the class label, then an input to which it belongs.",
    inputs_first='Write examples for each task, up to {n} where they can differ: an input, or "(none)" where the task'
    " needs none, and the output.",
    outputs_first="Write examples for each task, up to {n} with different labels: first the class label, then an input"
    " to which it belongs.",
    now="Now write for the last task only, in the same form, beginning with ",
    write_in="",
    requirements="""\
Write {n} varied tasks for a text-only assistant, each with an input and the assistant's output. They serve to test how
well a language model follows instructions. What matters:
1. Begin tasks with many different verbs, and repeat none if you can.
2. Vary the form: questions, commands, requests, short briefs.
3. Vary the kind: open writing, classification, editing, extraction, question answering, planning, reasoning, and so on.
4. A language model must be able to do it with text alone: nothing to see, hear, open, look up or remind of.
5. Everything is in {language}.
6. A task takes one or two sentences, as a command or a question.
7. The input is concrete and realistic, no stand-in, and at most 100 words. A task that needs none has "<noinput>".
8. The output answers the task for that input, correctly, in at most 100 words.

The {n} tasks:
""",
    tasks_as_json='Write the other {m} tasks. Answer with JSON only: {{"tasks": [{{"instruction": "...",'
    ' "input": "...", "output": "..."}}]}}; the input is "" where a task needs none.',
)

_CHINESE = Wording(
    language="中文",
    task="任务",
    instruction="指令",
    input="输入",
    output="输出",
    label="类别",
    example="示例",
    colon="：",
    none="（无）",
    yes="是",
    no="否",
    series="请写出一系列任务",
    classification_series="请写出一系列分类任务，尽量注明可选的类别",
    listed="下面是人们交给一个纯文本助手的任务清单：",
    go_on="请接着写下去：写出第 {first} 到第 {last} 个任务。每个任务都要是新的，题材、类型和措辞都与其他任务不同；"
    "只靠阅读和写作就能完成；表述要完整：如果任务要处理一段文本，请说明是什么样的文本，但不要写出文本本身。",
    classification_only="全部都是分类任务，尽量注明可选的类别。",
    as_list="只回答带编号的清单，每行一个任务。",
    as_json='只用 JSON 回答：{"tasks": ["……", "……"]}。',
    is_classification="如果一个任务的答案是少数几个固定类别之一，它就是分类任务。",
    question="这是分类任务吗？",
    yes_or_no="请回答“是”或“否”。",
    input_first="请为每个任务写一个例子：先写输入（任务不需要输入时写“（无）”），再写输出。",
    output_first="请为每个任务写一个例子：先写类别，再写属于该类别的输入。",
    inputs_first="请为每个任务写例子，能有变化时最多写 {n} 个：先写输入（任务不需要输入时写“（无）”），再写输出。",
    outputs_first="请为每个任务写例子，最多 {n} 个，类别各不相同：先写类别，再写属于该类别的输入。",
    now="现在只为最后一个任务写，格式与上面相同，开头是",
    write_in="请用中文写。",
    requirements="""\
请为一个纯文本助手写 {n} 个各不相同的任务，每个任务都带有输入和助手的输出，用来检验语言模型听从指令的能力。要求：
1. 任务开头的动词要多样，尽量不重复。
2. 形式要多样：提问、命令、请求、简短说明。
3. 类型要多样：自由写作、分类、修改、信息提取、问答、计划、推理等等。
4. 语言模型只靠文字就能完成：不需要看图、听音、打开文件、上网查找或定时提醒。
5. 全部用{language}写。
6. 一个任务用一两句话说完，可以是命令，也可以是问题。
7. 输入要具体、真实，不用占位文字，不超过 150 字。不需要输入的任务写“<noinput>”。
8. 输出要针对该输入正确完成任务，不超过 150 字。

{n} 个任务如下：
""",
    tasks_as_json='请写出其余 {m} 个任务。只用 JSON 回答：{{"tasks": [{{"instruction": "……", "input": "……",'
    ' "output": "……"}}]}}；不需要输入时 input 为 ""。',
)


def wording(language: str) -> Wording:
    """The texts for a language (ISO 639-1), in that language where they are written in it."""
    code = language.split("-")[0].lower()
    if code in ("en", "zh"):
        return _CHINESE if code == "zh" else _ENGLISH
    name = language_name(language)
    return replace(
        _ENGLISH,
        language=name,
        series=f"{_ENGLISH.series} in {name}",
        classification_series=f"{_ENGLISH.classification_series}; in {name}",
        write_in=f" Write in {name}.",
    )
