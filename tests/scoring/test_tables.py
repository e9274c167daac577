"""accuracy.py --table: what is written is read back by other programs, with hostile names."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import called, write_rows
from markdown_it import MarkdownIt

from eva.records.meta import Meta, write_meta
from eva.scoring.assessment import assess_file
from eva.scoring.compare_files import read_answered
from eva.scoring.published import load_published
from eva.scoring.tables import FORMATS, Table, make_table

PUBLISHED = load_published()
HOSTILE = "a|b \\ *c* `d` <script>x</script> [l](http://e) & 5% $x$ #1 {y} ^~_z"


def write(path: Path, count: int, *, dataset: str = "own", **more: Callable[[int], Any]) -> Path:
    """Every third answer is wrong; two questions for each video."""
    rows = [
        {"index": n, "gt": "B", "answer": "BC"[n % 3 == 0], "stop_reason": "answer_found"}
        | {"num_rounds": 2, "total_tokens": 1000 + n, "videos": [f"{n // 2}.mp4"]}
        | {key: value(n) for key, value in more.items()}
        for n in range(count)
    ]
    write_rows(path, rows)
    write_meta(path, Meta({"dataset": dataset}, {}, (), coverage={"items": count, "chosen": [[0, count - 1]]}))
    return path


def table_of(*paths: Path, by_category: bool = False) -> Table:
    return make_table([read_answered(path, PUBLISHED) for path in paths], by_category=by_category)


@pytest.fixture
def hostile(tmp_path: Path) -> Table:
    path = write(tmp_path / "result_own.jsonl", 30, category=lambda n: (HOSTILE, "=1+1", "plain\n\x1b[31m")[n % 3])
    return table_of(path, write(tmp_path / "[50%] & more_.jsonl", 8), by_category=True)


def read_markdown(text: str) -> list[list[str]]:
    """The cells of the only table, as a reader sees them: what is not text is shown as its markup."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert [token.type for token in tokens].count("table_open") == 1
    assert tokens[0].type == "table_open" and tokens[-1].type == "table_close"
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "text_special"}, token.content
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def read_latex(text: str) -> list[list[str]]:
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\")]
    back = {r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~"}
    back |= {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", "{[}": "[", "{]}": "]", "{*}": "*"}
    read = re.compile(r"\\text\w+\{\}|\{[*\[\]]\}|\\[#$%&_{}]")
    cells = [[cell.strip().strip("$") for cell in re.split(r"(?<!\\)&", line)] for line in lines]
    return [[read.sub(lambda found: back.get(found[0], found[0][1:]), cell) for cell in row] for row in cells]


def test_csv_comes_back_with_the_figures_that_accuracy_py_prints(tmp_path: Path) -> None:
    path = write(tmp_path / "result_lsdbench.jsonl", 1304, dataset="lsdbench")
    (row,) = csv.DictReader(FORMATS["csv"](table_of(path)).splitlines())
    score = assess_file(path, PUBLISHED).score
    assert score.accuracy is not None and score.interval is not None
    assert (row["name"], row["n"], row["rounds"], row["tokens"]) == ("lsdbench", "1304", "2.0000", "1651.50")
    ends = float(row["low_95_percent"]), float(row["high_95_percent"])
    assert ends == pytest.approx((100 * score.interval.low, 100 * score.interval.high), abs=1e-4)
    assert float(row["accuracy_percent"]) == pytest.approx(100 * score.accuracy, abs=1e-4)
    figure = 100 * PUBLISHED["lsdbench"].figures[0].accuracy
    assert float(row["published_percent"]) == pytest.approx(figure)
    assert float(row["difference_points"]) == pytest.approx(100 * score.accuracy - figure, abs=2e-4)


def test_the_three_forms_say_the_same(hostile: Table) -> None:
    markdown, latex = read_markdown(FORMATS["md"](hostile)), read_latex(FORMATS["latex"](hostile))
    assert markdown == latex
    head, *rows = csv.reader(FORMATS["csv"](hostile).splitlines())
    assert (len(head), len(rows)) == (10, len(markdown) - 1)
    for cells, shown in zip(rows, markdown[1:], strict=True):
        name, category, count, accuracy, low, high = (cell.lstrip("'") for cell in cells[:6])
        assert shown[:4] == [
            name, category, count, f"{float(accuracy):.2f} [{float(low):.2f}, {float(high):.2f}]"
        ]  # fmt: skip


def test_a_hostile_name_stays_a_name_in_each_form(hostile: Table) -> None:
    owed = ["all", HOSTILE, "=1+1", "plain \ufffd[31m", "all"]
    for rows in (read_markdown(FORMATS["md"](hostile)), read_latex(FORMATS["latex"](hostile))):
        assert [row[1] for row in rows[1:]] == owed
        assert rows[-1][0] == "[50%] & more_"
    cells = [row["category"] for row in csv.DictReader(FORMATS["csv"](hostile).splitlines())]
    assert cells == [cell.replace("=1+1", "'=1+1") for cell in owed], "a spreadsheet must not compute a name"


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_latex_form_compiles(hostile: Table, tmp_path: Path) -> None:
    rows = FORMATS["latex"](hostile).replace("\ufffd", "?")  # pdflatex has no such character
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + rows + "\n\\end{document}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-draftmode", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def rows_of(table: Table) -> list[tuple[str, str, int]]:
    return [(row.name, row.category, row.count) for row in table.rows]


def test_categories_are_those_of_the_dataset_in_the_order_of_its_questions(tmp_path: Path) -> None:
    videomme, lvbench = tmp_path / "result_videomme.jsonl", tmp_path / "result_lvbench.jsonl"
    write(videomme, 60, dataset="videomme", video_duration_s=lambda n: (60.0, 600.0, 3000.0)[n // 20])
    write(lvbench, 10, dataset="lvbench", question_type=lambda n: "['b', 'a']" if n % 2 else "['b']")
    owed = [("videomme", "", 60), ("videomme", "short", 20), ("videomme", "medium", 20), ("videomme", "long", 20)]
    assert rows_of(table_of(videomme, lvbench, by_category=True)) == [
        *owed, ("lvbench", "", 10), ("lvbench", "b", 10), ("lvbench", "a", 5)
    ]  # fmt: skip
    assert rows_of(table_of(videomme)) == owed[:1]


def test_a_category_for_every_question_leaves_the_smallest_out_and_says_so(tmp_path: Path) -> None:
    table = table_of(write(tmp_path / "a.jsonl", 240, category=lambda n: f"c{n // 2}"), by_category=True)
    assert len(table.rows) == 101
    assert "a: 20 smaller categories are left out" in table.notes


def test_results_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "result_x.jsonl", 4) for folder in ("before", "after")]
    assert [row.name for row in table_of(*paths).rows] == ["before/x", "after/x"]
    assert [row.name for row in table_of(paths[0], paths[0]).rows] == [str(paths[0])] * 2


@pytest.mark.parametrize("form", FORMATS)
def test_agents_have_a_column_where_one_of_them_is_not_eva(tmp_path: Path, form: str) -> None:
    eva = write(tmp_path / "result_own.jsonl", 8)
    own = write(tmp_path / "own" / "result_own.jsonl", 8, agent=lambda n: "[x].py:Mine", schema=lambda n: 1)
    readers = {"csv": lambda text: list(csv.reader(text.splitlines())), "md": read_markdown, "latex": read_latex}
    alone, both = (readers[form](FORMATS[form](table_of(*paths))) for paths in ((eva,), (eva, own)))
    assert [cell.lower() for cell in alone[0][:2]] == ["name", "n"]
    assert [cell.lower() for cell in both[0][:3]] == ["name", "agent", "n"]
    assert [row[1] for row in both[1:]] == ["eva", "[x].py:Mine"]


def test_a_part_of_a_dataset_has_no_difference_from_the_figure_over_all_of_it(tmp_path: Path) -> None:
    (row,) = table_of(write(tmp_path / "a.jsonl", 20, dataset="mlvu")).rows
    assert (row.published, row.difference) == (PUBLISHED["mlvu"].figures[0].accuracy, None)


# --- the command


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return called("accuracy.py", *arguments)


@pytest.mark.process
def test_an_unfinished_run_has_a_row_without_accuracy_and_the_code_3(tmp_path: Path) -> None:
    path = write(tmp_path / "result_own.jsonl", 8)
    write_meta(path, Meta({"dataset": "own"}, {}, (), coverage={"items": 10, "chosen": [[0, 9]]}))
    whole = write(tmp_path / "whole.jsonl", 6)
    done = run("--table", "csv", path, whole, path)
    assert done.returncode == 3
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["n"], row["accuracy_percent"]) for row in rows] == [("8", ""), ("6", "66.6667"), ("8", "")]
    assert "Partial: 8 of 10 questions have a record" in done.stderr
    assert run("--table", "csv", path, "--partial").returncode == 0


@pytest.mark.process
def test_categories_without_a_table_are_refused(tmp_path: Path) -> None:
    done = run(write(tmp_path / "a.jsonl", 2), "--by", "category")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--table" in done.stderr
