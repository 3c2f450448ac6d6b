import gzip
import json
from pathlib import Path

import pytest

from selfinstruct.errors import InputError
from selfinstruct.records import Instance, TaskItem
from selfinstruct.tasks import read_tasks

OPEN = {
    "task": "rivers",
    "cluster": "geography",
    "instruction": "Name it.",
    "input": "Prague",
    "references": ["Vltava"],
}
CHOICE = {**OPEN, "references": ["yes"], "options": ["yes", "no"]}
SEED = {
    "id": "a-01",
    "name": "river",
    "instruction": "Name a river.",
    "instances": [{"input": "", "output": "Elbe"}, {"input": "France", "output": "Loire"}],
    "is_classification": False,
}
PAIR = {"cluster": "nli", "dataset": "rte", "template": "t1", "prompt": "Does it follow?", "completion": "yes"}
ALPACA = {"instruction": "Name a river.", "input": "France", "output": "Loire"}
SUPER_NI = {
    "Contributors": ["someone"],
    "Source": ["written for this"],
    "URL": [""],
    "Categories": ["Question Rewriting"],
    "Reasoning": [],
    "Definition": ["Say it", "in other words."],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Instruction_language": ["English"],
    "Domains": [],
    "Positive Examples": [{"input": "hi", "output": "hello", "explanation": "a greeting"}],
    "Negative Examples": [],
    "Instances": [
        {"id": "task042-1", "input": "a", "output": ["b", "c"]},
        {"id": "task042-2", "input": "d", "output": ["e"]},
    ],
    "Instance License": ["CC0"],
}


def lines(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def file(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


# -- forms -------------------------------------------------------------------------------------------------------------

FORMS = [
    (
        "own.jsonl",
        lines(OPEN, CHOICE, {**OPEN, "id": "mine", "metric": "exact_match", "references": ["a", "b"]}),
        [
            TaskItem("own/1", "rivers", "geography", "Name it.", "Prague", ("Vltava",)),
            TaskItem("own/2", "rivers", "geography", "Name it.", "Prague", ("yes",), ("yes", "no"), "accuracy"),
            TaskItem("mine", "rivers", "geography", "Name it.", "Prague", ("a", "b"), metric="exact_match"),
        ],
    ),
    (
        "task042_words.json",
        json.dumps(SUPER_NI, indent=4),
        [
            TaskItem(
                id,
                "task042_words",
                "Question Rewriting",
                "Say it\nin other words.",
                input,
                references,
                demonstrations=(Instance("hi", "hello"),),
            )
            for id, input, references in [("task042-1", "a", ("b", "c")), ("task042-2", "d", ("e",))]
        ],
    ),
    (
        "seeds.jsonl",
        lines(SEED),
        [
            TaskItem("a-01/0", "a-01", "seeds", "Name a river.", "", ("Elbe",)),
            TaskItem("a-01/1", "a-01", "seeds", "Name a river.", "France", ("Loire",)),
        ],
    ),
    ("pairs.jsonl", lines(PAIR), [TaskItem("pairs/1", "rte", "nli", "Does it follow?", "", ("yes",), template="t1")]),
    (
        "alpaca.json",
        json.dumps([ALPACA, {"instruction": "Name a lake.", "output": "Como"}]),
        [
            TaskItem("alpaca/1", "alpaca", "alpaca", "Name a river.", "France", ("Loire",)),
            TaskItem("alpaca/2", "alpaca", "alpaca", "Name a lake.", "", ("Como",)),
        ],
    ),
    (
        "rivers.v2.jsonl",
        lines({**ALPACA, "most_similar_instructions": {}, "avg_similarity_score": 0.1}),
        [TaskItem("rivers/1", "rivers", "rivers", "Name a river.", "France", ("Loire",))],
    ),
]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("name", "text", "items"), FORMS, ids=[form[0] for form in FORMS])
def test_every_form_is_read(tmp_path, name, text, items, suffix):
    assert read_tasks([file(tmp_path, name + suffix, text)]) == items


def test_folder_is_read_by_name_and_other_files_are_left(tmp_path):
    file(tmp_path, "b.jsonl", lines(OPEN))
    file(tmp_path, "a.json.gz", json.dumps([ALPACA]))
    file(tmp_path, "README.md", "# Tasks")
    file(tmp_path, "below/c.jsonl", lines(OPEN))
    extra = file(tmp_path / "elsewhere", "0", lines(OPEN))  # a file named on purpose needs no suffix
    assert [item.id for item in read_tasks([tmp_path])] == ["a/1", "b/1"]
    assert [item.id for item in read_tasks([extra, tmp_path])] == ["0/1", "a/1", "b/1"]


def test_demonstrations_of_an_item(tmp_path):
    row = {**OPEN, "demonstrations": [{"input": "Dresden", "output": "Elbe"}]}
    assert read_tasks([file(tmp_path, "a.jsonl", lines(row))])[0].demonstrations == (Instance("Dresden", "Elbe"),)


def test_super_ni_without_ids_or_category_and_with_plain_texts(tmp_path):
    task = {"Definition": "Say it.", "Instances": [{"input": "a", "output": "b"}]}
    assert read_tasks([file(tmp_path, "t.json", json.dumps(task))]) == [
        TaskItem("t/0", "t", "super-naturalinstructions", "Say it.", "a", ("b",))
    ]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        # this project's own form
        ({k: v for k, v in OPEN.items() if k != "task"}, "task", "is missing"),
        ({**OPEN, "task": ""}, "task", "at least 1 character"),
        ({**OPEN, "cluster": 3}, "cluster", "valid string, not 3"),
        ({**OPEN, "instruction": ""}, "instruction", "at least 1 character"),
        ({**OPEN, "input": None}, "input", "valid string"),
        ({**OPEN, "references": "Vltava"}, "references", "valid list, not 'Vltava'"),
        ({**OPEN, "references": []}, "references", "at least 1 item"),
        ({**OPEN, "references": ["a", ""]}, "references.1", "at least 1 character"),
        ({**OPEN, "reference": ["a"]}, "reference", "is not a known field"),
        ({**OPEN, "metric": "bleu"}, "metric", "not 'bleu'"),
        ({**OPEN, "metric": "accuracy_per_token"}, "metric", "accuracy_per_token needs options"),
        ({**OPEN, "metric": "option_match"}, "metric", "option_match needs options"),
        (
            {**OPEN, "references": [{"type": "object"}]},
            "references",
            "must be texts. Objects are for the metric json",
        ),
        ({**OPEN, "metric": "accuracy"}, "metric", "accuracy needs options to choose from"),
        ({**CHOICE, "options": ["yes"]}, "options", "at least two different"),
        ({**CHOICE, "options": ["yes", "no", "yes"]}, "options", "at least two different"),
        ({**CHOICE, "options": ["yes", ""]}, "options.1", "at least 1 character"),
        ({**CHOICE, "references": ["Yes"]}, "references", "'Yes' is none of the options. Write it exactly"),
        ({**OPEN, "demonstrations": [{"input": "a"}]}, "demonstrations.0.output", "is missing"),
        ({**OPEN, "id": 7.5}, "id", "valid string, not 7"),
        # the others
        ({**SEED, "name": None}, "name", "valid string"),
        ({**SEED, "instances": []}, "instances", "at least 1 item"),
        ({**PAIR, "completion": ""}, "completion", "at least 1 character"),
        ({**PAIR, "cluster": ""}, "cluster", "at least 1 character"),
        ({"prompt": "a", "completion": "b"}, "cluster", "is missing"),
        ({**PAIR, "shots": 3}, "shots", "is not a known field"),
        ({**ALPACA, "output": ""}, "output", "at least 1 character"),
        ({**ALPACA, "instruction": ["a"]}, "instruction", "valid string"),
        ({"text": "?"}, "task", "is missing"),
    ],
)
def test_wrong_row_is_named(tmp_path, row, field, problem):
    path = file(tmp_path, "a.jsonl", lines(OPEN) + "\n" + lines(row))
    with pytest.raises(InputError, match=problem) as caught:
        read_tasks([path])
    assert (caught.value.path, caught.value.line, caught.value.field) == (path, 3, field)
    path = file(tmp_path, "a.json", json.dumps([OPEN, row], indent=1))
    with pytest.raises(InputError, match=problem) as caught:
        read_tasks([path])
    assert (str(caught.value.path), caught.value.line, caught.value.field) == (f"{path}[1]", None, field)


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"Definition": []}, "Definition", "at least 1 item"),
        ({"Definition": 3}, "Definition", "valid string"),
        ({"Categories": []}, "Categories", "at least 1 item"),
        ({"Instances": []}, "Instances", "at least 1 item"),
        ({"Instances": [{"input": "a", "output": []}]}, "Instances.0.output", "at least 1 item"),
        ({"Instances": [{"input": "a"}]}, "Instances.0.output", "is missing"),
        ({"Positive Examples": [{"output": "a"}]}, "Positive Examples.0.input", "is missing"),
    ],
)
def test_wrong_super_ni_task_is_named(tmp_path, change, field, problem):
    path = file(tmp_path, "t.json", json.dumps({**SUPER_NI, **change}))
    with pytest.raises(InputError, match=problem) as caught:
        read_tasks([path])
    assert caught.value.path == path
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", "{broken\n", r"a\.jsonl:1: is not valid JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: must be a JSON object"),
        ("a.json", "[3]", r"a\.json\[0\]: must be a JSON object"),
        ("a.json", "{broken", r"a\.json:1: is not valid JSON"),
        ("a.json", '{"rows": []}', "is neither a list of rows nor a Super-NaturalInstructions task"),
        ("a.json", "3", "is neither a list of rows nor a Super-NaturalInstructions task"),
        ("a.jsonl", "\n", r"a\.jsonl: no item found"),
        ("a.json", "[]", r"a\.json: no item found"),
    ],
)
def test_file_without_items_is_refused(tmp_path, name, text, problem):
    with pytest.raises(InputError, match=problem):
        read_tasks([file(tmp_path, name, text)])


def test_missing_file_and_empty_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        read_tasks([tmp_path / "absent.jsonl"])
    with pytest.raises(InputError, match="no item found"):
        read_tasks([tmp_path])


def test_id_is_used_once_over_all_files(tmp_path):
    first = file(tmp_path, "a.jsonl", lines({**OPEN, "id": "x"}))
    second = file(tmp_path, "b.jsonl", lines(OPEN, {**OPEN, "id": "x"}))
    with pytest.raises(InputError, match="'x' is used twice") as caught:
        read_tasks([first, second])
    assert (caught.value.path, caught.value.line, caught.value.field) == (second, 2, "id")
    with pytest.raises(InputError, match="gets its file's name and its number"):
        read_tasks([second, file(tmp_path / "below", "b.jsonl", lines(OPEN))])


def test_options_without_ranking_and_numbers_as_ids_are_taken(tmp_path):
    rows = [{**CHOICE, "id": 7, "metric": "exact_match"}, {**OPEN, "options": None}]
    chosen, generated = read_tasks([file(tmp_path, "a.jsonl", "\n".join(map(lines, rows)))])
    assert (chosen.id, chosen.metric, chosen.options) == ("7", "exact_match", ())
    assert (generated.metric, generated.options) == ("rouge_l", ())


def test_options_are_kept_for_the_metrics_that_choose_among_them(tmp_path):
    rows = [{**CHOICE, "metric": metric} for metric in ("accuracy_per_character", "option_match", "exact_match")]
    ranked, named, free = read_tasks([file(tmp_path, "choices.jsonl", lines(*rows))])
    assert (ranked.metric, ranked.options) == ("accuracy_per_character", ("yes", "no"))
    assert (named.metric, named.options) == ("option_match", ("yes", "no"))
    assert free.options == ()


def test_a_schema_may_be_an_object_or_its_text(tmp_path):
    rows = [{**OPEN, "metric": "json_schema", "references": [schema]} for schema in ({"type": "object"}, "{}")]
    schema, text = read_tasks([file(tmp_path, "schemas.jsonl", lines(*rows))])
    assert json.loads(schema.references[0]) == {"type": "object"}
    assert text.references == ("{}",)


def test_an_item_may_give_other_wordings(tmp_path):
    (item,) = read_tasks([file(tmp_path, "w.jsonl", lines({**OPEN, "wordings": ["Which one?", "Say it."]}))])
    assert item.wordings == ("Which one?", "Say it.")


def test_a_data_set_is_read_by_name(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{**OPEN, "options": None}, {**CHOICE, "input": "Bonn"}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "rivers")
    first, second = read_tasks([Path(f"datasets:{tmp_path / 'rivers'}")])
    assert (first.id, first.options, first.metric) == ("rivers/1", (), "rouge_l")
    assert (second.id, second.options, second.input) == ("rivers/2", ("yes", "no"), "Bonn")
    with pytest.raises(InputError, match=r"wrong\.csv:2: field 'input': is missing"):
        read_tasks([Path(f"datasets:{file(tmp_path, 'wrong.csv', 'task,cluster,instruction' + chr(10) + 'a,b,c')}")])
