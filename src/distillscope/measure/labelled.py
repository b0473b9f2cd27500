"""What probes, k-nearest neighbours and zero-shot accuracy are made from: a ``Compressed`` whose items have labels."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Literal

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.compressed import Compressed
from distillscope.measure.neighbours import knn_predictions, voted
from distillscope.measure.pair import Pair
from distillscope.measure.pool import Side
from distillscope.measure.probe import FOLDS, LinearProbe, cross_validated_probes, linear_probes
from distillscope.measure.results import NotMeasured, Subset
from distillscope.measure.rows import unit
from distillscope.measure.scan import Items
from distillscope.measure.subsets import ends, subsets

BETWEEN_ITEMS = ("similarity", "retrieval", "contrastive", "ood")
CLASSIFIED = ("probe", "few", "knn")


def flips(classifier: str) -> tuple[property, property]:
    """Two attributes of a pool: whether each item is right on the teacher and wrong on the student, and the other way."""
    def right(pool: LabelledPair, side: str) -> np.ndarray:
        found: np.ndarray = getattr(pool, f"{side}_{classifier}_correct")
        return found

    return (property(lambda pool: right(pool, "teacher") & ~right(pool, "student")),
            property(lambda pool: ~right(pool, "teacher") & right(pool, "student")))


def of_each(classifier: str, kind: Literal["class", "subgroup"]) -> tuple[property, property]:
    """Two attributes of a pool: what each class or subgroup retains, and its negative flips; (k, 3), with both ends."""
    return (property(lambda pool: ends(pool.subsets(classifier, kind), "retention")),
            property(lambda pool: ends(pool.subsets(classifier, kind), "negative_flips")))


class LabelledPair(Compressed):
    """Teacher and student with ``labels`` (n,), and where there is one a training set ``train`` with its own.

    Items that ``labels`` masks have none: they take no part here. Without a training set, probes are cross-validated over five
    folds of the items themselves, and neighbours leave the item out. ``text`` (classes, d) are embeddings of the class names
    for zero-shot accuracy, ``subgroups`` (n,) say of which of them an item is, masked where of none; ``ood`` are items from
    elsewhere.
    """

    def __init__(self, teacher: Side, student: Side, labels: np.ndarray | None = None, train: Pair | None = None,
                 train_labels: np.ndarray | None = None, text: np.ndarray | None = None,
                 subgroups: np.ndarray | None = None, ood: Pair | None = None) -> None:
        super().__init__(teacher, student)
        self.train, self.text, self._labels, self._subgroups, self.ood = train, text, labels, subgroups, ood
        self._train_labels = np.empty(0, np.int64) if train_labels is None else train_labels
        self._subsets: dict[tuple[str, str], list[Subset]] = {}
        self._fitted: dict[tuple[str, str], tuple[list[LinearProbe], np.ndarray]] = {}

    @cached_property
    def distinct(self) -> LabelledPair:
        """One row per item: this pair itself where no row of the teacher repeats another."""
        return self if not self.teacher.items.repeated else self._restricted(np.sort(self.teacher.items.first))

    @cached_property
    def classified(self) -> LabelledPair:
        """One labelled row an item: this pair itself where all rows have a label and none repeats another."""
        if len(self.labels) == self.labelled_count:
            return self.distinct
        numbers = self.row_items[self.labelled_order]
        first = np.append(True, numbers[1:] != numbers[:-1]) if len(numbers) else np.empty(0, bool)
        return self._restricted(np.sort(self.labelled_order[first]))

    def _restricted(self, index: np.ndarray) -> LabelledPair:
        """The rows of ``index`` (ascending) alone."""
        items = Items.of(self.teacher.items.keys[self.row_items[index]])
        teacher, student = (Side(side.rows.chosen(index), self.settings, items, side.precision)
                            for side in (self.teacher, self.student))
        labels, subgroups = (None if of is None else of[index] for of in (self._labels, self._subgroups))
        return LabelledPair(teacher, student, labels, self.train, self._train_labels, self.text, subgroups, self.ood)

    def over(self, group: str) -> LabelledPair:
        """The pair that measures of a group are taken on.

        Where items are compared with one another, or classified without a training set, each counts once: a repeat of an item
        is neither its neighbour nor its rival, and none is fitted to by what predicts it.
        """
        if group in BETWEEN_ITEMS:
            return self.distinct
        if group in ("swap", "codes"):
            return self.distinct if self._labels is None else self.classified
        return self.classified if group in CLASSIFIED and self.train is None and self._labels is not None else self

    def expect_groups(self, groups: Collection[str]) -> None:
        """Say which neighbours measures of ``groups`` will ask for: each side is searched once for all of them."""
        sought, voting = (self.over(group) for group in ("retrieval", "knn"))
        for group in {"similarity", "swap"} & set(groups):
            among = self.over(group)
            among.expect(among.sample_count, among.sample_count)
        if "codes" in groups:
            self.over("codes").expect(self.over("codes").sample_count, self.over("codes").code_queries)
        if "ood" in groups and self.ood is not None and self.train is None:
            sought.expect(sought.sample_count, sought.sample_count)
        if "retrieval" in groups:
            sought.expect(len(sought.gallery_index), sought.num_queries)
        if "knn" in groups and self._labels is not None and self.train is None:
            voting.expect(voting.knn_count, voting.knn_count)

    @property
    def row_items(self) -> np.ndarray:
        """The item (n,) of each row."""
        return self.teacher.items.number

    @property
    def probe_items(self) -> np.ndarray:
        """The item of each row whose label the probes predict."""
        return self.row_items[self.probe_index]

    @property
    def knn_items(self) -> np.ndarray:
        """The item of each row whose neighbours vote."""
        return self.row_items[self.knn_index]

    @property
    def labelled_items(self) -> np.ndarray:
        """The item of each row that has a label."""
        return self.row_items[self.labelled]

    def class_sizes(self) -> dict[str, float]:
        """The number of classes, the share of the items that are of the largest, which is what guessing it would score, and
        the number of training items that probes and neighbours are fitted to: 0 where they are cross-validated."""
        if self._labels is None:
            return {}
        counts = np.unique(self.labels[self.labelled], return_counts=True)[1]
        return {"classes": len(counts), "largest_share": float(counts.max() / counts.sum()),
                "train_items": len(self._train_labels)}

    def num_unlabelled(self) -> int:
        """Rows without a label, where others have one."""
        return 0 if self._labels is None else len(self.labels) - self.labelled_count

    def num_in_no_subgroup(self) -> int:
        """Rows that are in no subgroup, where others are in one."""
        return 0 if self._subgroups is None else int(np.ma.getmaskarray(self._subgroups).sum())

    def num_mixed_labels(self) -> int:
        """How many (item, label) pairs there are beyond one per item: repeats under another label than the first."""
        if self._labels is None:
            return 0
        codes = np.unique(self.labels[self.labelled], return_inverse=True)[1]
        pairs = np.unique(np.stack([self.labelled_items, codes], axis=1), axis=0)
        return len(pairs) - len(np.unique(pairs[:, 0]))

    @property
    def labels(self) -> np.ndarray:
        if self._labels is None:
            raise NotMeasured("it needs labels, and none were given")
        return np.ma.getdata(self._labels)

    @cached_property
    def labelled(self) -> np.ndarray:
        """For each item, whether it has a label (n,)."""
        masked = np.zeros(len(self.labels), bool) if self._labels is None else np.ma.getmaskarray(self._labels)
        return ~masked

    @cached_property
    def labelled_order(self) -> np.ndarray:
        """Row numbers of the items that have a label, in content order."""
        return self.teacher.order[self.labelled[self.teacher.order]]

    @property
    def labelled_count(self) -> int:
        return len(self.labelled_order)

    # -- probes ------------------------------------------------------------------------------------------------------

    @cached_property
    def probe_index(self) -> np.ndarray:
        """Row numbers of the items whose labels are predicted."""
        return np.flatnonzero(self.labelled) if self.train is not None else self.labelled_order[: self.settings.probe_items]

    @property
    def probe_count(self) -> int:
        return len(self.probe_index)

    def _outcome(self, side: str, kind: str) -> tuple[list[LinearProbe], np.ndarray]:
        """Probes of a side, and for each item whether it was classified rightly by one that had not seen it."""
        if (side, kind) not in self._fitted:
            try:
                probes = self._probes(side, kind)
            except UserError as error:
                raise NotMeasured(f"no probe can be fitted ({error})") from None
            self._fitted[side, kind] = probes, self._classified_rightly(side, probes)
        return self._fitted[side, kind]

    def _expect_shared(self, index: np.ndarray) -> None:
        """Without a training set the class of an item is learned from the others of it."""
        if self.train is None and len(np.unique(self.labels[index])) == len(index):
            raise NotMeasured("every item is of a class of its own, which cannot be learned from the others")

    def _probes(self, side: str, kind: str) -> list[LinearProbe]:
        """One fitted to the training items, else one a fold, fitted to the items of the others."""
        self._expect_shared(self.probe_index)
        if self.train is not None:
            index, pair, labels = self.train.teacher.order[: self.settings.probe_items], self.train, self._train_labels
            parts = [np.arange(len(index))]
        else:
            index, pair, labels = self.probe_index, self, self.labels
            parts = [np.flatnonzero(np.arange(len(index)) % FOLDS != fold) for fold in range(FOLDS)]
        z, labels = getattr(pair, side).rows.take(index), labels[index]
        if kind == "paper":
            return linear_probes(z, labels, parts)
        return cross_validated_probes(z, labels, parts)

    def _classified_rightly(self, side: str, probes: list[LinearProbe]) -> np.ndarray:
        labels, rows, index = self.labels, getattr(self, side).rows, self.probe_index
        if self.train is not None:
            right = np.empty(self.count, bool)
            for where, block in rows.blocks():
                right[where] = probes[0].predict(block) == labels[where]
            return right[index]
        correct, z, y, fold_of = np.empty(len(index), bool), rows.take(index), labels[index], np.arange(len(index)) % FOLDS
        for fold, probe in enumerate(probes):
            correct[fold_of == fold] = probe.predict(z[fold_of == fold]) == y[fold_of == fold]
        return correct

    probe_negative_flips, probe_positive_flips = flips("probe")

    @property
    def teacher_probe_correct(self) -> np.ndarray:
        return self._outcome("teacher", "tuned")[1]

    @property
    def student_probe_correct(self) -> np.ndarray:
        return self._outcome("student", "tuned")[1]

    @property
    def teacher_paper_probe_correct(self) -> np.ndarray:
        return self._outcome("teacher", "paper")[1]

    @property
    def student_paper_probe_correct(self) -> np.ndarray:
        return self._outcome("student", "paper")[1]

    @property
    def teacher_probes(self) -> list[LinearProbe]:
        return self._outcome("teacher", "tuned")[0]

    @property
    def student_probes(self) -> list[LinearProbe]:
        return self._outcome("student", "tuned")[0]

    @property
    def teacher_paper_probes(self) -> list[LinearProbe]:
        return self._outcome("teacher", "paper")[0]

    @property
    def student_paper_probes(self) -> list[LinearProbe]:
        return self._outcome("student", "paper")[0]

    # -- k-nearest neighbours ----------------------------------------------------------------------------------------

    @cached_property
    def knn_index(self) -> np.ndarray:
        """Row numbers of the items whose neighbours vote; at most 10^8 pairs are compared."""
        pairs = self.settings.retrieval_pairs
        most = int(pairs**0.5) if self.train is None else max(1, pairs // len(self._knn_gallery(self.train)))
        return self.labelled_order[:most]

    def _knn_gallery(self, train: Pair) -> np.ndarray:
        return train.teacher.order[: self.settings.gallery_items]

    knn_negative_flips, knn_positive_flips = flips("knn")

    @property
    def knn_count(self) -> int:
        return len(self.knn_index)

    def _knn_correct(self, name: str) -> np.ndarray:
        self._expect_shared(self.knn_index)
        labels, side = self.labels[self.knn_index], getattr(self, name)
        if self.train is None:
            known, codes = np.unique(labels, return_inverse=True)
            return voted(codes[side.nearest_kept(len(codes), len(codes))], len(known)) == codes
        chosen = self._knn_gallery(self.train)
        gallery = getattr(self.train, name).rows.take(chosen)
        k = min(self.settings.neighbours, len(gallery))
        return knn_predictions(gallery, self._train_labels[chosen], side.rows.take(self.knn_index), k) == labels

    @cached_property
    def teacher_knn_correct(self) -> np.ndarray:
        return self._knn_correct("teacher")

    @cached_property
    def student_knn_correct(self) -> np.ndarray:
        return self._knn_correct("student")

    # -- classes and subgroups ---------------------------------------------------------------------------------------

    def subsets(self, classifier: str, kind: Literal["class", "subgroup"]) -> list[Subset]:
        """What probe or knn, as ``classifier`` says, classify rightly of the items of each class or subgroup."""
        of = self.labels if kind == "class" else self._subgroups
        if of is None:
            raise NotMeasured("it needs subgroups, and none were given")
        if (classifier, kind) not in self._subsets:
            index, items = getattr(self, f"{classifier}_index"), getattr(self, f"{classifier}_items")
            teacher, student = (getattr(self, f"{side}_{classifier}_correct") for side in ("teacher", "student"))
            self._subsets[classifier, kind] = subsets(kind, classifier, of[index], teacher, student,
                                                      items if self.teacher.items.repeated else None)
        return self._subsets[classifier, kind]

    def all_subsets(self, keys: Collection[str], intervals: bool = True) -> list[Subset]:
        """Those behind the measures of the worst ones that ``keys`` has."""
        kinds: tuple[Literal["class", "subgroup"], ...] = ("class", "subgroup")
        found = [s for classifier in ("probe", "knn") for kind in kinds if f"{classifier}.worst_{kind}_flips" in keys
                 for s in self.over(classifier).subsets(classifier, kind)]
        return found if intervals else [s.without_intervals() for s in found]

    probe_class_retention, probe_class_flips = of_each("probe", "class")
    knn_class_retention, knn_class_flips = of_each("knn", "class")
    probe_subgroup_retention, probe_subgroup_flips = of_each("probe", "subgroup")
    knn_subgroup_retention, knn_subgroup_flips = of_each("knn", "subgroup")

    # -- zero-shot ---------------------------------------------------------------------------------------------------

    zero_shot_negative_flips, zero_shot_positive_flips = flips("zero_shot")

    def _zero_shot_correct(self, side: str) -> np.ndarray:
        if self.text is None:
            raise NotMeasured("it needs embeddings of the class names, and none were given")
        labels, rows = self.labels, getattr(self, side).rows
        if rows.dim != self.text.shape[1]:
            raise NotMeasured(f"the class names have {self.text.shape[1]} dimensions, the {side} {rows.dim}")
        correct, text = np.empty(self.count, bool), unit(self.text)
        for where, block in rows.blocks():
            correct[where] = np.argmax(unit(block) @ text.T, axis=1) == labels[where]
        return correct[self.labelled]

    @cached_property
    def teacher_zero_shot_correct(self) -> np.ndarray:
        return self._zero_shot_correct("teacher")

    @cached_property
    def student_zero_shot_correct(self) -> np.ndarray:
        return self._zero_shot_correct("student")
