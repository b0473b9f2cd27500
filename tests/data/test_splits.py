"""Splits: a held-out part of train may stand in for the test split, which then stays untouched."""

from __future__ import annotations

import numpy as np

from builders.refusals import refused
from distillscope.data.splits import load_splits


def ids(source):
    return set(source.ids.tolist())


def test_a_screen_leaves_the_test_split_alone_and_shares_no_item():
    real = load_splits("digits", "digits", {}, validation=100)
    part = load_splits("digits", "digits", {}, validation=100, screen=200, test_split="no such split")
    assert len(part.test) == 200 and part.test.split == "train, held out"
    assert not ids(part.test) & ids(real.test)
    assert ids(part.train) | ids(part.validation) | ids(part.test) == ids(real.whole_train)
    assert len(part.train) + len(part.validation) + len(part.test) == len(real.whole_train)
    counts = np.bincount(part.test.labels)
    assert counts.max() - counts.min() <= 3  # stratified


def test_a_screen_takes_the_same_items_whatever_the_validation_part():
    first, second = (load_splits("digits", "digits", {}, validation=v, screen=200) for v in (0, 50))
    assert ids(first.test) == ids(second.test)


def test_a_screen_must_leave_items_to_train_on():
    with refused(where="screen", got="99999"):
        load_splits("digits", "digits", {}, screen=99999)
