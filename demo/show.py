"""Prints one trajectory of a result file: `python -m demo.show RESULT [INDEX]`.

Without an index, it is the first of the right samples with the most rounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from eva.protocol.messages import TURN_END, TURN_START
from eva.records.outcome import same_answer


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    records = [json.loads(line) for line in Path(sys.argv[1]).read_bytes().split(b"\n") if line]
    index = int(sys.argv[2]) if len(sys.argv) == 3 else most_rounds(records)
    record = next((record for record in records if record["index"] == index), None)
    if record is None:
        print(f"{sys.argv[1]} holds no sample {index}", file=sys.stderr)
        return 1
    print("\n".join(story(record)))
    return 0


def most_rounds(records: list[dict[str, Any]]) -> int | None:
    """The index of the longest right sample, or of the first one where none is right."""
    right = [record for record in records if same_answer(record["gt"], record["answer"])] or records
    return max(right, key=lambda record: record["num_rounds"])["index"] if right else None


def story(record: dict[str, Any]) -> list[str]:
    """The question, and per round what the agent said and saw."""
    lines = [f"sample {record['index']}, video {record['videos'][0]}", opening(record["messages"])]
    for number, round_ in enumerate(record["trajectory"], start=1):
        lines += [f"--- round {number}, {round_['seconds']} s", round_["reply"]]
        for call in round_["calls"]:
            executed = call["executed"] or {}
            lines.append(f"    saw frames at {executed.get('times_s')} s:")
            lines += [f"    {frame}" for frame in call["frames"]]
    return [*lines, f"--- answer {record['answer']}, truth {record['gt']}"]


def opening(messages: str) -> str:
    """The user turn of a transcript."""
    return messages.partition(f"{TURN_START}user\n")[2].partition(TURN_END)[0]


if __name__ == "__main__":
    sys.exit(main())
