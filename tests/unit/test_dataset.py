import pytest

from selfinstruct.dataset import dataset_path, dataset_rows, read_dataset
from selfinstruct.errors import InputError
from selfinstruct.files import write_jsonl
from selfinstruct.records import Example, Instance, Neighbour, Source

SOURCE = Source("self-instruct", "embedded", 7, "p1", "c1", ("seed-1", "7-0"))
ONE = Example(
    "7-0", "Name a river.", (Instance("", "Elbe"),), False, source=SOURCE, nearest=(Neighbour("seed-1", 0.5),)
)
THREE = Example("8-0", "Good or bad?", (Instance("a", "good"), Instance("b", "bad"), Instance("c", "good")), True)


def written(path, *examples):
    write_jsonl(path, (row for example in examples for row in dataset_rows(example)))
    return path


def test_one_row_an_instance():
    assert next(dataset_rows(ONE)) == {
        "id": "7-0",
        "instruction": "Name a river.",
        "input": "",
        "output": "Elbe",
        "is_classification": False,
        "source": {
            "strategy": "self-instruct",
            "model": "embedded",
            "slot": 7,
            "prompt_key": "p1",
            "completion_key": "c1",
            "demonstrations": ("seed-1", "7-0"),
        },
        "nearest": [{"id": "seed-1", "score": 0.5}],
    }
    assert [row["id"] for row in dataset_rows(THREE)] == ["8-0", "8-0/2", "8-0/3"]


def test_round_trip(tmp_path):
    assert read_dataset(written(tmp_path / "dataset.jsonl", ONE, THREE)) == [ONE, THREE]


def test_row_that_only_looks_like_a_further_instance_stays_its_own(tmp_path):
    other = Example("7-0/2", "Name a lake.", (Instance("", "Bodensee"),), False)
    assert read_dataset(written(tmp_path / "dataset.jsonl", ONE, other)) == [ONE, other]


TEMPLATED = {
    "id": "films/1f/verdict", "instruction": "Good or bad?", "input": "Fine.", "output": "good",
    "is_classification": True, "cluster": "sentiment", "dataset": "films", "template": "verdict",
}  # fmt: skip


def test_rows_of_templates_are_read_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    unknown = {name: value for name, value in TEMPLATED.items() if name != "is_classification"}
    write_jsonl(path, [TEMPLATED, {**unknown, "id": "films/2a", "template": ""}])
    instances = (Instance("Fine.", "good"),)
    assert read_dataset(path) == [
        Example("films/1f/verdict", "Good or bad?", instances, True),
        Example("films/2a", "Good or bad?", instances, False),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "field 'colour': is not a known field"),
        ({"cluster": 3}, "field 'cluster'"),
        ({"output": ""}, "field 'output'"),
        ({"source": None}, "field 'source': is not a known field"),
    ],
)
def test_wrong_row_of_templates_is_named(tmp_path, change, message):
    write_jsonl(tmp_path / "rows.jsonl", [{**TEMPLATED, **change}])
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": ""}, "field 'output'"),
        ({"colour": "red"}, "field 'colour': is not a known field"),
        ({"is_classification": "no"}, "field 'is_classification'"),
        ({"source": {"strategy": "x"}}, "field 'source.model': is missing"),
        ({"nearest": [{"id": "a", "score": 70}]}, "field 'nearest.0.score'"),
        ({"id": "7-0"}, "used twice"),
    ],
)
def test_wrong_row_is_named(tmp_path, change, message):
    path = tmp_path / "dataset.jsonl"
    write_jsonl(path, [next(dataset_rows(ONE)), {**next(dataset_rows(THREE)), **change}])
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(path)
    assert caught.value.line == 2


def test_empty_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no row"):
        read_dataset(written(tmp_path / "dataset.jsonl"))


def test_path_of_a_run_or_file(tmp_path):
    with pytest.raises(InputError, match="Let the run finish"):
        dataset_path(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        dataset_path(tmp_path / "absent")
    path = written(tmp_path / "dataset.jsonl", ONE)
    assert dataset_path(tmp_path) == dataset_path(path) == path
