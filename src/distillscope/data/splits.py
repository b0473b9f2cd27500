"""The splits of a study: train, a validation part held out of it, and test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from distillscope import progress
from distillscope.data.source import Source, checked, load_in_memory, stratified
from distillscope.errors import UserError
from distillscope.registry import datasets

HELD_OUT = ", held out"
"""What a part of train that stands in for the test split adds to its name."""


@dataclass(frozen=True)
class Splits:
    """``validation`` is None where nothing is held out; ``whole_train`` is train and validation together."""

    title: str
    train: Source
    validation: Source | None
    test: Source
    whole_train: Source

    @property
    def labelled(self) -> bool:
        """Whether all splits have labels."""
        return self.train.labels is not None and self.test.labels is not None


def load_splits(title: str, name: str, settings: dict, *, train_split: str = "train", test_split: str = "test",
                validation: int = 0, screen: int = 0, limit: int | None = None, limit_test: int | None = None,
                corrupt: str = "error") -> Splits:
    """Load, look at, and split a data set. Held-out parts are stratified and depend on the ids alone.

    With ``screen`` that many items of train stand in for the test split, which is not even loaded: settings are chosen so.
    """
    whole = load_split(name, settings, train_split, limit, corrupt)
    if screen:
        if screen >= len(whole):
            raise UserError("screen", f"fewer items than the {len(whole)} of train", str(screen), f"Set screen={len(whole) // 10}.")
        held = stratified(whole, screen, "screen")
        test = replace(whole.take(held), split=train_split + HELD_OUT)
        whole = whole.take(np.setdiff1d(np.arange(len(whole)), held))
        if limit_test is not None and limit_test < len(test):
            test = test.take(stratified(test, limit_test, "limit"))
    else:
        test = load_split(name, settings, test_split, limit_test, corrupt)
    for source in (whole, test):
        if source.labels is not None and len(np.unique(source.labels)) < 2:
            raise UserError(f"{source.name}/{source.split} labels", "at least two classes", "one",
                            "Use more data, or leave labels out with --set data.label=none.")
    if validation >= len(whole):
        raise UserError("validation", f"fewer items than the {len(whole)} of train", str(validation),
                        f"Set validation={len(whole) // 10}.")
    held = stratified(whole, validation, "validation") if validation else np.array([], dtype=np.int64)
    kept = np.setdiff1d(np.arange(len(whole)), held)
    return Splits(title, whole.take(kept), whole.take(held) if validation else None, test, whole)


def load_split(name: str, settings: dict, split: str, limit: int | None = None, corrupt: str = "error") -> Source:
    """One split, checked, a stratified part of it where ``limit`` is set, and decoded where it fits in memory."""
    source = checked(datasets.call(name, settings, split, where="data"))
    if limit is not None and limit < len(source):
        source = source.take(stratified(source, limit, "limit"))
    source = load_in_memory(source, corrupt)
    if source.note:
        progress.say(f"{source.name}/{source.split}: {source.note}")
    return source
