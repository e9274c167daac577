"""Numbers -> SVG for a page with a dark mode that can be printed, by matplotlib without pyplot.

Texts and axes are `currentColor`. The colours of the runs are CSS variables (`--run-1` ...) with defaults that can be
seen on white and on black. Each run has a marker of its own too, for those who do not see colours, and for print.
"""

from __future__ import annotations

import io
import re
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from eva.report.grouping import Estimate, Group
from eva.text import printable

COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c", "#9467bd", "#d62728", "#7f7f7f")
MARKERS = ("o", "s", "D", "^", "v", "P")
# A colour that nothing else has. In the finished SVG currentColor replaces it.
INK = "#010203"
# 360 units wide. A phone shows it about as large, so a text of 12 units has at least 11 pixels.
WIDTH_IN = 5.0
FONT_SIZE = 12
LABEL_LIMIT = 48
# Characters per line of a label beside the axis, and of a text below it.
LABEL_WIDTH, BELOW_WIDTH = 24, 46

# The ends of an axis, in per cent.
Limits = tuple[float, float]

# matplotlib's settings belong to the whole process: one chart at a time.
_LOCK = threading.Lock()
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Mark:
    """How a run looks in every chart of a page, by its number in the order of the page."""

    number: int
    name: str

    @property
    def colour(self) -> str:
        return COLOURS[self.number % len(COLOURS)]

    @property
    def marker(self) -> str:
        # After six runs a colour is used again, with another marker.
        return MARKERS[(self.number + self.number // len(COLOURS)) % len(MARKERS)]


@dataclass(frozen=True)
class Point:
    """The cost and the accuracy of a run; `published` are (mean tokens, accuracy as a fraction) of its dataset.

    `nframes` is known of a point on a curve.
    """

    mark: Mark
    tokens: float
    accuracy: Estimate
    published: tuple[tuple[float, float], ...] = ()
    nframes: int | None = None


def render(draw: Callable[..., None], *, height_in: float, key: str, title: str) -> str:
    """An <svg> element for a page. The same numbers give the same bytes.

    `draw` gets the axes. `key` makes the element ids of several charts on one page differ;
    `title` is the accessible name.
    """
    with _LOCK, mpl.rc_context(), warnings.catch_warnings():
        # So a matplotlibrc of the user changes nothing.
        mpl.rcdefaults()
        mpl.rc("svg", fonttype="none", hashsalt=key)
        mpl.rc("font", size=FONT_SIZE)
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph")
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        _ink(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=_NO_METADATA)
    return _for_a_page(text.getvalue(), key=key, title=title)


def forest_height_in(rows: Sequence[Group]) -> float:
    runs, lines = len(rows[0].estimates), max(_wrapped(row.label).count("\n") + 1 for row in rows)
    return 1.0 + len(rows) * max(0.1 + 0.2 * lines, 0.2 * runs + 0.1) + legend_height_in(runs)


def forest(axes: Axes, rows: Sequence[Group], runs: Sequence[Mark], *, unit: str, limits: Limits) -> None:
    """Shares with their intervals, one below the other, and the number of samples of each."""
    step = 0.8 / len(runs)
    for place, row in enumerate(rows):
        for order, (mark, one) in enumerate(zip(runs, row.estimates, strict=True)):
            if one is not None:
                _estimate(axes, one, place + (order - (len(runs) - 1) / 2) * step, mark)
    axes.set_yticks(range(len(rows)), [_wrapped(row.label) for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _below(axes, unit)
    axes.grid(axis="x", alpha=0.25, color=INK, linewidth=0.6)
    legend(axes, runs)


def _estimate(axes: Axes, one: Estimate, y: float, mark: Mark) -> None:
    if one.interval is not None:
        ends = [100 * one.interval.low, 100 * one.interval.high]
        axes.plot(ends, [y, y], color=mark.colour, linewidth=1.4, clip_on=False)
    # Not clipped: a marker at 100 % is as whole as any other.
    axes.plot([100 * one.value], [y], color=mark.colour, marker=mark.marker, markersize=6, clip_on=False)
    axes.annotate(
        f"n = {one.count:,}",
        (1, y),
        xytext=(8, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        va="center",
        color=INK,
    )


def limits_of(shares: Sequence[float]) -> Limits:
    """An axis that holds these fractions, and nothing below 0 or above 100 %. It is at least twenty points wide, so
    that noise does not look like a large difference."""
    low, high = 100 * min(shares), 100 * max(shares)
    margin = max(2.0, (20 - (high - low)) / 2)
    low, high = low - margin, high + margin
    return max(0.0, low - max(0.0, high - 100)), min(100.0, high - min(0.0, low))


def ends_of(estimates: Iterable[Estimate | None]) -> list[float]:
    """The estimates and the ends of their intervals."""
    known = [one for one in estimates if one is not None]
    ends = [end for one in known if one.interval for end in (one.interval.low, one.interval.high)]
    return [*(one.value for one in known), *ends]


def scatter(axes: Axes, points: Sequence[Point], curves: Sequence[Sequence[Point]]) -> None:
    """Mean tokens against accuracy. Published figures are hollow; a line leads to the run of their dataset.

    The points of each curve are joined, and their numbers of frames stand at them.
    """
    for curve in curves:
        shares = [100 * point.accuracy.value for point in curve]
        axes.plot([point.tokens for point in curve], shares, color=INK, linewidth=1, alpha=0.5)
        for point, share in zip(curve, shares, strict=True):
            place = (point.tokens, share)
            axes.annotate(
                label(str(point.nframes)), place, xytext=(-6, 4), textcoords="offset points", ha="right", color=INK
            )
    for point in points:
        mark, share = point.mark, 100 * point.accuracy.value
        if point.accuracy.interval is not None:
            ends = [100 * point.accuracy.interval.low, 100 * point.accuracy.interval.high]
            axes.plot([point.tokens, point.tokens], ends, color=mark.colour, linewidth=1.4, clip_on=False)
        axes.plot([point.tokens], [share], color=mark.colour, marker=mark.marker, markersize=7, clip_on=False)
        for tokens, accuracy in point.published:
            axes.plot([point.tokens, tokens], [share, 100 * accuracy], color=mark.colour, linewidth=0.7, ls=":")
            hollow = 100 * accuracy
            look = axes.plot([tokens], [hollow], color=mark.colour, marker=mark.marker, clip_on=False)
            look[0].set(markersize=8, fillstyle="none")
    published = [one for point in points for one in point.published]
    most = max([*(point.tokens for point in points), *(tokens for tokens, _ in published)])
    axes.set_xlim(0, 1.1 * most or 1)
    axes.set_ylim(*limits_of([*ends_of(point.accuracy for point in points), *(share for _, share in published)]))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _below(axes, "Tokens per sample, mean (hollow: published" + ("; line: number of frames)" if curves else ")"))
    axes.set_ylabel("Accuracy, %")
    axes.grid(alpha=0.25, color=INK, linewidth=0.6)


def densities(axes: Axes, lines: Sequence[tuple[Mark, Sequence[float], bool]]) -> None:
    """Lines over the video from its start to its end, as (run, one value per bin, whether dashed)."""
    for mark, values, dashed in lines:
        edges = [100 * k / len(values) for k in range(len(values) + 1)]
        style = "--" if dashed else "-"
        axes.stairs(list(values), edges, baseline=None, color=mark.colour, linewidth=1.5, linestyle=style)
    axes.axhline(1, color=INK, linewidth=0.6, alpha=0.5)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    _below(axes, "Place in the video, % of its length (solid: first look, dashed: later looks)")
    axes.set_ylabel("Frames, 1 = even")


def legend(axes: Axes, runs: Sequence[Mark]) -> None:
    """Above the axes, for two runs and more. The texts are set last: matplotlib drops a label that starts with _."""
    if len(runs) < 2:
        return
    marks = [Line2D([], [], color=mark.colour, marker=mark.marker, linewidth=1.4, markersize=5) for mark in runs]
    box = axes.figure.legend(
        marks, [str(n) for n in range(len(runs))], loc="outside upper left", frameon=False, fontsize=FONT_SIZE
    )
    for text, mark in zip(box.get_texts(), runs, strict=True):
        text.set_parse_math(False)
        text.set_text(label(mark.name))
        text.set_color(INK)


def legend_height_in(runs: int) -> float:
    return 0.25 * runs if runs > 1 else 0.0


def _below(axes: Axes, text: str) -> None:
    """Below the axes and in the middle of the picture, which is wider than they are."""
    axes.figure.supxlabel(textwrap.fill(text, BELOW_WIDTH), fontsize=FONT_SIZE, color=INK)


def _wrapped(text: str) -> str:
    return textwrap.fill(label(text), LABEL_WIDTH)


def label(text: str) -> str:
    return printable(text, limit=LABEL_LIMIT)


def _ink(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(INK)
    axes.tick_params(colors=INK)
    axes.yaxis.label.set_color(INK)


def _for_a_page(svg: str, *, key: str, title: str) -> str:
    """The <svg> element with the page's font and colours, with unique ids, and without style rules for the whole page.

    Only tags change. Texts have no angle brackets, and no attribute has text from a result file.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", svg, count=1)
    svg = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], key), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1).strip()


def _tag(tag: str, key: str) -> str:
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    tag = re.sub(r'href="#', f'href="#{key}-', tag)
    tag = tag.replace("url(#", f"url(#{key}-").replace(INK, "currentColor")
    tag = re.sub(r"\bfont: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    for number, value in enumerate(COLOURS, start=1):
        tag = tag.replace(value, f"var(--run-{number}, {value})")
    return tag
