"""data/convert.py: tables of three formats into annotation files, bad rows counted by reason."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import called

from eva.dataset.convert import Columns, ConvertError, RowError, convert_rows, read_table
from eva.dataset.items import load_items

COLUMNS = Columns("video", "question", ("options",), "answer", "letter")
NO_LIST = "the options are neither a JSON list nor an object with the keys A, B, …"
OBJECT = {"B": "y", "A": "x"}
ROW = {"video": "cats.mp4", "question": "How many cats?", "options": ["one", "two", "three"], "answer": "B"}
SPREADSHEET = ("--video", "file", "--question", "question", "--options", "a,b", "--answer", "right")
FLAGS = ("--video", "video", "--question", "question", "--options", "options", "--answer", "answer")


def convert(table: Path, output: Path, *flags: str, kind: str = "jsonl") -> subprocess.CompletedProcess[str]:
    return called("data/convert.py", "--format", kind, table, "-o", output, *flags, cwd=table.parent)


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def converted(*rows: dict, columns: Columns = COLUMNS) -> list[dict]:
    return [json.loads(line) for line in convert_rows(enumerate(rows), columns) if isinstance(line, str)]


def reasons(*rows: dict, columns: Columns = COLUMNS) -> list[str]:
    return [row.reason for row in convert_rows(enumerate(rows), columns) if isinstance(row, RowError)]


def test_csv_with_a_column_for_each_option_becomes_items(tmp_path):
    rows = ["clip,Frage,o1,o2,o3,right,topic", 'a/käse.mp4,"Line one\nline two, really?",ja,nein,,b,food']
    (tmp_path / "set.csv").write_text("\n".join([*rows, "b.mp4,Which?,x,y,z,(C),other"]), encoding="utf-8")
    flags = ("--video", "clip", "--question", "Frage", "--options", "o1,o2,o3", "--answer", "right", "--keep", "topic")
    done = convert(tmp_path / "set.csv", tmp_path / "out.jsonl", *flags, kind="csv")
    assert (done.returncode, done.stderr) == (0, "2 of 2 rows converted, 0 dropped\n")
    first, second = load_items(tmp_path / "out.jsonl")
    assert (first.videos, first.index, first.ground_truth) == (("a/käse.mp4",), 0, "B")
    assert first.prompt == ({"role": "user", "content": "Line one\nline two, really?\nA. ja\nB. nein"},)
    assert (second.index, second.ground_truth, second.extra) == (1, "C", {"topic": "other"})


@pytest.mark.parametrize(
    ("encoding", "delimiter", "flags"),
    [
        *(("utf-8-sig", ";", ()), ("utf-16", "\t", ()), ("utf-8", ",", ("--encoding", "cp1252"))),
        *(("cp1252", ";", ("--encoding", "cp1252")), ("mac_roman", ";", ("--encoding", "macintosh"))),
    ],
)
def test_a_table_as_excel_saves_it_is_read_and_its_rows_have_the_numbers_that_excel_shows(
    tmp_path, encoding, delimiter, flags
):
    table = tmp_path / "set.csv"
    rows = ["file,question,a,b,right", 'käse.mp4,"How\r\nmany?",1,2,B', "", "b.mp4,,1,2,A"]
    table.write_bytes("\r\n".join(rows).replace(",", delimiter).encode(encoding))
    done = convert(table, tmp_path / "out.jsonl", *SPREADSHEET, *flags, kind="csv")
    assert (done.returncode, done.stderr.splitlines()) == (
        0, ["1 of 2 rows converted, 1 dropped", "  1 x no question (row 4: no question)"],
    )  # fmt: skip
    (item,) = load_items(tmp_path / "out.jsonl")
    assert (item.index, item.videos, item.ground_truth) == (0, ("käse.mp4",), "B")


def test_a_text_in_another_encoding_names_the_flag(tmp_path):
    (tmp_path / "set.csv").write_bytes("käse.mp4".encode("cp1252"))
    done = convert(tmp_path / "set.csv", tmp_path / "out.jsonl", *SPREADSHEET, kind="csv")
    assert (done.returncode, "--encoding" in done.stderr) == (1, True)
    assert convert(tmp_path / "set.csv", tmp_path / "out.jsonl", *SPREADSHEET, "--encoding", "none").returncode == 2


def test_an_xlsx_file_becomes_items_with_what_its_cells_show(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    rows = [
        ("file", "question", "a", "b", "right"),
        ("käse.mp4", "Is it so?", True, False, "B"),
        (),
        ("b.mp4", "How many?", 1, 2.5, "A"),
        ("c.mp4", "", 1, 2, "A"),
    ]
    for cells in rows:
        book.active.append(cells)
    book.save(tmp_path / "set.xlsx")
    done = convert(tmp_path / "set.xlsx", tmp_path / "out.jsonl", *SPREADSHEET, kind="xlsx")
    assert (done.returncode, done.stderr.splitlines()[1:]) == (0, ["  1 x no question (row 5: no question)"])
    first, second = load_items(tmp_path / "out.jsonl")
    assert first.prompt[0]["content"] == "Is it so?\nA. TRUE\nB. FALSE"
    assert (second.index, second.prompt[0]["content"]) == (1, "How many?\nA. 1\nB. 2.5")
    (tmp_path / "broken").write_bytes(b"no xlsx")
    done = convert(tmp_path / "broken", tmp_path / "out.jsonl", *SPREADSHEET, kind="xlsx")
    assert (done.returncode, "is not a readable xlsx file" in done.stderr) == (1, True)


def test_json_with_a_list_or_an_object_of_options_becomes_items(tmp_path):
    rows = [ROW, ROW | {"video": "b.mp4", "options": '["1", 2, 2.5]'}, ROW | {"video": "c.mp4", "options": OBJECT}]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    for table in (write_jsonl(tmp_path / "set.jsonl", *rows), tmp_path / "set.json"):
        assert convert(table, tmp_path / "out.jsonl", *FLAGS, kind=table.suffix[1:]).returncode == 0
        contents = [item.prompt[0]["content"].partition("?")[2] for item in load_items(tmp_path / "out.jsonl")]
        assert contents == ["\nA. one\nB. two\nC. three", "\nA. 1\nB. 2\nC. 2.5", "\nA. x\nB. y"]


def test_parquet_with_a_list_column_becomes_items(tmp_path):
    rows = [ROW | {"when": datetime.date(2025, 1, 2)}, ROW | {"question": "And dogs?", "when": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    done = convert(tmp_path / "set.parquet", tmp_path / "out.jsonl", *FLAGS, "--keep", "when", kind="parquet")
    assert done.returncode == 0, done.stderr
    assert [item.extra for item in load_items(tmp_path / "out.jsonl")] == [{"when": "2025-01-02"}, {"when": None}]


@pytest.mark.parametrize(("kind", "package"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_without_the_package_of_a_format_it_is_said_what_to_install(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ConvertError, match=f"need {package}: pip install"):
        list(read_table(tmp_path / "table", kind, []))


@pytest.mark.parametrize(
    ("kind", "answer", "truth"),
    [
        ("letter", "B", "B"),
        ("letter", " b. ", "B"),
        ("letter", "(B)", "B"),
        ("index0", 1, "B"),
        ("index0", "1.0", "B"),
        ("index0", 0, "A"),
        ("index1", 3, "C"),
        ("text", "three", "C"),
        ("text", "C. three", "C"),
    ],
)
def test_an_answer_is_a_letter_an_index_or_the_text(kind, answer, truth):
    columns = Columns("video", "question", ("options",), "answer", kind)
    (item,) = converted(ROW | {"answer": answer}, columns=columns)
    assert item["reward_model"] == {"style": "rule", "ground_truth": truth}


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("letter", "D"), ("letter", "1"), ("letter", "two"), ("index0", 3), ("index0", -1), ("index1", 0), ("text", "B")],
)
def test_an_answer_that_is_none_of_the_options_drops_the_row(kind, answer):
    columns = Columns("video", "question", ("options",), "answer", kind)
    assert reasons(ROW | {"answer": answer}, columns=columns) == ["the answer is not among the options"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"video": " "}, "no video"),
        ({"video": float("nan")}, "no video"),
        ({"video": "a/../../b.mp4"}, "the video's path leaves the folder of the videos"),
        ({"video": "a\0.mp4"}, "the video's path leaves the folder of the videos"),
        ({"video": ["a.mp4"]}, "a cell is neither text nor a number"),
        ({"question": ""}, "no question"),
        ({"options": ["only"]}, "fewer than 2 options"),
        ({"options": ["", None]}, "fewer than 2 options"),
        ({"options": ["one", "", "three"]}, "an empty option before the last one"),
        ({"options": ["x"] * 27}, "more than 26 options"),
        ({"options": "['one', 'two']"}, NO_LIST),
        ({"options": "[" * 500 + "]" * 500}, NO_LIST),
        ({"options": {"A": "one", "C": "two"}}, NO_LIST),
        ({"options": ["one", "two", "two"]}, "the right option is there twice"),
        ({"answer": ""}, "no answer"),
        ({"question": True}, "a cell is neither text nor a number"),
        ({"question": "half a pair \ud800"}, "a value that JSON or UTF-8 cannot hold"),
    ],
)
def test_a_row_that_is_no_question_is_dropped_for_a_reason(change, reason):
    assert reasons(ROW, ROW | change) == [reason]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["one", "two", "", None], "\nA. one\nB. two"),  # the row has fewer than the table has columns
        *((labelled, "\nA. x\nB. y") for labelled in (["A. x", "B. y"], ["(A) x", "(B) y"], ["A: x", "B: y"])),
        (["A. x", "B."], "\nA. A. x\nB. B."),
        (["A. thaliana", "C. elegans"], "\nA. A. thaliana\nB. C. elegans"),
        ([str(number) for number in range(26)], "\nZ. 25"),
    ],
)
def test_options_have_letters_and_labels_that_they_carry_already_are_not_doubled(options, shown):
    (item,) = converted(ROW | {"options": options})
    assert item["prompt"][0]["content"].endswith(shown)


def test_an_index_is_the_rows_number_so_that_mending_a_row_moves_no_other():
    assert [item["index"] for item in converted(ROW, ROW | {"video": ""}, ROW | {"question": "Else?"})] == [0, 2]


def test_a_kept_value_that_json_lacks_becomes_null_or_drops_the_row():
    columns = Columns("video", "question", ("options",), "answer", "letter", keep=("score",))
    assert converted(ROW | {"score": float("nan")}, columns=columns)[0]["score"] is None
    assert converted(ROW | {"score": 2.5}, columns=columns)[0]["score"] == 2.5
    assert converted(ROW | {"score": datetime.date(2025, 1, 2)}, columns=columns)[0]["score"] == "2025-01-02"
    assert reasons(ROW | {"score": b"bytes"}, columns=columns) == ["a value that JSON or UTF-8 cannot hold"]


def test_dropped_rows_are_counted_by_reason_on_stderr(tmp_path):
    table = tmp_path / "set.jsonl"
    write_jsonl(table, ROW, ROW | {"question": ""}, ROW | {"question": " "}, {"video": "x.mp4"}, [1])
    with table.open("a") as file:
        file.write('{"video": \n')
    done = convert(table, tmp_path / "out.jsonl", *FLAGS)
    assert done.returncode == 0
    assert "1 of 6 rows converted, 5 dropped" in done.stderr
    assert "  2 x no question (row 2: no question; row 3: no question)" in done.stderr
    assert "  1 x a column is absent (row 4: a column is absent: answer, options, question)" in done.stderr
    assert "  2 x not a JSON object (row 5: not a JSON object; row 6" in done.stderr
    assert len(load_items(tmp_path / "out.jsonl")) == 1


def test_strict_writes_nothing_when_a_row_is_dropped(tmp_path):
    table = write_jsonl(tmp_path / "set.jsonl", ROW, ROW | {"question": ""})
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    assert convert(table, output, *FLAGS, "--strict").returncode == 1
    write_jsonl(table, ROW | {"answer": "Z"})
    assert convert(table, output, *FLAGS).returncode == 1
    assert output.read_text() == "before"


def test_a_csv_row_of_another_length_is_dropped(tmp_path):
    table = tmp_path / "set.csv"
    table.write_text('video,question,options,answer\na.mp4,Q,"[""x"",""y""]",A\nb.mp4,Q\nc.mp4,Q,x,y,z\n')
    assert [type(row) for _, row in read_table(table, "csv", COLUMNS.names)] == [dict, RowError, RowError]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("csv", b"video,question,answer\n", "has no column options; it has video, question, answer"),
        ("csv", b"", "has no column video, question, options, answer; it has none"),
        ("csv", b"video,question,options,answer,video\n", "has more than one column video"),
        ("csv", b'video,question,options,answer\n"open', "is not readable as csv"),
        ("parquet", b"no parquet", "is not a readable Parquet file"),
        ("json", b"{}", "does not hold a JSON list"),
        ("jsonl", b"\xff\n", "is not text in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, kind, content, message):
    table = tmp_path / "table"
    table.write_bytes(content)
    done = convert(table, tmp_path / "out.jsonl", *FLAGS, kind=kind)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_arguments_that_cannot_work_are_refused_first(tmp_path):
    table = write_jsonl(tmp_path / "set.jsonl", ROW)
    assert convert(table, table, *FLAGS).returncode == 2
    for names in ("prompt", "a,,b", "a,a"):
        assert convert(table, tmp_path / "out", *FLAGS, "--keep", names).returncode == 2
    done = convert(tmp_path / "absent", tmp_path / "out", *FLAGS)
    assert (done.returncode, "absent" in done.stderr) == (1, True)
