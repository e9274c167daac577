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
from harness import called
from markdown_it import MarkdownIt
from results import PUBLISHED, Row, row, rows, write_result

from eva.scoring.render import FORMATS, Table, make_table
from eva.scoring.result_file import read_result

HOSTILE = "a|b \\ *c* `d` <script>x</script> [l](http://e) & 5% $x$ #1 {y} ^~_z"
NO_NUMBERS = 8


def write(path: Path, count: int, *, dataset: str = "own", **more: Callable[[int], Any]) -> Path:
    """Every third answer is wrong; two questions for each video."""
    records: list[Row] = [
        row(n, "BC"[n % 3 == 0], total_tokens=1000 + n, **{key: value(n) for key, value in more.items()})
        for n in range(count)
    ]
    return write_result(path, records, {"dataset": dataset})


def table_of(*paths: Path, by: str | None = None) -> Table:
    return make_table([read_result(path, PUBLISHED) for path in paths], by=by)


@pytest.fixture
def hostile(tmp_path: Path) -> Table:
    path = write(tmp_path / "result_own.jsonl", 30, category=lambda n: (HOSTILE, "=1+1", "plain\n\x1b[31m")[n % 3])
    return table_of(path, write(tmp_path / "[50%] & more_.jsonl", 8), by="category")


def read_markdown(text: str) -> list[list[str]]:
    """The cells of the only table, as a reader sees them: what is not text is shown as its markup."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert [token.type for token in tokens].count("table_open") == 1
    assert tokens[0].type == "table_open" and tokens[-1].type == "table_close"
    found: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            found.append([])
        if token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "text_special"}, token.content
            found[-1].append("".join(child.content for child in token.children or []))
    return found


def read_latex(text: str) -> list[list[str]]:
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\")]
    back = {r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~"}
    back |= {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", "{[}": "[", "{]}": "]", "{*}": "*"}
    read = re.compile(r"\\text\w+\{\}|\{[*\[\]]\}|\\[#$%&_{}]")
    cells = [[cell.strip().strip("$") for cell in re.split(r"(?<!\\)&", line)] for line in lines]
    return [[read.sub(lambda found: back.get(found[0], found[0][1:]), cell) for cell in line] for line in cells]


READERS: dict[str, Callable[[str], list[list[str]]]] = {
    "csv": lambda text: list(csv.reader(text.splitlines())),
    "md": read_markdown,
    "latex": read_latex,
}


def written(table: Table, form: str) -> list[list[str]]:
    return READERS[form](FORMATS[form](table))


def test_csv_comes_back_with_the_figures_of_the_result(tmp_path: Path) -> None:
    path = write(tmp_path / "result_lsdbench.jsonl", 1304, dataset="lsdbench")
    (found,) = csv.DictReader(FORMATS["csv"](table_of(path)).splitlines())
    score = read_result(path, PUBLISHED).score
    assert score.accuracy is not None and score.interval_95 is not None
    assert (found["name"], found["n"], found["rounds"], found["tokens"]) == ("lsdbench", "1304", "2.0000", "1651.50")
    figure = PUBLISHED["lsdbench"].figures[0].accuracy
    owed = {
        "accuracy_percent": score.accuracy,
        "low_95_percent": score.interval_95.low,
        "high_95_percent": score.interval_95.high,
        "published_percent": figure,
        "difference_points": score.accuracy - figure,
    }
    assert {key: float(found[key]) for key in owed} == pytest.approx({k: 100 * v for k, v in owed.items()}, abs=1e-4)


def test_the_three_forms_say_the_same_and_a_hostile_name_stays_a_name(hostile: Table) -> None:
    markdown, latex, (_, *rest) = (written(hostile, form) for form in ("md", "latex", "csv"))
    assert markdown == latex
    owed = ["all", HOSTILE, "=1+1", "plain \ufffd[31m", "all"]
    assert [line[1] for line in markdown[1:]] == owed and markdown[-1][0] == "[50%] & more_"
    assert [line[1] for line in rest] == [name.replace("=1+1", "'=1+1") for name in owed], "no formula"
    for cells, shown in zip(rest, markdown[1:], strict=True):
        assert (cells[2], len(cells), len(shown)) == (shown[2], 2 + NO_NUMBERS, 2 + NO_NUMBERS)
        assert [f"{float(cell):.2f}" if cell else "" for cell in cells[3:6]] == shown[3:6]


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_latex_form_compiles(hostile: Table, tmp_path: Path) -> None:
    lines = FORMATS["latex"](hostile).replace("\ufffd", "?")  # pdflatex has no such character
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + lines + "\n\\end{document}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-draftmode", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_categories_are_those_of_the_dataset_and_leave_no_question_out(tmp_path: Path) -> None:
    videomme, lvbench = tmp_path / "result_videomme.jsonl", tmp_path / "result_lvbench.jsonl"
    write(videomme, 80, dataset="videomme", video_duration_s=lambda n: (None, 60.0, 600.0, 3000.0)[n // 20])
    write(lvbench, 10, dataset="lvbench", question_type=lambda n: "['b', 'a']" if n % 2 else "['b']")
    owed = [["videomme", "all", "80"], ["videomme", "short", "20"], ["videomme", "medium", "20"]]
    owed += [["videomme", "long", "20"], ["videomme", "unknown", "20"]]
    owed += [["lvbench", "all", "10"], ["lvbench", "b", "10"], ["lvbench", "a", "5"]]
    assert [line[:3] for line in written(table_of(videomme, lvbench, by="category"), "csv")[1:]] == owed
    assert len(written(table_of(videomme), "csv")) == 2


def test_results_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "result_x.jsonl", 4) for folder in ("before", "after")]
    assert [line[0] for line in written(table_of(*paths), "csv")[1:]] == ["before/x", "after/x"]
    assert [line[0] for line in written(table_of(paths[0], paths[0]), "csv")[1:]] == [str(paths[0])] * 2


@pytest.mark.parametrize("form", FORMATS)
def test_agents_have_a_column_where_one_of_them_is_not_eva(tmp_path: Path, form: str) -> None:
    eva = write(tmp_path / "result_own.jsonl", 8)
    own = write(tmp_path / "own" / "result_own.jsonl", 8, agent=lambda n: "[x].py:Mine", schema=lambda n: 1)
    alone, both = (written(table_of(*paths), form) for paths in ((eva,), (eva, own)))
    assert [cell.lower() for cell in alone[0][:2]] == ["name", "n"]
    assert [cell.lower() for cell in both[0][:3]] == ["name", "agent", "n"]
    assert [line[1] for line in both[1:]] == ["eva", "[x].py:Mine"]


@pytest.mark.process
def test_a_dataset_without_published_figures_and_a_part_of_one_have_no_difference(tmp_path: Path) -> None:
    part, demo = (write(tmp_path / f"{name}.jsonl", 24, dataset=name) for name in ("mlvu", "demo"))
    done = called("accuracy.py", "--table", "csv", part, demo)
    assert done.returncode == 0, done.stderr
    found = [
        (line["published_percent"], line["difference_points"]) for line in csv.DictReader(done.stdout.splitlines())
    ]
    assert found == [("68.2600", ""), ("", "")]


@pytest.mark.process
def test_an_unfinished_run_has_a_row_without_accuracy_and_the_code_3(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result_own.jsonl", rows("B" * 8), {"dataset": "own"}, items=10)
    whole = write(tmp_path / "whole.jsonl", 6)
    done = called("accuracy.py", "--table", "csv", path, whole, path)
    assert done.returncode == 3
    found = list(csv.DictReader(done.stdout.splitlines()))
    assert [(line["n"], line["accuracy_percent"]) for line in found] == [("8", ""), ("6", "66.6667"), ("8", "")]
    assert "Partial: 8 of 10 questions have a record" in done.stderr
    assert called("accuracy.py", "--table", "csv", path, "--partial").returncode == 0


@pytest.mark.process
def test_categories_without_a_table_are_refused(tmp_path: Path) -> None:
    done = called("accuracy.py", write(tmp_path / "a.jsonl", 2), "--by", "category")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--table" in done.stderr
