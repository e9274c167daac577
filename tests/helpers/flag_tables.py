"""The tables of docs/flags.md, made from the parsers of the commands, which also make `--help`.

python tests/helpers/flag_tables.py      writes them into the page
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "flags.md"
HEAD = "| {} | default | meaning |\n|---|---|---|\n"


def with_tables(page: str) -> str:
    """The page, with new tables in place of those that it has."""
    from eva.commands import report, run_flags, score  # as a command, this file first sets the path
    from eva.run.settings import known_datasets

    for name, tables in {
        "eval-eva.py": grouped(run_flags.make_parser({}, list(known_datasets()))),
        "accuracy.py": [table("argument", score.make_parser()._actions)],
        "report.py": [table("argument", report.make_parser()._actions)],
    }.items():
        before, heading, rest = page.partition(f"\n## {name}\n")
        _, following, after = rest.partition("\n## ")
        page = before + heading + "\n" + "\n".join(tables) + following + after
    return page


def grouped(parser: argparse.ArgumentParser) -> list[str]:
    """A table for each group, below a line with its title."""
    titled = [group for group in parser._action_groups if group.title and group._group_actions][1:]
    return [f"{title(group)}:\n\n{table('flag', group._group_actions)}" for group in titled]


def title(group: argparse._ArgumentGroup) -> str:
    more = f" ({as_markdown(group.description)})" if group.description else ""
    return f"{str(group.title).capitalize()}{more}"


def table(first: str, actions: Iterable[argparse.Action]) -> str:
    rows = [row(action) for action in actions if not isinstance(action, argparse._HelpAction)]
    return HEAD.format(first) + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(action: argparse.Action) -> tuple[str, str, str]:
    meaning, _, stated = (action.help or "").removesuffix(")").partition(" (default: ")
    whole = meaning if stated else action.help or ""
    return name_of(action), as_markdown(stated) if stated else default_of(action), as_markdown(whole)


def name_of(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar} ...`"
    value = action.metavar or "\\|".join(map(str, action.choices or ()))
    value = f"[{value}]" if action.nargs == "?" else value
    return ", ".join(f"`{' '.join(filter(None, [name, str(value)]))}`" for name in action.option_strings)


def default_of(action: argparse.Action) -> str:
    if action.required and action.nargs != "*":  # versions of argparse do not agree on this one
        return "required"
    if isinstance(action.default, bool):
        return "on" if action.default else "off"
    if action.default in (None, [], {}):
        return "none"
    value = action.default
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int) else f"`{value}`"


def as_markdown(text: str) -> str:
    text = re.sub(r"docs/([a-z]+\.md)", r"[\1](\1)", text.replace("|", r"\|"))
    return re.sub(
        r"(?<![\w`-])(--[a-z][\w-]*(?: [A-Z]+\b)?|https?://\S*\w|[\w./]+\.jsonl|/tmp/[\w-]+|data/[\w./]+)",
        r"`\1`",
        text,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
