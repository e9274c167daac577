"""What is said of figures, line by line, and their JSON: for the summary of a run, accuracy.py, and the page. Pure.

A line is `label: text`, or a sentence. It may hold what a stranger wrote; whoever prints it makes it printable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.meta import WEIGHTS, differing
from eva.scoring.compare import Change, Comparison
from eva.scoring.interval import MIN_VIDEOS, Interval
from eva.scoring.published import Beside, settings_caveats
from eva.scoring.repeats import Repeats, Spread
from eva.scoring.result_file import ResultFile
from eva.scoring.score import Score

FEW_VIDEOS, UNFINISHED = f"fewer than {MIN_VIDEOS} videos", "a run has not finished"
# One percentage point, as a fraction.
ONE_POINT = 0.01


# --- one result


def file_lines(file: ResultFile) -> list[str]:
    """The reference's lines (docs/protocol.md, section 6), then the uncertainty, then the published figures."""
    score = file.score
    first = [f"Total entries: {score.total}", accuracy_line(score, 4)]
    return [
        *(partial_lines(score) or first),
        *count_lines(score, 4),
        *sure_lines(score),
        *([f"Dataset: {file.dataset}"] if file.dataset else []),
        *published_lines(file.beside),
        *caveats(file),
    ]


def file_json(file: ResultFile) -> dict[str, Any]:
    content = {"file": str(file.path), "dataset": file.dataset or None, **asdict(file.score)}
    if file.published is None:
        return {**content, "questions": file.coverage.questions, "covered": file.coverage.recorded}
    published = {"published": list(map(asdict, file.beside)), "caveats": settings_caveats(file.meta, file.published)}
    return {**content, "questions": file.published.rows, "covered": file.covered, **published}


def accuracy_line(score: Score, decimals: int) -> str:
    return f"Accuracy: {score.correct}/{score.total} = {score.accuracy or 0:.{decimals}%}"


def partial_lines(score: Score) -> list[str]:
    """What can be said of an unfinished run; [] of a finished one."""
    if not score.partial:
        return []
    asked = "an unknown number of" if score.total is None else score.total
    rest = "nobody knows how many are to go" if score.to_go is None else f"{score.to_go} to go"
    again = f", {score.failures[INFRASTRUCTURE]} to run again" if score.failures[INFRASTRUCTURE] else ""
    lines = [
        f"Partial: {score.recorded} of {asked} questions have a record",
        f"So far: {score.correct} of {score.recorded} answered are right; {rest}{again}",
    ]
    if score.accuracy_bounds:
        low, high = score.accuracy_bounds
        lines.append(f"Accuracy in the end: from {low:.2%} if the rest were wrong, to {high:.2%} if it were right")
    return lines


def count_lines(score: Score, decimals: int) -> list[str]:
    return [
        f"Empty answers: {score.empty}",
        f"Average rounds: {_number(score.average_rounds, f'.{decimals}f')}",
        f"Average total tokens: {_number(score.average_total_tokens, f'.{decimals}f')}",
        "Stop reasons:",
        *(f"  {reason}: {count}" for reason, count in score.stop_reasons.items()),
    ]


def sure_lines(score: Score) -> list[str]:
    """How sure the accuracy is, how far the run is from being able to tell one point, and what guessing reaches."""
    lines = [] if score.partial else [f"95 % interval: {_interval(score.interval_95)}"]
    if score.smallest_difference is not None:
        # The error falls with the root of the number of videos.
        times = (score.smallest_difference / ONE_POINT) ** 2
        more = "" if times <= 1 else f"; one point needs {times:.1f} times as many videos"
        lines.append(f"Can show: {100 * score.smallest_difference:.2f} points (80 % power{more})")
    known = score.chance.questions
    if score.chance.accuracy is None:
        return [*lines, "Chance: not known, the options of no question can be read"]
    part = "" if known == score.recorded else f", of {known} of {score.recorded} questions: those with readable options"
    return [*lines, f"Chance: {score.chance.accuracy:.2%}{part}"]


def published_lines(published: Sequence[Beside]) -> list[str]:
    lines = []
    for one in published:
        difference = "" if one.difference is None else f", difference {100 * one.difference:+.2f} points"
        where = {None: "", True: ", inside the interval", False: ", outside the interval"}[one.inside_interval]
        lines.append(f"Published: {one.accuracy:.2%} ({one.source}, of {one.questions} questions){difference}{where}")
    return lines


def caveats(file: ResultFile) -> list[str]:
    """Everything that limits what the figures of a file say, but that its run has not finished."""
    score, meta, coverage = file.score, file.meta, file.coverage
    lines = []
    if file.published and file.covered < file.published.rows:
        lines.append(f"This result covers only {file.covered} of the {file.published.rows} published questions")
    if coverage.of_a_choice:
        lines.append(coverage.choice)
    if score.failures[INFRASTRUCTURE]:
        failed = score.failures[INFRASTRUCTURE]
        lines.append(f"Ended by a failure of the infrastructure, and wrong until they run again: {failed}")
    lines += record_lines(score)
    if meta is None or not meta.settings:
        missing = "there is no meta file beside this one" if meta is None else "the meta file does not name them"
        lines.append(f"The settings are unknown: {missing}")
    if meta and meta.adopted:
        lines.append("Some of these records were made with unknown settings")
    return [*lines, *settings_caveats(meta, file.published)]


def record_lines(score: Score) -> list[str]:
    """Which records the averages leave out, and how many replies are not whole."""
    named = [(name, indices) for name, indices in score.unusable_counts.items() if indices]
    lines = [f"Records without a usable {name}: {with_indices(indices)}" for name, indices in named]
    return [*lines, f"Replies cut at --max-tokens: {score.replies_cut}"] if score.replies_cut else lines


def with_indices(indices: Sequence[int]) -> str:
    return f"{len(indices)} (index {', '.join(map(str, indices))})" if indices else "0"


def _interval(interval: Interval | None) -> str:
    return f"{interval.low:.2%} to {interval.high:.2%}, clustered by video" if interval else f"none, {FEW_VIDEOS}"


def _number(value: float | None, form: str) -> str:
    """A figure that no record may tell."""
    return "not known" if value is None else format(value, form)


# --- two results


def comparison_lines(compared: Comparison, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """What is said of two results, which are called by `names`. Differences are B minus A."""
    a, b = names
    none = UNFINISHED if any(compared.partial.values()) else FEW_VIDEOS

    def change(one: Change | None, *, shares: bool = False) -> str:
        if one is None:
            return "not known of any question in both"
        scale, form, unit, points = (100, ".2f", " %", " points") if shares else (1, ".4f", "", "")
        text = f"{scale * one.a:{form}}{unit} in {a}, {scale * one.b:{form}}{unit} in {b}, "
        text += f"difference {scale * one.difference:+{form}}{points}, "
        if one.interval_95 is None:
            return f"{text}no interval ({none})"
        low, high = one.interval_95
        return f"{text}95 % interval {scale * low:+{form}} to {scale * high:+{form}}"

    lines = [
        f"Questions in both: {compared.common} (only in {a}: {len(compared.only_in_a)}, only in {b}: "
        f"{len(compared.only_in_b)})",
        f"Accuracy: {change(compared.accuracy, shares=True)}",
    ]
    if compared.mcnemar_p is not None:
        lines.append(f"McNemar's exact test: p = {compared.mcnemar_p:.4g}")
        # Of a difference that was not found this says that it is not as large.
        smallest = compared.smallest_difference
        shown = f"not known, no pair differs, or {FEW_VIDEOS}"
        shown = f"{100 * smallest:.2f} points (80 % power)" if smallest else shown
        lines.append(f"Could have shown: {shown}")
    lines += [
        f"Right only in {a}: {with_indices(compared.right_only_in_a)}",
        f"Right only in {b}: {with_indices(compared.right_only_in_b)}",
        f"Rounds: {change(compared.average_rounds)}",
        f"Total tokens: {change(compared.average_total_tokens)}",
        f"Visual tokens: {change(compared.average_visual_tokens)}",
    ]
    if any(compared.exceptions.values()):
        failed = compared.exceptions
        lines.append(f"Exceptions, which count as wrong: {failed['a']} in {a}, {failed['b']} in {b}")
    if compared.noise_floor:
        shares = [f"{name.replace('_', ' ')} {share:.2%}" for name, share in compared.noise_floor.items()]
        lines.append(f"Noise floor, of the same settings: {', '.join(shares)}")
    for name, part in compared.categories.items():
        # Not corrected for how many there are.
        p_value = "" if part.mcnemar_p is None else f", p = {part.mcnemar_p:.4g}"
        lines.append(f"  {name:.60}: n = {part.common}, {change(part.accuracy, shares=True)}{p_value}")
    return lines


def comparison_notes(a: ResultFile, b: ResultFile, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """What a reader of the comparison must know of the two files."""
    named = dict(zip(names, (a, b), strict=True))
    notes = []
    for name, file in named.items():
        last = file.last().score
        notes += [f"{line} ({name})" for line in (*partial_lines(last), *record_lines(last))]
        if len(file.lines) > len(file.samples):
            repeated = len(file.lines) - len(file.samples)
            notes.append(f"{name} has {repeated} lines for an index that a later line has too: the last one counts")
        if file.meta and file.meta.mixed:
            notes.append(f"{name} is mixed: parts of it were made with different settings")
    if a.dataset and b.dataset and a.dataset != b.dataset:
        notes.append(f"The two are of different datasets: {a.dataset} and {b.dataset}")
    if a.meta and b.meta:
        before, now = a.meta.settings, b.meta.settings
        notes += [
            f"Settings: {name} is {before.get(name)!r} in {names[0]}, {now.get(name)!r} in {names[1]}"
            for name in differing(before, now)
        ]
    return notes + _weights_lines(named)


def _weights_lines(named: Mapping[str, ResultFile]) -> list[str]:
    known = {name: file.meta.settings for name, file in named.items() if file.meta and file.meta.settings}
    unknown = [name for name, settings in known.items() if not settings.get(WEIGHTS)]
    return [f"The weights of {' and '.join(unknown)} are unknown, and not compared"] if unknown else []


# --- several results of one setting


def repeats_lines(repeats: Repeats) -> list[str]:
    apart = f" ({repeats.left_out} are not in all of them)" if repeats.left_out else ""
    lines = [
        f"Runs of one setting: {repeats.runs}, questions in all of them: {repeats.common}{apart}",
        f"Accuracy in percent: {_spread(repeats.accuracy, 100, '.2f')}",
        f"95 % interval of the mean accuracy: {_interval(repeats.interval_95)}",
        f"Rounds: {_spread(repeats.average_rounds, 1, '.3f')}",
        f"Total tokens: {_spread(repeats.average_total_tokens, 1, '.1f')}",
        f"Right in every run: {len(repeats.always_right)}, in some: {len(repeats.sometimes_right)}, in none: "
        f"{len(repeats.never_right)}",
        f"Majority vote: {repeats.majority_vote:.2%}",
        ", ".join(f"pass@{k}: {share:.2%}" for k, share in repeats.pass_at.items()),
    ]
    for one in repeats.published:
        ranged, predicted = ("inside" if inside else "outside" for inside in (one.inside_range, one.inside_prediction))
        lines.append(
            f"Published: {one.accuracy:.2%} ({one.source}), mean difference {100 * one.difference:+.2f} points; "
            f"{ranged} the range of the runs; {predicted} the 95 % interval of one more run "
            f"({one.prediction_95.low:.2%} to {one.prediction_95.high:.2%})"
        )
    return lines


def repeats_notes(results: Sequence[ResultFile]) -> list[str]:
    """Why the runs differ, and what limits their figures."""
    known = [one.meta.settings for one in results if one.meta and one.meta.settings]
    temperature = known[0].get("temperature", 0) if known else 0
    if len(known) < len(results):
        cause = "Not known whether these are of one setting, and at which temperature: a meta file is missing"
    elif temperature:
        cause = f"Temperature {temperature}: these runs differ by the draws of the server, and by its noise"
    else:
        cause = "Temperature 0: these runs differ by the noise of the server alone (rounding, batches)"
    limits = dict.fromkeys(line for one in results for line in caveats(one.last()))
    return [cause, *_weights_lines({str(one.path): one for one in results}), *limits]


def _spread(spread: Spread | None, scale: int, form: str) -> str:
    if spread is None:
        return "not known of all runs"
    figures = (spread.mean, spread.standard_deviation, *spread.range)
    mean, deviation, low, high = (format(scale * figure, form) for figure in figures)
    return f"mean {mean}, standard deviation {deviation}, range {low} to {high}"
