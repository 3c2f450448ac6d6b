"""`selfinstruct templates` from files to what training and evaluation read."""

import builtins
import gzip
import json
from dataclasses import astuple

import pytest

from finetune.rows import read_rows
from selfinstruct.cli import GROUP as SELFINSTRUCT
from selfinstruct.command import LazyCommand, LazyGroup, run_program
from selfinstruct.dataset import read_dataset
from selfinstruct.files import shipped, to_toml
from selfinstruct.tasks import read_tasks

GROUP = LazyGroup(
    {
        "templates": LazyCommand(
            "selfinstruct.templating", "templates", "TemplatesConfig", "From labelled data.", arguments=("source",)
        )
    },
    help="One command.",
    distribution="selfinstruct",
)
ANIMALS = ["owl", "hen", "cat", "cow", "dog", "fox", "ape", "bee", "elk", "eel", "ant", "asp", "bat", "cod", "doe"]
PAIRS = [
    {"premise": f"The {one} sees the {two}.", "hypothesis": f"Nothing sees the {two}.", "label": number % 3}
    for number, (one, two) in enumerate((one, two) for one in ANIMALS for two in ANIMALS if one < two)
]
NLI = ["--labels", "0=entailment", "1=neutral", "2=contradiction"]
P3 = [
    {
        "cluster": cluster, "dataset": dataset, "template": f"t{number % 2}",
        "prompt": f" Say {dataset} {number}:\n", "completion": f"{dataset} {number}",
    }
    for cluster, dataset in (("sentiment", "shop"), ("data-to-text", "cards"), ("topic", "mail"))
    for number in range(4)
]  # fmt: skip


def run(*args):
    return run_program(GROUP, "selfinstruct", ["templates", *map(str, args)])


def write_rows(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def pairs(tmp_path):
    return write_rows(tmp_path / "pairs.jsonl", PAIRS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "rows.jsonl"


def summary_of(capsys):
    return json.loads(capsys.readouterr().out)


# -- what is written ---------------------------------------------------------------------------------------------------


def test_labelled_rows_become_training_rows(pairs, out, capsys):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--json") == 0
    summary = summary_of(capsys)
    rows = rows_in(out)
    assert len(rows) == len(PAIRS)
    assert all(
        list(row) == ["id", "instruction", "input", "output", "is_classification", "cluster", "dataset", "template"]
        and (row["cluster"], row["dataset"]) == ("inference", "pairs")
        and row["id"].startswith("pairs/")
        and row["id"].endswith(f"/{row['template']}")
        for row in rows
    )
    assert len({row["id"] for row in rows}) == len(rows)
    taken = list(read_rows(out))
    assert [(row.instruction, row.input, row.output) for row in taken] == [
        (row["instruction"], row["input"], row["output"]) for row in rows
    ]
    assert summary == {
        "path": str(out),
        "rows_read": len(PAIRS),
        "rows_written": len(PAIRS),
        "left_out": {},
        "clusters": {"inference": len(PAIRS)},
        "templates": {
            name: sum(row["template"] == name for row in rows) for name in sorted({r["template"] for r in rows})
        },
        "labels": {"contradiction": 35, "entailment": 35, "neutral": 35},
    }
    assert len(summary["templates"]) == 13  # with 105 rows each is drawn


def test_summary_for_people(pairs, out, capsys):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--only", "does_it_follow", "--max-rows", 5) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{out}: 5 rows written, 105 read\n  left out      100  max_rows\n  cluster         5  inf")
    assert text.endswith("  template        5  does_it_follow\n")


def test_the_same_again_and_another_seed(pairs, tmp_path):
    outs = [tmp_path / name for name in "abc"]
    for path, seed in zip(outs, (1, 1, 2), strict=True):
        assert run(pairs, "--task", "inference", *NLI, "--out", path, "--seed", seed) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    changed = sum(a["template"] != b["template"] for a, b in zip(rows_in(outs[0]), rows_in(outs[2]), strict=True))
    assert changed > len(PAIRS) / 2


def test_more_rows_change_no_other_row(pairs, tmp_path, out):
    assert run(pairs, "--task", "inference", *NLI, "--out", out) == 0
    new = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0}
    (tmp_path / "more").mkdir()
    more = write_rows(tmp_path / "more" / "pairs.jsonl", [new, *PAIRS[::-1], new])
    assert run(more, "--task", "inference", *NLI, "--out", tmp_path / "more.jsonl") == 0
    before, after = rows_in(out), rows_in(tmp_path / "more.jsonl")
    assert len(after) == len(before) + 1  # the second of two equal rows is left out
    assert after[1:] == before[::-1]


def test_rows_that_differ_in_the_label_alone_are_two(tmp_path, out):
    data = write_rows(tmp_path / "two.jsonl", [PAIRS[0], {**PAIRS[0], "label": 1}])
    assert run(data, "--task", "inference", *NLI, "--out", out, "--only", "claim_below_a_text") == 0
    assert [row["output"] for row in rows_in(out)] == ["certainly true", "undecided"]
    assert len({row["id"] for row in rows_in(out)}) == 2


def test_several_templates_per_row(pairs, out, capsys):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--templates-per-row", 3, "--json") == 0
    rows = rows_in(out)
    assert len(rows) == 3 * len(PAIRS)
    assert len({row["id"] for row in rows}) == len(rows)
    one = out.with_name("one.jsonl")
    assert run(pairs, "--task", "inference", *NLI, "--out", one) == 0
    assert [row["id"] for row in rows_in(one)] == [row["id"] for row in rows[::3]]


def test_caps(pairs, out, capsys):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--per-template-max", 4, "--json") == 0
    summary = summary_of(capsys)
    assert max(summary["templates"].values()) == 4
    assert summary["left_out"] == {"per_template_max": len(PAIRS) - summary["rows_written"]}
    drawn = []
    for seed in range(2):
        path = out.with_name(f"{seed}.jsonl")
        assert run(pairs, "--task", "inference", *NLI, "--out", path, "--max-rows", 20, "--seed", seed, "--json") == 0
        assert summary_of(capsys)["left_out"] == {"max_rows": 85}
        drawn.append({row["id"].split("/")[1] for row in rows_in(path)})
    assert len(drawn[0]) == len(drawn[1]) == 20
    assert drawn[0] != drawn[1]


def test_options_and_directions(pairs, out):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--no-options", "--no-reversed") == 0
    rows = rows_in(out)
    assert not any("OPTIONS" in row["instruction"] + row["input"] for row in rows)
    assert not {row["template"] for row in rows} & {"write_the_hypothesis", "write_the_premise", "finish_the_exercise"}


def test_foreign_columns_constants_and_own_templates(tmp_path, out):
    data = write_rows(tmp_path / "wmt.jsonl.gz", [{"translation": {"de": "Ja {x}.", "en": "Yes {x}."}}])
    flags = ["--map", "source=translation.de", "--map", "target=translation.en"]
    flags += ["--constant", "source_language=German", "target_language=English", "--dataset", "wmt16"]
    assert run(data, "--task", "translation", *flags, "--only", "two_lines", "--out", out) == 0
    (row,) = rows_in(out)
    assert (row["instruction"], row["output"], row["dataset"]) == ("German: Ja {x}.\nEnglish:", "Yes {x}.", "wmt16")
    own = tmp_path / "rhymes.toml"
    file = {
        "about": "Rhymes.",
        "fields": {"word": {"about": "A word."}, "rhyme": {"about": "One that rhymes."}},
        "templates": [{"name": "ask", "instruction": 'What rhymes with "{word}"?', "output": "{rhyme}"}],
    }
    own.write_text(to_toml(file))
    data = write_rows(tmp_path / "words.jsonl", [{"word": "hat", "rhyme": "cat"}])
    assert run(data, "--task", own, "--out", out, "--overwrite") == 0
    assert rows_in(out)[0]["instruction"] == 'What rhymes with "hat"?'
    assert rows_in(out)[0]["cluster"] == "rhymes"


def test_rows_that_only_unfit_templates_are_left_for_are_counted(tmp_path, out, capsys):
    rows = [{"text": "Good.", "label": "positive"}, {"text": "a b c d e f g h", "label": "negative"}]
    data = write_rows(tmp_path / "short.jsonl", rows)
    assert run(data, "--task", "sentiment", "--only", "continue_in_mood", "--out", out, "--json") == 0
    assert summary_of(capsys)["left_out"] == {"unusable": 1}


# -- held-out tasks ----------------------------------------------------------------------------------------------------


def test_held_out_tasks_are_read_by_evaluation(pairs, out):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--format", "tasks", "--dataset", "animals") == 0
    items = read_tasks([out])
    assert len(items) == len(PAIRS)
    assert {(item.task, item.cluster, item.metric) for item in items} == {("animals", "inference", "accuracy")}
    assert all(item.references[0] in item.options for item in items)
    assert not any("write_the" in item.id or "finish" in item.id for item in items)


def test_generated_answers_keep_all_references(tmp_path, out):
    data = write_rows(tmp_path / "qa.jsonl", [{"q": f"Who is {n}?", "a": ["Nobody", f"No. {n}"]} for n in range(9)])
    flags = ["--map", "question=q", "answer=a", "--format", "tasks"]
    assert run(data, "--task", "closed_book_qa", *flags, "--out", out) == 0
    items = read_tasks([out])
    assert {item.metric for item in items} == {"exact_match"}
    assert {item.references for item in items} == {("Nobody", f"No. {n}") for n in range(9)}


def test_every_cluster_goes_into_both_readers(tmp_path, out):
    from tests.unit.test_templating import ROWS, TOPICS

    for name, rows in ROWS.items():
        data = write_rows(tmp_path / f"{name}-data.jsonl", rows)
        labels = ["--labels", *TOPICS] if name == "topic" else []
        base = [data, "--task", name, *labels, "--out", out, "--overwrite", "--templates-per-row", 20]
        assert run(*base) == 0
        assert len(list(read_rows(out))) == len(rows_in(out)) >= 10 * len(rows)
        assert run(*base, "--format", "tasks") == 0
        assert len(read_tasks([out])) == len(rows_in(out)) >= 7 * len(rows)


def exported(source, tmp_path, form):
    path = tmp_path / f"exported.{form}"
    assert run_program(SELFINSTRUCT, "selfinstruct", ["export", str(source), "--format", form, "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize("kind", ["templates", "p3"])
def test_what_is_written_goes_into_every_reader_of_data(tmp_path, pairs, out, kind):
    import pyarrow.parquet as pq

    if kind == "templates":
        assert run(pairs, "--task", "inference", *NLI, "--out", out) == 0
    else:
        assert run(write_rows(tmp_path / "p3.jsonl", P3), "--task", "p3", "--out", out) == 0
    written = rows_in(out)
    assert len(written) == {"templates": len(PAIRS), "p3": len(P3)}[kind]
    triples = [(row["instruction"], row["input"], row["output"]) for row in written]
    assert [(e.id, e.instruction, *map(astuple, e.instances)) for e in read_dataset(out)] == [
        (row["id"], row["instruction"], (row["input"], row["output"])) for row in written
    ]

    alpaca = json.loads(exported(out, tmp_path, "alpaca").read_text())
    assert [(row["instruction"], row["input"], row["output"]) for row in alpaca] == triples
    messages = rows_in(exported(out, tmp_path, "messages"))
    assert [[turn["content"] for turn in row["messages"]] for row in messages] == [
        ["\n\n".join(filter(None, (instruction, input))), output] for instruction, input, output in triples
    ]
    assert len(json.loads(exported(out, tmp_path, "sharegpt").read_text())) == len(triples)
    assert [row["completion"] for row in rows_in(exported(out, tmp_path, "completion"))] == [row[2] for row in triples]
    table = pq.read_table(exported(out, tmp_path, "parquet")).to_pylist()
    assert [(row["instruction"], row["input"], row["output"]) for row in table] == triples
    assert [row["id"] for row in table] == [row["id"] for row in written]
    assert [row["is_classification"] for row in table] == [row.get("is_classification", False) for row in written]

    for path in (out, tmp_path / "exported.alpaca"):
        copy = path.rename(tmp_path / f"copy{'.jsonl' if path == out else '.json'}")
        assert [(row.instruction, row.input, row.output) for row in read_rows(copy)] == triples
        assert [item.references for item in read_tasks([copy])] == [(output,) for *_, output in triples]


def test_rows_say_whether_their_answer_is_one_of_a_few(tmp_path, out):
    """Turned around, a task of classification asks for a text; in P3 it is not known."""
    text = "A slow, grey film with one good scene at the very end."
    review = write_rows(tmp_path / "reviews.jsonl", [{"text": text, "label": "negative"}])
    assert run(review, "--task", "sentiment", "--templates-per-row", 99, "--out", out) == 0
    rows = rows_in(out)
    assert {row["is_classification"] for row in rows} == {True, False}
    for row in rows:
        assert row["is_classification"] == ("one good scene" not in row["output"])
    assert run(write_rows(tmp_path / "p3.jsonl", P3), "--task", "p3", "--out", out, "--overwrite") == 0
    assert not any("is_classification" in row for row in rows_in(out))


# -- holding out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inference", "Inference"])
def test_a_held_out_cluster_is_not_written(pairs, out, capsys, name):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--hold-out", "topic", name) == 2
    assert (
        "cluster 'inference' or data set 'pairs' is held out, so it must not be trained on" in capsys.readouterr().err
    )
    assert not out.exists()
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--hold-out", "topic", "coreference") == 0


def test_a_slip_of_the_pen_holds_nothing_in(pairs, out, capsys):
    assert run(pairs, "--task", "inference", *NLI, "--out", out, "--hold-out", "inferrence") == 2
    assert "--hold-out: there is no cluster 'inferrence' here; there are closed_book_qa, " in capsys.readouterr().err
    assert not out.exists()


def test_clusters_and_data_sets_of_held_out_files_are_not_written(tmp_path, pairs, out, capsys):
    item = {"id": 1, "task": "glue/mrpc", "cluster": "paraphrase", "instruction": "a", "input": "", "references": ["b"]}
    held = write_rows(tmp_path / "held.jsonl", [item])
    base = [pairs, "--task", "inference", *NLI, "--out", out, "--hold-out-tasks", held]
    assert run(*base, "--dataset", "glue_mrpc") == 2
    assert not out.exists()
    assert run(*base) == 0
    held_folder = ["--hold-out-tasks", shipped("heldout"), "--overwrite"]
    capsys.readouterr()
    assert run(*base[:-2], *held_folder) == 2
    assert "cluster 'inference'" in capsys.readouterr().err
    # The same flag lets the held-out tasks themselves be written, and nothing else.
    assert run(*base[:-2], *held_folder, "--format", "tasks") == 0
    assert run(*base, "--format", "tasks", "--overwrite") == 2


# -- instructions that are there already -------------------------------------------------------------------------------


def test_p3_passes_through(tmp_path, out, capsys):
    data = write_rows(tmp_path / "p3.jsonl.gz", [*P3, {**P3[0], "template": "t9", "completion": ""}, P3[0]])
    assert run(data, "--task", "p3", "--out", out, "--json") == 0
    rows = rows_in(out)
    assert [(r["instruction"], r["input"], r["output"], r["cluster"], r["dataset"], r["template"]) for r in rows] == [
        (r["prompt"], "", r["completion"], r["cluster"], r["dataset"], r["template"]) for r in P3
    ]
    assert len(list(read_rows(out))) == len(P3)
    summary = summary_of(capsys)
    assert summary["left_out"] == {"duplicate": 1, "unusable": 1}
    assert summary["clusters"] == {"data-to-text": 4, "sentiment": 4, "topic": 4}


def test_p3_leaves_held_out_clusters_out(tmp_path, out, capsys):
    data = write_rows(tmp_path / "p3.jsonl", P3)
    held = write_rows(tmp_path / "held.jsonl", [{**P3[0], "cluster": "x", "dataset": "Mail"}])
    flags = ["--task", "p3", "--hold-out", "data_to_text", "--hold-out-tasks", held, "--json"]
    assert run(data, *flags, "--out", out) == 0
    assert {row["dataset"] for row in rows_in(out)} == {"shop"}
    assert summary_of(capsys)["left_out"] == {"held_out": 8}
    tasks = tmp_path / "tasks.jsonl"
    assert run(data, *flags, "--out", tasks, "--format", "tasks") == 0
    items = read_tasks([tasks])
    assert {(item.cluster, item.task) for item in items} == {("data-to-text", "cards"), ("topic", "mail")}
    assert not {item.instruction for item in items} & {row["instruction"] for row in rows_in(out)}
    capsys.readouterr()
    assert run(data, "--task", "p3", "--out", tmp_path / "x", "--hold-out", "reasoning") == 2
    assert "there is no cluster 'reasoning' here; there are sentiment, data-to-text, topic" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_p3_caps_count_by_data_set(tmp_path, out, capsys):
    data = write_rows(tmp_path / "p3.jsonl", P3)
    assert run(data, "--task", "p3", "--out", out, "--max-rows", 3, "--per-template-max", 1, "--json") == 0
    summary = summary_of(capsys)
    assert summary["left_out"]["max_rows"] == 3
    written = [(row["dataset"], row["template"]) for row in rows_in(out)]
    assert len(set(written)) == len(written)
    assert {dataset for dataset, _ in written} == {"shop", "cards", "mail"}


def test_p3_columns_of_other_names(tmp_path, out):
    data = write_rows(tmp_path / "flan.jsonl", [{"inputs": "Hi?", "targets": "Ho.", "task": "greet"}])
    flags = ["--map", "prompt=inputs", "completion=targets", "dataset=task", "--constant", "cluster=chat"]
    assert run(data, "--task", "p3", *flags, "--out", out) == 0
    assert rows_in(out)[0]["instruction"] == "Hi?"
    assert rows_in(out)[0]["cluster"] == "chat"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "p3", "--labels", "0=a"], "--labels has no meaning with --task p3"),
        (["--task", "p3", "--no-reversed"], "--reversed has no meaning with --task p3"),
        (["--task", "p3"], "pairs.jsonl:1: field 'cluster': has no value in column 'cluster'"),
        (["--task", "guessing"], "--task: there is no 'guessing'; give one of closed_book_qa, coreference, "),
        (["--task", "absent.toml"], "absent.toml: no such file"),
        (["--task", "inference", *NLI[:-1]], "pairs.jsonl:3: field 'label': '2' is none of entailment, neutral"),
        (["--task", "inference", *NLI, "--map", "premise=text"], "pairs.jsonl:1: field 'premise': has no value"),
        (["--task", "inference", "--labels", "0=", "1=", "2="], "no row is left: 105 unusable"),
    ],
)
def test_errors_leave_no_file(pairs, out, capsys, flags, message):
    assert run(pairs, *flags, "--out", out) == 2
    assert message in capsys.readouterr().err
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_nothing_is_overwritten_unasked(pairs, tmp_path, capsys):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("kept")
    base = [pairs, "--task", "inference", "--out", kept]
    assert run(*base, *NLI) == 2
    assert run(*base, *NLI[:-1], "--overwrite") == 2  # fails in the third row
    assert kept.read_text() == "kept"
    assert run(*base, *NLI, "--overwrite") == 0
    assert len(rows_in(kept)) == len(PAIRS)
    assert run(pairs, "--task", "inference", *NLI, "--out", pairs, "--overwrite") == 2
    assert "is the labelled data itself" in capsys.readouterr().err
    assert rows_in(pairs) == PAIRS


# -- the package datasets ----------------------------------------------------------------------------------------------


@pytest.fixture
def data_sets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kinds = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
        }
    )
    unlabelled = {**PAIRS[0], "premise": "No gold label.", "label": -1}
    splits = {"train": PAIRS, "test": [*PAIRS[:5], unlabelled]}
    saved = {name: datasets.Dataset.from_list(rows, features=kinds) for name, rows in splits.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    folder = tmp_path / "files"
    folder.mkdir()
    for name, rows in splits.items():
        write_rows(folder / f"{name}.jsonl", rows)
    return tmp_path


def test_saved_data_set_with_class_names(data_sets, out, capsys):
    saved = data_sets / "saved"
    assert run(f"{saved}:train", "--task", "inference", "--out", out, "--json") == 0
    assert summary_of(capsys)["labels"] == {"contradiction": 35, "entailment": 35, "neutral": 35}
    assert {row["dataset"] for row in rows_in(out)} == {"saved"}
    again = [f"{saved}:test", "--task", "inference", "--out", out, "--overwrite", "--json"]
    assert run(*again) == 2
    assert f"{saved}:test:6: field 'label': '-1' is none of" in capsys.readouterr().err
    assert run(*again, "--labels=-1=") == 0
    assert summary_of(capsys)["left_out"] == {"unusable": 1}
    assert run(saved / "train", "--task", "inference", "--out", out, "--overwrite") == 0


def test_folder_of_files_as_a_data_set(data_sets, out, capsys):
    assert run(f"{data_sets / 'files'}:train", "--task", "inference", *NLI, "--out", out) == 0
    assert len(rows_in(out)) == len(PAIRS)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("saved", "has the splits train, test; name one, such as "),
        ("saved:dev", "has no split 'dev'; it has train, test"),
        ("saved/train:test", "has no splits; leave out ':test'"),
        ("cache", "as a data set it cannot be loaded"),
    ],
)
def test_wrong_data_sets(data_sets, out, capsys, source, message):
    (data_sets / "cache").mkdir()
    assert run(data_sets / source, "--task", "inference", "--out", out) == 2
    assert message in capsys.readouterr().err


def test_names_need_the_package(out, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert run("glue/mrpc:train", "--task", "paraphrase", "--out", out) == 2
    assert capsys.readouterr().err == (
        "error: there is no file 'glue/mrpc:train', and data sets by name need the package datasets: "
        "pip install 'selfinstruct[train]'\n"
    )
