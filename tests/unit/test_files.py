import errno
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import (
    atomic_file,
    digest,
    read_json,
    read_jsonl,
    read_toml,
    refuse_to_replace,
    sha256_file,
    shipped,
    to_json_line,
    to_toml,
    validate,
    write_json,
    write_jsonl,
    write_text,
)

READERS = [lambda path: list(read_jsonl(path)), read_json, read_toml]
NOBODY = 65534


@pytest.fixture
def no_root() -> Iterator[Path]:
    """A folder that everyone may enter, and no rights of root, who may read everything."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_lines_are_counted_from_one_and_blank_ones_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"a": 1}\n  \t\n{"b": "\xc3\xa9"}\r\n{"c": 3}')
    assert list(read_jsonl(path)) == [(2, {"a": 1}), (4, {"b": "é"}), (5, {"c": 3})]


def test_line_separators_of_unicode_end_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x\u2028y\u0085z"}\n', encoding="utf-8")
    assert list(read_jsonl(path)) == [(1, {"a": "x\u2028y\u0085z"})]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_byte_order_mark_and_gzip(tmp_path, suffix):
    data = '\ufeff{"a": "ü"}\n'.encode()
    for name, reader, content in [
        ("rows.jsonl", lambda path: list(read_jsonl(path)), [(1, {"a": "ü"})]),
        ("value.json", read_json, {"a": "ü"}),
    ]:
        path = tmp_path / (name + suffix)
        path.write_bytes(gzip.compress(data) if suffix else data)
        assert reader(path) == content
    path = tmp_path / "options.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert read_toml(path) == {"a": 1}


def test_empty_file_has_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.touch()
    assert list(read_jsonl(path)) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"a": }', r"is not valid JSON \(Expecting value, column 7\)"),
        ('{"a": 1} {"b": 2}', r"is not valid JSON \(Extra data, column 10\)"),
        ("plain text", "is not valid JSON"),
        ("[1, 2]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        ("[" * 100_000, "is no JSON that can be read"),
        ('{"a": ' + "1" * 5_000 + "}", "is no JSON that can be read"),
    ],
)
def test_wrong_line_is_named(tmp_path, line, problem):
    if sys.version_info < (3, 11) and "1111" in line:
        pytest.skip("this Python reads numbers of any length")
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"good": 1}}\n\n{line}\n{{"good": 2}}\n', encoding="utf-8")
    rows = read_jsonl(path)
    assert next(rows) == (1, {"good": 1})
    with pytest.raises(InputError, match=problem) as caught:
        next(rows)
    assert (caught.value.path, caught.value.line) == (path, 3)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("before", [1, 5_000])  # beyond any buffer, too
def test_broken_utf8_is_placed(tmp_path, reader, before):
    path = tmp_path / "a"
    path.write_bytes(b"\n" * before + b'{"a": "caf\xe9"}\n')
    with pytest.raises(InputError, match=r"is not UTF-8 text .*Save it as UTF-8") as caught:
        reader(path)
    assert caught.value.line == before + 1


@pytest.mark.parametrize("reader", READERS)
def test_utf16_is_refused(tmp_path, reader):
    path = tmp_path / "a"
    path.write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        reader(path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-20],  # cut short
        lambda data: data[:40] + bytes(8) + data[48:],  # damaged within
        lambda data: data[:-8] + bytes(8),  # wrong checksum
        lambda data: b'{"never": "packed"}\n',
    ],
)
def test_broken_gzip_is_refused(tmp_path, reader, spoil):
    path = tmp_path / "a.gz"
    path.write_bytes(spoil(gzip.compress(b"".join(b'{"a": %d}\n' % n for n in range(200)))))
    with pytest.raises(InputError, match=r"is a broken gzip file .*Copy it again"):
        reader(path)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_named(tmp_path, reader):
    file = tmp_path / "file"
    file.touch()
    for path, problem in [
        (tmp_path / "absent", "no such file"),
        (file / "below", "no such file"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / ("long" * 100), "may not be read"),
    ]:
        with pytest.raises(InputError, match=problem) as caught:
            reader(path)
        assert caught.value.path == path


@pytest.mark.parametrize("reader", READERS)
def test_unreadable_file_is_named(no_root, reader):
    path = no_root / "a"
    path.touch(mode=0o000)
    with pytest.raises(InputError, match=r"may not be read .*permissions"):
        reader(path)


def test_broken_json_and_toml_are_placed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n "a": 1,\n}')
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert caught.value.line in (2, 3)  # Pythons differ on where a trailing comma goes wrong
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is no JSON that can be read"):
        read_json(path)
    path = tmp_path / "a.toml"
    for text in ("a = 1\nb = = 2\n", "a = 1\na = 2\n", "a = " + "[" * 100_000):
        path.write_text(text)
        with pytest.raises(InputError, match="is not valid TOML") as caught:
            read_toml(path)
        assert caught.value.path == path


# -- checking ----------------------------------------------------------------------------------------------------------


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1)


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(gt=0)
    inner: list[Inner] = []

    @model_validator(mode="after")
    def _agree(self) -> "Row":
        if self.count == 13:
            raise ValueError("count and inner do not agree")
        return self


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({}, "count", "field 'count': is missing"),
        ({"count": 1, "conut": 2}, "conut", "field 'conut': is not a known field"),
        ({"count": 0}, "count", "field 'count': input should be greater than 0, not 0"),
        ({"count": "many"}, "count", "field 'count': input should be a valid integer, .*, not 'many'"),
        ({"count": 1, "inner": [{"text": "a"}, {"text": ""}]}, "inner.1.text", "field 'inner.1.text': .*, not ''"),
        ({"count": 1, "inner": "x" * 500}, "inner", f"not '{'x' * 59}$"),  # shown in part
        ({"count": 13}, None, "rows.jsonl:7: count and inner do not agree$"),
        ("text", None, "rows.jsonl:7: input should be a valid dictionary"),
    ],
)
def test_wrong_field_is_named(values, field, message):
    with pytest.raises(InputError, match=message) as caught:
        validate(Row, values, path=Path("rows.jsonl"), line=7)
    assert (caught.value.field, caught.value.line) == (field, 7)


def test_right_values_become_the_model():
    assert validate(Row, {"count": 2, "inner": [{"text": "a"}]}) == Row(count=2, inner=[Inner(text="a")])


# -- writing -----------------------------------------------------------------------------------------------------------


def test_file_appears_complete_with_usual_permissions_and_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    before = os.umask(0o027)
    try:
        write_text(path, "é\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("midway"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("existed", [True, False])
def test_failure_leaves_what_was_there(tmp_path, error, existed):
    path = tmp_path / "a.txt"
    if existed:
        path.write_text("precious")
    with pytest.raises(type(error)), atomic_file(path) as file:
        file.write(b"half of the n")
        file.flush()
        raise error
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("a.txt", "precious")] if existed else [])


def test_rows_that_fail_midway_leave_what_was_there(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, iter([{"a": 2}, {"a": object()}]))
    assert list(read_jsonl(path)) == [(1, {"a": 1})]
    assert os.listdir(tmp_path) == ["a.jsonl"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file size are tried on Linux")
def test_out_of_space_leaves_what_was_there_and_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("precious")
    code = (
        "import sys; from pathlib import Path; from selfinstruct.files import write_text\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 1_000_000)\n"
        "except OSError as error: print(error.errno, error.filename)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536)),
    )
    assert done.stdout == f"{errno.EFBIG} {path}\n"
    assert (os.listdir(tmp_path), path.read_text()) == (["a.txt"], "precious")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_device_is_not_replaced(tmp_path):
    for overwrite in (True, False):
        with pytest.raises(UsageError, match="/dev/full is no ordinary file; give a file"):
            refuse_to_replace(Path("/dev/full"), overwrite)


def test_what_is_there_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a"
    refuse_to_replace(path, overwrite=False)
    path.touch()
    refuse_to_replace(path, overwrite=True)
    with pytest.raises(UsageError, match=r"a exists; give another file, or --overwrite"):
        refuse_to_replace(path, overwrite=False)
    with pytest.raises(UsageError, match="is a folder; give a file"):
        refuse_to_replace(tmp_path, overwrite=True)


def test_toml_round_trip_leaves_none_out(tmp_path):
    path = tmp_path / "a.toml"
    values = {"a": 1, "b": None, "c": {"d": None, "e": [1.5, "é\n\"'"]}, "f": (), "g": [{"h": None, "i": True}]}
    write_text(path, to_toml(values))
    assert read_toml(path) == {"a": 1, "c": {"e": [1.5, "é\n\"'"]}, "f": [], "g": [{"i": True}]}


def test_lone_surrogates_do_not_stop_a_file_from_being_written(tmp_path):
    assert to_json_line({"a": "\ud83d é"}) == '{"a":"? é"}'
    write_jsonl(tmp_path / "a.jsonl", [{"a": "\ud83d"}])
    write_json(tmp_path / "a.json", {"a": "\ud83d"})
    write_text(tmp_path / "a.toml", to_toml({"a": "\ud83d"}))
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [(1, {"a": "?"})]
    assert read_json(tmp_path / "a.json") == read_toml(tmp_path / "a.toml") == {"a": "?"}


def test_json_line_is_one_line():
    assert to_json_line({"a": "x\ny\u2028", "b": [1, None]}) == '{"a":"x\\ny\u2028","b":[1,null]}'


def test_hashes_are_those_of_other_programs(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"a" * 1_000_000)  # a test vector of FIPS 180
    assert sha256_file(path) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    assert digest({"b": 1, "a": "é"}) == digest(json.loads('{"a": "\\u00e9", "b": 1}'))
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(1, 64)) == 64


def test_shipped_files_are_found_and_others_refused():
    assert shipped("heldout").is_dir()
    with pytest.raises(UsageError, match="no data/absent"):
        shipped("absent")
