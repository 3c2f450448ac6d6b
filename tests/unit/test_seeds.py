import gzip
import json

import pytest

from selfinstruct.errors import InputError
from selfinstruct.records import Example, Instance
from selfinstruct.seeds import read_seeds

SEED = {
    "id": "a-01",
    "name": "river",
    "instruction": "Name a river.",
    "instances": [{"input": "", "output": "Elbe"}, {"input": "France", "output": "Loire"}],
    "is_classification": False,
}


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_seeds_in_the_order_of_the_file(tmp_path, pack):
    path = tmp_path / ("seeds.jsonl" if pack(b"") == b"" else "seeds.jsonl.gz")
    lines = [SEED, {**SEED, "id": "é", "is_classification": True}]
    path.write_bytes(pack("\n\n".join(json.dumps(line) for line in lines).encode()))
    instances = (Instance("", "Elbe"), Instance("France", "Loire"))
    assert read_seeds(path) == [
        Example("a-01", "Name a river.", instances, False, "river"),
        Example("é", "Name a river.", instances, True, "river"),
    ]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"id": "a-01"}, "id", "'a-01' is used twice"),
        ({"id": ""}, "id", "at least 1 character"),
        ({"id": 7}, "id", "valid string, not 7"),
        ({"name": None}, "name", "valid string, not None"),
        ({"instruction": ""}, "instruction", "at least 1 character"),
        ({"instances": []}, "instances", "at least 1 item"),
        ({"instances": {"input": "", "output": "x"}}, "instances", "valid list"),
        ({"instances": [{"input": "", "output": ""}]}, "instances.0.output", "at least 1 character"),
        ({"instances": [{"input": None, "output": "x"}]}, "instances.0.input", "valid string"),
        ({"instances": [{"output": "x"}]}, "instances.0.input", "is missing"),
        ({"instances": [{"input": "", "output": "x", "note": ""}]}, "instances.0.note", "is not a known field"),
        ({"is_classification": "no"}, "is_classification", "valid boolean"),
        ({"is_classification": 1}, "is_classification", "valid boolean"),
        ({"colour": "red"}, "colour", "is not a known field"),
        ({"instruction": "\ud83d"}, "instruction", "valid string"),  # half of a pair, as JSON may spell it
    ],
)
def test_wrong_seed_is_named(tmp_path, change, field, problem):
    path = tmp_path / "seeds.jsonl"
    path.write_text(f"{json.dumps(SEED)}\n\n{json.dumps({**SEED, 'id': 'other', **change})}\n")
    with pytest.raises(InputError, match=problem) as caught:
        read_seeds(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (path, 3, field)


@pytest.mark.parametrize("missing", list(SEED))
def test_missing_field_is_named(tmp_path, missing):
    path = tmp_path / "seeds.jsonl"
    path.write_text(json.dumps({name: value for name, value in SEED.items() if name != missing}))
    with pytest.raises(InputError, match=f"seeds.jsonl:1: field '{missing}': is missing"):
        read_seeds(path)


def test_file_without_a_seed_is_refused(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n \n")
    with pytest.raises(InputError, match=r"seeds\.jsonl: holds no seed task"):
        read_seeds(path)
    with pytest.raises(InputError, match="no such file"):
        read_seeds(tmp_path / "absent.jsonl")
