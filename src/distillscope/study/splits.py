"""The images of a study, read as it says."""

from __future__ import annotations

from collections.abc import Mapping

from distillscope.config.parts import Dataset
from distillscope.config.study import Study
from distillscope.data.source import Looked
from distillscope.data.splits import Splits, load_splits


def load_data(study: Study, data: Dataset, known: Mapping[str, Looked] | None = None) -> Splits:
    """The splits of one of the study's data sets; ``known`` is what another process found in them (`Splits.looked`)."""
    setting = "data" if len(study.data) == 1 else f"data.{study.data.index(data)}"
    return load_splits(data.title, data.name, data.settings, train_split=data.train_split, test_split=data.test_split,
                       validation=study.validation, screen=study.screen, limit=study.limit, limit_test=study.limit_test,
                       corrupt=study.corrupt, setting=setting, known=known)


def load_untested(study: Study, data: Dataset) -> Splits:
    """Train with a tenth (at most 1,000 images) held out; no test split is touched."""
    return load_splits(data.title, data.name, data.settings, train_split=data.train_split, test_split=data.train_split,
                       validation=lambda count: min(1000, count // 10), limit=study.limit, limit_test=study.limit,
                       corrupt=study.corrupt)
