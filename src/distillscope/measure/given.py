"""What an audit is given, checked: embeddings, labels, training items, class names; each fault is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.measure.classes import classes
from distillscope.measure.frames import as_floats, expect_dimensions
from distillscope.measure.pair import Pair
from distillscope.measure.pool import Settings, Side
from distillscope.measure.rows import Rows, Stored
from distillscope.measure.scan import MOST_EXPONENT, Items, Scan, scan

FEWEST = 10
VECTORS = "to_numpy", "detach"
"""What vectors of other libraries have, and numbers have not."""


def training_pair(teacher: Any, student: Any, labels: Any, normalize: str | None, settings: Settings,
                  tested: tuple[Side, Side]) -> tuple[Pair | None, np.ndarray | None]:
    """The training pair and its labels, all three or none."""
    given = {"train_teacher": teacher, "train_student": student, "train_labels": labels}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return None, None
    if missing:
        raise UserError(missing[0], "all of train_teacher, train_student and train_labels", "nothing", f"Pass {missing[0]}=.")
    labels = classes(array_of(labels), "train_labels")
    if np.ma.is_masked(labels):  # nothing is fitted to items without a label
        teacher, student = (_with_label(side, labels, name) for side, name in zip((teacher, student), given, strict=False))
        labels = np.ma.compressed(labels)
    train = _made_alike(teacher, student, normalize, settings, tested, ("train_teacher", "train_student"))
    return train, checked_labels(labels, "train_labels", train.count)


def pair_from_elsewhere(teacher: Any, student: Any, normalize: str | None, settings: Settings,
                        tested: tuple[Side, Side]) -> Pair | None:
    """Both sides of the items from elsewhere, or none."""
    given = {"ood_teacher": teacher, "ood_student": student}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 1:
        raise UserError(missing[0], "both ood_teacher and ood_student", "one", f"Pass {missing[0]}=.")
    return None if missing else _made_alike(teacher, student, normalize, settings, tested, ("ood_teacher", "ood_student"))


def _made_alike(teacher: Any, student: Any, normalize: str | None, settings: Settings, tested: tuple[Side, Side],
                names: tuple[str, str]) -> Pair:
    """Other items by the models of both ``tested`` sides."""
    pair = Pair(*two_sides(teacher, student, normalize, settings, names, tuple(side.rows.exponent for side in tested)))
    for name, side, other in zip(names, (pair.teacher, pair.student), tested, strict=True):
        if side.dim != other.dim:
            raise UserError(name, f"{other.dim} dimensions like the {name.partition('_')[2]}", f"{side.dim}",
                            "Pass embeddings made by one model.")
    return pair


def _with_label(side: Any, labels: np.ma.MaskedArray, name: str) -> Stored:
    """The rows that have a label, which stay where they are until they are read."""
    z = side.rows.z if isinstance(side, Side) else _embeddings_of(side, name)
    if len(z) != len(labels):
        raise UserError("train_labels", f"one label for each row of {name}, {len(z)}", f"{len(labels)}",
                        "Pass labels in row order.")
    return (z if isinstance(z, Stored) else Stored([z])).take(np.flatnonzero(~np.ma.getmaskarray(labels)))


def checked_labels(labels: Any, name: str, count: int) -> np.ndarray | None:
    """Labels (n,) of at least two classes, masked where an item has none, or the line that says what is wrong with them."""
    if labels is None:
        return None
    labels = _one_an_item(labels, name, "label", count)
    if len(np.unique(np.ma.compressed(labels))) < 2:
        raise UserError(name, "at least two classes", "one", "Leave the labels out, or pass items of more classes.")
    return labels


def expect_shared_classes(labels: np.ndarray, train_labels: np.ndarray) -> None:
    """Labels of the items and of the training items are of one kind and share a class, or nothing could be right."""
    known, trained = (np.unique(np.ma.compressed(found)) for found in (labels, train_labels))
    alike = (known.dtype.kind == "U") == (trained.dtype.kind == "U")
    if not alike or not np.isin(known, trained).any():
        raise UserError("train_labels", f"classes that labels has ({known[0]!s}, {known[1]!s}, ...)",
                        f"none of them ({trained[0]!s}, {trained[1]!s}, ...)", "Write the labels of both alike.")


def checked_subgroups(subgroups: Any, count: int) -> np.ndarray | None:
    """The subgroup (n,) of each item, masked where it is in none, or the line that says what is wrong with them."""
    if subgroups is None:
        return None
    subgroups = _one_an_item(subgroups, "subgroups", "subgroup", count)
    if not np.ma.compressed(subgroups).size:
        raise UserError("subgroups", "a subgroup of some items", "none of any", "Leave the subgroups out.")
    return subgroups


def _one_an_item(values: Any, name: str, what: str, count: int) -> np.ndarray:
    found = classes(array_of(values), name)
    if found.shape != (count,):
        raise UserError(name, f"one {what} per item, shape ({count},)", f"shape {found.shape}", f"Pass {what}s in row order.")
    return found


def checked_text(text: Any, labels: np.ndarray | None) -> np.ndarray | None:
    """Embeddings of the class names, which the labels must index."""
    if text is None:
        return None
    text = _embeddings_of(text, "text")
    if text.ndim != 2 or text.dtype.kind != "f" or not np.isfinite(text).all():
        raise UserError("text", "a finite float array of shape (classes, dimensions)", f"{text.dtype} {text.shape}",
                        "Pass one embedding per class name.")
    if labels is None:
        raise UserError("labels", "labels that index the rows of text", "nothing", "Pass labels=.")
    known = np.unique(np.ma.compressed(labels))
    if known.dtype.kind not in "iu" or known[0] < 0 or known[-1] >= len(text):
        raise UserError("labels", f"whole numbers from 0 to {len(text) - 1}, rows of text", f"{known[0]} to {known[-1]}",
                        "Number the classes in the order of the rows of text.")
    return np.asarray(text, np.float64)


def two_sides(teacher: Any, student: Any, normalize: str | None, settings: Settings, names: tuple[str, str],
              exponents: tuple[int, ...] | None = None) -> tuple[Side, Side]:
    """Both sides, sharing the teacher's items; training rows are scaled by the ``exponents`` of what is tested on."""
    expect_one_order(dict(zip(names, (teacher, student), strict=True)))
    first = teacher if isinstance(teacher, Side) else None
    if first is not None and (first.settings != settings or first.rows.normalize != normalize):
        raise UserError(names[0], "a side prepared with the same settings, seed and normalize", "another",
                        "Pass the same settings and normalize to prepare().")
    rows = first.rows if first else _rows(teacher, names[0], normalize)
    other = student.rows if isinstance(student, Side) else _rows(student, names[1], normalize)
    if rows.count != other.count:
        raise UserError(names[1], f"{rows.count} rows like the {names[0].replace('_', ' ')}", f"{other.count}",
                        "Pass embeddings of the same items in the same order.")
    if first is None:
        first = _side(rows, names[0], settings, None, None if exponents is None else exponents[0])
    if exponents is None and first.items.count < FEWEST:
        count, total = first.items.count, first.rows.count
        what = "all are equal" if count == 1 else f"the other {total - count:,} repeat them exactly"
        raise UserError(names[0], f"at least {FEWEST} distinct rows", f"{count} among {total:,} ({what})",
                        "Find out why: a collapsed model, or one input read again and again.")
    return first, _side(other, names[1], settings, first.items, None if exponents is None else exponents[1])


def prepared_side(embeddings: Any, name: str, normalize: str | None, settings: Settings) -> Side:
    """One side alone."""
    return _side(_rows(embeddings, name, normalize), name, settings, None, None)


def _side(rows: Rows, name: str, settings: Settings, items: Items | None, exponent: int | None) -> Side:
    """Checked rows, scaled where their squares would leave float64; ``items`` are another side's, or their own."""
    found = _check(rows, name, settings)
    if exponent is not None and abs(exponent - found.exponent) > 2 * MOST_EXPONENT:
        side = name.partition("_")[2]
        raise UserError(name, f"values of about the size of {side}", f"others by a factor of 2^{exponent - found.exponent}",
                        "Pass embeddings made by one model.")
    rows = Rows(rows.z, rows.normalize, found.exponent if exponent is None else exponent)
    own = Items.of(found.keys) if items is None else items
    return Side(rows, settings, own, found.precision)


def _rows(embeddings: Any, name: str, normalize: str | None) -> Rows:
    """``embeddings`` as rows, or the line that says what is wrong with them."""
    if normalize not in (None, "l2"):
        raise unknown_name("normalize", "normalization", str(normalize), ["l2"])
    z = _embeddings_of(embeddings, name)
    if z.ndim != 2:
        raise UserError(name, "an array of shape (items, dimensions)", f"shape {z.shape}",
                        "Pass one embedding per row.")
    if z.dtype.kind != "f":
        raise UserError(name, "an array of floats", f"dtype {z.dtype}", f"Pass {as_floats(embeddings, name)} if that is meant."
                        if _would_be_floats(z) else "Pass numbers, one embedding per row.")
    if len(z) < FEWEST:
        raise UserError(name, f"at least {FEWEST} rows", f"{len(z)}", "Pass embeddings of more items.")
    if z.shape[1] < 2:
        raise UserError(name, "at least 2 dimensions", f"{z.shape[1]}", "A single number has no geometry to measure.")
    return Rows(z, normalize)


def _would_be_floats(z: np.ndarray | Stored) -> bool:
    """Whether the first row becomes floats as it is."""
    try:
        return np.asarray(z[:1]).dtype.kind in "iubOU" and bool(np.asarray(z[:1]).astype(np.float64).size)
    except (TypeError, ValueError):
        return False


def _embeddings_of(given: Any, name: str) -> np.ndarray | Stored:
    expect_dimensions(given, name)
    return array_of(given)


def array_of(given: Any) -> np.ndarray | Stored:
    """A NumPy array or one stored in parts, without a copy where it is one; tensors are told without importing torch.

    A frame, series or table of pandas, polars or Arrow is its values; a column of vectors (n,) is the array (n, d).
    """
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        given = (given.float() if str(given.dtype) == "torch.bfloat16" else given).numpy()
    if isinstance(given, Stored):
        return given
    try:
        found = given.to_numpy(dtype=np.float64, na_value=np.nan) if _nullable(given) else np.asanyarray(given)
    except ValueError:  # rows of different lengths
        return np.empty(0, object)
    return _stacked(found) if found.ndim == 1 and found.dtype.kind == "O" else found


def _nullable(given: Any) -> bool:
    """Whether it is a frame of pandas whose columns are numbers, some of them nullable, which NumPy takes for objects; not one
    of whole numbers alone."""
    dtypes = list(given.dtypes) if hasattr(given, "iloc") and hasattr(given, "columns") else []
    kinds = {getattr(dtype, "kind", "") for dtype in dtypes}
    return "f" in kinds <= {"f", "i", "u"} and not all(isinstance(dtype, np.dtype) for dtype in dtypes)


def _stacked(column: np.ndarray) -> np.ndarray:
    """The array (n, d) that a column (n,) of vectors of one length is; any other column as it is."""
    rows = [row for row in column if isinstance(row, (np.ndarray, list, tuple)) or any(hasattr(row, n) for n in VECTORS)]
    if not rows or len(rows) < len(column) or len({len(row) for row in rows}) > 1:
        return column
    return np.stack([np.asarray(array_of(row)) for row in rows])


def expect_one_order(given: Mapping[str, Any]) -> None:
    """Frames and series of pandas are paired row by row, so an index in another order than the first one's is an error."""
    indexed = {name: value.index for name, value in given.items() if hasattr(getattr(value, "index", None), "equals")}
    first = next(iter(indexed), "")
    for name, index in indexed.items():
        if len(index) == len(indexed[first]) and not index.equals(indexed[first]) and index.isin(indexed[first]).all():
            raise UserError(name, f"rows in the order of {first}'s index", "the same index in another order",
                            f"Pass {name}.loc[{first}.index], or .reset_index(drop=True) where row i of both is one item.")


def _check(rows: Rows, name: str, settings: Settings) -> Scan:
    found = scan(rows, settings.seed)
    if found.bad_values:
        raise UserError(name, "finite values", f"{found.bad_values} NaN or infinite, first in row {found.first_bad_row}",
                        "Find out what made them; they are not measured around.")
    if found.zero_rows:
        raise UserError(name, "rows with a direction", f"{found.zero_rows} all-zero rows, first row {found.first_zero_row}",
                        "Drop these items on both sides, or find out why they are empty.")
    return found
