"""Numbers that only count the rows of a file, 0 to n - 1 or 1 to n: when they name items, and when they say nothing."""

from __future__ import annotations

import numpy as np


def counted_from(ids: np.ndarray) -> int | None:
    """0 or 1 where these texts count the rows from there, else None: then row order is the order by id too.

    >>> counted_from(np.array(["1", "2", "3"])), counted_from(np.array(["0", "2"]))
    (1, None)
    """
    return next((start for start in (0, 1) if np.array_equal(ids, counter(start, len(ids)))), None)


def counts_from(ids: np.ndarray) -> int | None:
    """0 or 1 where these texts are the whole numbers from there on, each once, in any order and padded with zeros or not.

    >>> counts_from(np.array(["03", "01", "02"])), counts_from(np.array(["0", "2"])), counts_from(np.array(["0", "1", "0"]))
    (1, None, None)
    """
    numbers = {int(text) for text in ids if text.isascii() and text.isdigit() and len(text) < 19}
    start = min(numbers, default=-1)
    return start if start in (0, 1) and len(numbers) == len(ids) == max(numbers) - start + 1 else None


def counter(start: int, count: int) -> np.ndarray:
    """The texts (count,) of the numbers from ``start`` on, as ids are written."""
    return np.arange(start, start + count).astype(str).astype(object)


def within(ids: np.ndarray, counted: np.ndarray) -> bool:
    """Whether all of these are among ``counted``, the numbers of another file's rows: then they may be numbers of its rows.
    One number beyond them shows that those rows were numbered anew.

    >>> within(np.array(["2", "0"]), counter(0, 3)), within(np.array(["2", "5"]), counter(0, 3))
    (True, False)
    """
    return set(ids) <= set(counted)


def rising(ids: np.ndarray) -> bool:
    """Whether these are whole numbers in rising order, as a part of a longer table has them."""
    numbers = [int(text) for text in ids if text.isascii() and text.isdigit() and len(text) < 19]
    return len(numbers) == len(ids) and all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
