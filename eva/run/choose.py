"""Which questions of a dataset a run asks: those of its flags."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from eva.dataset.items import Item
from eva.run.options import Options
from eva.run.settings import SettingsError


def choose_items(items: Sequence[Item], options: Options) -> list[Item]:
    """The items of --ids, and of these --sample many; all without these flags. Raises SettingsError."""
    if options.ids is not None:
        unknown = sorted(options.ids - {item.index for item in items})
        if unknown:
            raise SettingsError(f"--ids: there is no item {', '.join(map(str, unknown[:10]))} in the annotation file")
        items = [item for item in items if item.index in options.ids]
    if options.shuffle is None:
        return list(items[: options.sample])
    if options.sample is None:
        raise SettingsError("--shuffle draws the questions of --sample: add --sample N")
    return draw(items, options.sample, options.shuffle)


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """A random choice of `count` items, in their order.

    The choice depends on the seed and on the indices alone, on every machine and in every version of Python. A larger
    choice with the same seed holds the smaller one, so a run can be extended.
    """
    drawn = {item.index for item in sorted(items, key=lambda item: _place(item.index, seed))[:count]}
    return [item for item in items if item.index in drawn]


def _place(index: int, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {index}".encode()).digest()
