"""`selfinstruct novelty`: rows in order with rouge_score's own decisions, and no row lost or changed by any mishap."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from selfinstruct import NoveltyConfig, judge_novelty
from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.novelty import NoveltyIndex
from tests.rouge import rouge_score

ROOT = Path(__file__).parents[2]
WORDS = [f"w{number}" for number in range(400)]


def texts(n: int, seed: int = 0) -> list[str]:
    """Short texts, a third of which have one word changed of one before."""
    rng = Random(seed)
    made: list[str] = []
    for _ in range(n):
        if made and rng.random() < 0.35:
            words = rng.choice(made[-500:]).split()
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        else:
            words = rng.choices(WORDS, k=rng.randint(2, 9))
        made.append(" ".join(words))
    return made


def write(path: Path, rows) -> Path:
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    return path


def instructions(path: Path, some: list[str]) -> Path:
    return write(path, ({"instruction": text} for text in some))


def novelty(*arguments: object) -> int:
    return run_program(GROUP, "selfinstruct", ["novelty", *map(str, arguments)])


def start(*arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "selfinstruct", "novelty", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
    )


def rows(path: Path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def oracle(some: list[str], pool=(), threshold: float = 0.7, k: int = 1):
    """What the rows should get, by rouge_score: (accepted, nearest)."""
    counted = [({"against": name, "line": line}, text) for name, line, text in pool]
    for line, text in enumerate(some):
        scores = [(rouge_score(text, other), place) for place, other in counted]
        nearest = [{**place, "score": score} for score, place in sorted(scores, key=lambda s: -s[0])[:k] if score > 0]
        accepted = not nearest or nearest[0]["score"] <= threshold
        yield {"accepted": accepted, "nearest": nearest}
        if accepted:
            counted.append(({"line": line}, text))


def decisions(path: Path):
    return [{name: row[name] for name in ("accepted", "nearest")} for row in rows(path)]


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4])
def test_rows_in_order_with_the_decisions_of_rouge_score(tmp_path, capsys, k):
    some = [*texts(250), "", "?!", "", "one", "One."]
    data = write(tmp_path / "in.jsonl", ({"n": n, "instruction": t, "output": "ü"} for n, t in enumerate(some)))
    out = tmp_path / "out.jsonl"
    assert novelty(data, "--out", out, "--top-k", k, "--json") == 0
    expected = list(oracle(some, k=k))
    assert 40 < sum(decision["accepted"] for decision in expected) < 250
    judged = rows(out)
    assert [list(row) for row in judged] == [["n", "instruction", "output", "accepted", "nearest"]] * len(some)
    assert [(row["n"], row["instruction"]) for row in judged] == list(enumerate(some))
    assert decisions(out) == expected
    assert [row["accepted"] for row in judged[-5:]] == [True, True, True, True, False]
    assert judged[-1]["nearest"][0] == {"line": len(some) - 2, "score": 1.0}
    summary = json.loads(capsys.readouterr().out)
    n_accepted = sum(decision["accepted"] for decision in expected)
    assert (summary["rows"], summary["accepted"], summary["rejected"]) == (255, n_accepted, 255 - n_accepted)
    assert summary["seconds"] > 0
    assert summary["rows_per_s"] > 0
    assert summary["index_bytes"] > 1000
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("threshold", [0, 0.25, 1])
def test_the_threshold_is_strict(tmp_path, threshold):
    some = texts(80)
    data = instructions(tmp_path / "in.jsonl", some)
    assert novelty(data, "--out", tmp_path / "out.jsonl", "--threshold", threshold) == 0
    assert decisions(tmp_path / "out.jsonl") == list(oracle(some, threshold=threshold))


def test_rounding_at_the_threshold_is_that_of_rouge_score(tmp_path):
    some = ["a b c d e f g", "a b c d e f g h i j k l m"]  # F is exactly 0.7, and 0.7000000000000001 as computed
    assert novelty(instructions(tmp_path / "in.jsonl", some), "--out", tmp_path / "out.jsonl") == 0
    assert decisions(tmp_path / "out.jsonl") == list(oracle(some))
    data = instructions(tmp_path / "back.jsonl", some[::-1])
    assert novelty(data, "--out", tmp_path / "back-out.jsonl") == 0
    assert decisions(tmp_path / "back-out.jsonl")[1] == {
        "accepted": False, "nearest": [{"line": 0, "score": 0.7000000000000001}],
    }  # fmt: skip


def test_a_row_is_kept_byte_for_byte(tmp_path):
    lines = [
        b'\xef\xbb\xbf{"instruction":"one two three","big":123456789012345678901234567890,"x":1e5}',
        b'  { "b" : 1.10, "instruction" : "caf\\u00e9 \\ud83d\\ude00 half \\ud83d" }\r',
        b"",
        b'{"instruction":"four five","nan":NaN}',
        b'{"instruction":"one two three"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    assert novelty(tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl") == 0
    assert (tmp_path / "out.jsonl").read_bytes().split(b"\n") == [
        b'{"instruction":"one two three","big":123456789012345678901234567890,"x":1e5,"accepted":true,"nearest":[]}',
        b'{ "b" : 1.10, "instruction" : "caf\\u00e9 \\ud83d\\ude00 half \\ud83d" ,"accepted":true,"nearest":[]}',
        b'{"instruction":"four five","nan":NaN,"accepted":true,"nearest":[]}',
        b'{"instruction":"one two three","accepted":false,"nearest":[{"line":0,"score":1.0}]}',
        b"",
    ]


def test_an_earlier_judgement_is_replaced(tmp_path):
    data = instructions(tmp_path / "in.jsonl", texts(60))
    assert novelty(data, "--out", tmp_path / "1.jsonl", "--threshold", "0.2") == 0
    assert novelty(tmp_path / "1.jsonl", "--out", tmp_path / "2.jsonl") == 0
    assert [list(row) for row in rows(tmp_path / "2.jsonl")] == [["instruction", "accepted", "nearest"]] * 60
    assert decisions(tmp_path / "2.jsonl") == list(oracle(texts(60)))


def test_a_line_is_that_of_the_file_blank_ones_counted(tmp_path):
    (tmp_path / "in.jsonl").write_text('\n{"instruction": "a b"}\n\n\n{"instruction": "a b"}\n\n', "utf-8")
    assert novelty(tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl") == 0
    assert [decision["nearest"] for decision in decisions(tmp_path / "out.jsonl")] == [[], [{"line": 1, "score": 1.0}]]


def test_no_row(tmp_path):
    (tmp_path / "in.jsonl").touch()
    assert novelty(tmp_path / "in.jsonl", "--out", tmp_path / "new" / "out.jsonl") == 0
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == b""
    assert os.listdir(tmp_path / "new") == ["out.jsonl"]


def test_several_fields(tmp_path):
    some = [("Add.", "1 2 3"), ("Add.", "4 5 6"), ("Add.", "1 2 3"), ("", ""), ("Add. 1", "2 3")]
    data = write(tmp_path / "in.jsonl", ({"instruction": i, "input": j} for i, j in some))
    assert novelty(data, "--out", tmp_path / "out.jsonl", "--field", "instruction", "--field", "input") == 0
    assert decisions(tmp_path / "out.jsonl") == list(oracle([" ".join(pair) for pair in some]))


def test_other_scripts(tmp_path):
    some = [
        "把下面的句子翻译成英语。",
        "把下面的句子翻译成法语。",
        "写一首诗。",
        "Напиши о лесе",
        "напиши О ЛЕСЕ",
    ]
    data = instructions(tmp_path / "in.jsonl", some)
    assert novelty(data, "--out", tmp_path / "rouge.jsonl") == 0
    assert decisions(tmp_path / "rouge.jsonl") == [{"accepted": True, "nearest": []}] * 5
    assert novelty(data, "--out", tmp_path / "unicode.jsonl", "--tokenizer", "unicode") == 0
    judged = decisions(tmp_path / "unicode.jsonl")
    assert [decision["accepted"] for decision in judged] == [True, False, True, True, False]
    assert judged[1]["nearest"] == [{"line": 0, "score": 10 / 11}]  # 10 of 11 characters


# -- what is read ------------------------------------------------------------------------------------------------------


def test_against_other_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pools, some = {"a.jsonl": texts(40, 1), "b.jsonl": texts(30, 2)}, texts(70, 3) + texts(20, 1)
    for name, pool in pools.items():
        instructions(Path(name), pool)
    instructions(Path("in.jsonl"), some)
    assert novelty("in.jsonl", "--out", "out.jsonl", "--against", "a.jsonl", "b.jsonl", "--top-k", 3) == 0
    pool = [(name, line, text) for name, pool in pools.items() for line, text in enumerate(pool)]
    expected = list(oracle(some, pool, k=3))
    assert decisions(Path("out.jsonl")) == expected
    assert {match.get("against") for decision in expected for match in decision["nearest"]} == {None, *pools}
    assert not any(decision["accepted"] for decision in expected[-20:])


def test_the_same_from_gzip_and_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    some = texts(100)
    plain = instructions(tmp_path / "in.jsonl", some)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    pq.write_table(pa.table({"instruction": some}), tmp_path / "in.parquet")
    for name in ("in.jsonl", "in.jsonl.gz", "in.parquet"):
        assert novelty(tmp_path / name, "--out", tmp_path / f"{name}.out") == 0
        assert rows(tmp_path / f"{name}.out") == rows(tmp_path / "in.jsonl.out")
        against = instructions(tmp_path / "new.jsonl", some[:3])
        assert novelty(against, "--out", tmp_path / "new.out", "--against", tmp_path / name, "--overwrite") == 0
        first = {"against": str(tmp_path / name), "line": 0, "score": 1.0}
        assert decisions(tmp_path / "new.out")[0] == {"accepted": False, "nearest": [first]}


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, capsys, monkeypatch):
    (tmp_path / "in.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert novelty(tmp_path / "in.parquet", "--out", tmp_path / "out.jsonl") == 2
    assert "pip install 'selfinstruct[train]'" in capsys.readouterr().err


def test_a_column_that_json_has_not(tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"instruction": ["a b"], "image": [b"\xff"]}), tmp_path / "in.parquet")
    assert novelty(tmp_path / "in.parquet", "--out", tmp_path / "out.jsonl") == 2
    assert "in.parquet:1: cannot be written as JSON" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.parquet"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"text": "a"}', "in.jsonl:3: field 'instruction': is missing. Name the field with --field; the row has text"),
        ('{"instruction": ["a"]}', "in.jsonl:3: field 'instruction': must be a text, not [\"a\"]"),
        ('{"instruction": null}', "must be a text, not null"),
        ("{}", "in.jsonl:3: field 'instruction': is missing. Mend the row"),
        ("[1]", "in.jsonl:3: must be a JSON object"),
        ('{"instruction": "a"', "in.jsonl:3: is not valid JSON"),
    ],
)
@pytest.mark.parametrize("role", ["rows", "pool"])
def test_a_broken_row_is_named_before_anything_is_judged(tmp_path, capsys, row, told, role):
    bad = tmp_path / "in.jsonl"
    bad.write_text(f'{{"instruction": "a b c"}}\n\n{row}\n{{"instruction": "d"}}\n', "utf-8")
    good = instructions(tmp_path / "good.jsonl", ["a"])
    files = (bad,) if role == "rows" else (good, "--against", bad)
    assert novelty(*files, "--out", tmp_path / "out.jsonl") == 2
    assert told in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["good.jsonl", "in.jsonl"]


def test_bad_options(tmp_path, capsys):
    data = instructions(tmp_path / "in.jsonl", texts(5))
    out = tmp_path / "out.jsonl"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for flags, told in [
        (["--threshold", "1.5"], "--threshold: "),
        (["--top-k", "0"], "--top-k: "),
        (["--tokenizer", "bpe"], "'bpe' is not one of"),
        (["--field", "nearest"], "'accepted' and 'nearest' are what is written"),
        (["--shards", "2"], "belong to --engine ray"),
        (["--engine", "ray", "--save-index", "i"], "belong to --engine local"),
        (["--against", tmp_path / "no.jsonl"], "no.jsonl: no such file"),
        (["--against", tmp_path], "is a folder, not a file"),
        (["--against", fifo], "is no ordinary file"),
        (["--save-index", out], "is --out"),
        (["--save-index", data, "--overwrite"], "is what is to be read"),
    ]:
        assert novelty(data, "--out", out, *flags) == 2, flags
        assert told in capsys.readouterr().err
    out.write_text("precious")
    assert novelty(data, "--out", out) == 2
    assert f"--out {out} exists" in capsys.readouterr().err
    assert novelty(data, "--out", data, "--overwrite") == 2
    assert novelty(data, "--out", "/dev/full") == 2
    assert novelty(data, "--out", tmp_path / "new.jsonl", "--save-index", out) == 2
    assert f"--save-index {out} exists" in capsys.readouterr().err
    assert (out.read_text(), sorted(os.listdir(tmp_path))) == ("precious", ["fifo", "in.jsonl", "out.jsonl"])
    assert novelty(data, "--out", out, "--overwrite") == 0
    assert len(rows(out)) == 5


def test_from_python_and_from_a_recipe(tmp_path):
    data = instructions(tmp_path / "in.jsonl", texts(30))
    summary = judge_novelty(NoveltyConfig(source=data, out=tmp_path / "1.jsonl", threshold=0.3))
    (tmp_path / "options.toml").write_text("[novelty]\nthreshold = 0.3\n")
    assert novelty(data, "--out", tmp_path / "2.jsonl", "--config", tmp_path / "options.toml") == 0
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert summary.accepted == sum(decision["accepted"] for decision in oracle(texts(30), threshold=0.3)) < 30


# -- saved indexes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["rouge", "unicode"])
def test_a_saved_index_stands_for_its_rows(tmp_path, monkeypatch, tokenizer):
    """Judged in two parts by way of an index, or the second one against the files: the same bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.jsonl").write_text("\n\n" + instructions(tmp_path / "x", texts(50, 1)).read_text())
    instructions(Path("first.jsonl"), texts(120, 2))
    instructions(Path("second.jsonl"), texts(200, 2)[100:] + texts(10, 1))
    options = ("--tokenizer", tokenizer, "--top-k", 3)
    assert novelty("first.jsonl", "--out", "1", "--against", "old.jsonl", "--save-index", "index", *options) == 0
    assert novelty("second.jsonl", "--out", "2", "--against", "index", *options) == 0
    assert novelty("second.jsonl", "--out", "3", "--against", "x", "index", *options) == 0

    kept = [row["instruction"] if row["accepted"] else "" for row in rows(Path("1"))]  # a text without tokens is none
    instructions(Path("first.jsonl"), kept)
    assert novelty("second.jsonl", "--out", "4", "--against", "old.jsonl", "first.jsonl", *options) == 0
    assert Path("2").read_bytes() == Path("4").read_bytes()
    named = [match.get("against") for decision in decisions(Path("2")) for match in decision["nearest"]]
    assert {None, "old.jsonl", "first.jsonl"} == set(named)
    assert novelty("second.jsonl", "--out", "5", "--against", "old.jsonl", "first.jsonl", "x", *options) == 0
    assert Path("3").read_bytes() == Path("5").read_bytes()


def test_saved_indexes_that_do_not_fit(tmp_path, capsys):
    from selfinstruct.novelty import storage

    data = instructions(tmp_path / "in.jsonl", texts(20))
    index, out = tmp_path / "a.index", tmp_path / "out"
    assert novelty(data, "--out", out, "--save-index", index) == 0
    out.unlink()
    assert novelty(data, "--out", out, "--against", index, "--tokenizer", "unicode") == 2
    assert "was made with --tokenizer rouge, not unicode" in capsys.readouterr().err
    assert novelty(data, "--out", out, "--against", index, index) == 2
    assert "both saved indexes" in capsys.readouterr().err
    assert novelty(data, "--out", out, "--against", index, "--engine", "ray") == 2
    assert "holds no texts" in capsys.readouterr().err
    assert novelty(data, "--out", out, "--against", index, "--save-index", index, "--overwrite") == 2
    assert "is what is to be read" in capsys.readouterr().err
    other = NoveltyIndex()
    other.add("one")
    storage.save(other.compiled(), tmp_path / "b.index", {"files": []})
    assert novelty(data, "--out", out, "--against", tmp_path / "b.index") == 2
    assert "does not say where its records come from" in capsys.readouterr().err
    index.write_bytes(index.read_bytes()[:-300])
    assert novelty(data, "--out", out, "--against", index) == 2
    assert "a.index: is " in capsys.readouterr().err
    assert not out.exists()


# -- interruptions -----------------------------------------------------------------------------------------------------


LARGE = 20_000  # rows: judged in five batches


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, Path, Path]:
    """(rows, a pool, what becomes of them without an interruption)."""
    folder = tmp_path_factory.mktemp("large")
    data, pool = instructions(folder / "in.jsonl", texts(LARGE)), instructions(folder / "pool.jsonl", texts(3_000, 1))
    assert novelty(data, "--out", folder / "out.jsonl", "--against", pool, "-q") == 0
    return data, pool, folder / "out.jsonl"


def interrupted(
    out: Path, number: signal.Signals, data: Path, pool: Path, *flags: object, n_bytes: int = 1
) -> tuple[int, str]:
    """Run the command and send a signal once so much is written; gives exit code and messages."""
    process = start(data, "--out", out, "--against", pool, *flags)
    unfinished = out.with_name(f".{out.name}.unfinished")
    while process.poll() is None and not (unfinished.exists() and unfinished.stat().st_size >= n_bytes):
        time.sleep(0.001)
    process.send_signal(number)
    messages = process.communicate(timeout=60)[1]
    return process.returncode, messages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_judged(large, tmp_path, number):
    data, pool, whole = large
    code, messages = interrupted(tmp_path / "out", number, data, pool)
    assert (code, "Traceback" in messages) == (130, False)
    assert "the same command resumes" in messages
    assert sorted(os.listdir(tmp_path)) == [".out.unfinished", ".out.unfinished.json"]
    assert 0 < (tmp_path / ".out.unfinished").stat().st_size < whole.stat().st_size
    assert novelty(data, "--out", tmp_path / "out", "--against", pool, "-q") == 0
    assert (tmp_path / "out").read_bytes() == whole.read_bytes()
    assert os.listdir(tmp_path) == ["out"]


def test_after_a_kill_the_same_command_goes_on(large, tmp_path, capsys):
    data, pool, whole = large
    assert interrupted(tmp_path / "out", signal.SIGKILL, data, pool)[0] == -signal.SIGKILL
    content = whole.read_bytes()
    written = (tmp_path / ".out.unfinished").read_bytes()
    assert content.startswith(written)
    settings = (tmp_path / ".out.unfinished.json").read_bytes()
    some = content[: content.index(b"\n", 300_000) + 1]
    for number, left in enumerate(
        [
            written,
            b"",
            content[:1],
            some,
            some[:-1],  # torn within a line
            some[:-30],
            some + b'{"instruction": "of another file","accepted":true,"nearest":[]}\n',
            some[:200_000] + bytes(4096) + some[204_096:],  # a page that never reached the disk
            content,
        ]
    ):
        out = tmp_path / f"{number}"
        out.with_name(f".{number}.unfinished").write_bytes(left)
        out.with_name(f".{number}.unfinished.json").write_bytes(settings)
        assert novelty(data, "--out", out, "--against", pool, "--json", "-q") == 0
        assert out.read_bytes() == content
        figures = json.loads(capsys.readouterr().out)
        assert (figures["rows"], figures["accepted"]) == (LARGE, content.count(b'"accepted":true'))
    assert not list(tmp_path.glob(".[0-9]*"))


def test_an_unfinished_result_of_other_options_or_data_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool, data = instructions(Path("pool.jsonl"), texts(20, 1)), instructions(Path("in.jsonl"), texts(50))
    unfinished = tmp_path / ".out.unfinished"
    resource_limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))}
    process = start(data.absolute(), "--out", tmp_path / "out", "--against", pool.absolute(), **resource_limit)
    messages = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "no space left on the disk while writing" in messages
    assert "which resumes" in messages
    begun = unfinished.read_bytes()
    assert len(begun) == 2_000

    flags = ("--out", "out", "--against", pool.absolute())
    for changed, told in [
        ((data, *flags, "--threshold", "0.5"), "--threshold: 0.7 then, 0.5 now"),
        ((data, *flags, "--top-k", "2"), "--top-k: 1 then, 2 now"),
        ((data, *flags, "--tokenizer", "unicode"), "--tokenizer: rouge then, unicode now"),
        ((data, "--out", "out"), f"--against: {pool.absolute()} then, nothing now"),
        ((instructions(Path("other.jsonl"), texts(51)), *flags), "the rows to judge have changed"),
    ]:
        assert novelty(*changed) == 2
        messages = capsys.readouterr().err
        assert told in messages
        assert messages.count("\n") == 2
        assert "--overwrite to begin anew" in messages
    kept = pool.read_bytes()
    instructions(pool, ["another"])
    assert novelty(data, *flags) == 2
    assert f"{pool.absolute()}: its content has changed" in capsys.readouterr().err
    pool.write_bytes(kept)
    assert unfinished.read_bytes() == begun

    assert novelty(data, *flags, "--threads", 1) == 0  # what does not shape the result may differ
    expected = Path("out").read_bytes()
    assert novelty(data, "--out", "fresh", "--against", pool.absolute()) == 0
    assert Path("fresh").read_bytes() == expected
    unfinished.write_bytes(begun)
    Path(".out.unfinished.json").write_text("{}")
    assert novelty(data, *flags, "--overwrite") == 0
    assert Path("out").read_bytes() == expected


def test_one_process_at_a_time(large, tmp_path, capsys):
    data, pool, _ = large
    process = start(data, "--out", tmp_path / "out", "--against", pool)
    try:
        while not (tmp_path / ".out.unfinished.json").exists():
            time.sleep(0.01)
        assert novelty(data, "--out", tmp_path / "out", "--against", pool, "-q") == 2
        assert "another process is working on" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()
    assert novelty(data, "--out", tmp_path / "out", "--against", pool, "-q") == 0


# -- surroundings ------------------------------------------------------------------------------------------------------


def test_few_rows_load_neither_compiled_code_nor_ray(tmp_path):
    data = instructions(tmp_path / "in.jsonl", texts(300))
    code = (
        "import sys\nfrom selfinstruct.cli import GROUP\nfrom selfinstruct.command import run_program\n"
        f"code = run_program(GROUP, 'selfinstruct', ['novelty', {str(data)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        "print(code, 'numpy' in sys.modules, *({'numba', 'ray', 'pyarrow', 'torch', 'openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 True"


def test_without_ray_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    data = instructions(tmp_path / "in.jsonl", texts(5))
    assert novelty(data, "--out", tmp_path / "out", "--engine", "ray") == 2
    assert 'pip install "selfinstruct[ray]"' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_on_a_ray_cluster_the_bytes_are_the_same(large, tmp_path):
    """Begun on a cluster, ended by a signal, finished here."""
    pytest.importorskip("ray")
    data, pool, whole = large
    flags = ("--engine", "ray", "--shards", 2)
    code, messages = interrupted(
        tmp_path / "out", signal.SIGTERM, data, pool, *flags, n_bytes=whole.stat().st_size // 2
    )
    assert (code, "Traceback" in messages) == (130, False)
    assert whole.read_bytes().startswith((tmp_path / ".out.unfinished").read_bytes())
    assert novelty(data, "--out", tmp_path / "out", "--against", pool, "-q") == 0
    assert (tmp_path / "out").read_bytes() == whole.read_bytes()
