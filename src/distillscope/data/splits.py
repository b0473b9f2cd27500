"""The splits of a study: train, a validation part held out of it, and test."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from distillscope import progress
from distillscope.data.classes import name_classes
from distillscope.data.looking import Keeper, Looked, load_in_memory
from distillscope.data.source import MissingSplit, Source, checked, stratified
from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.processes.workers import is_worker
from distillscope.registry import datasets

HELD_OUT = ", held out"
"""What a part of train that stands in for the test split adds to its name."""


Keepers = Callable[[Source], Sequence[Keeper]]


def no_keepers(source: Source) -> Sequence[Keeper]:
    """Of a set of which nothing is kept while it is scanned."""
    return ()


@dataclass(frozen=True)
class Splits:
    """``validation`` is None where nothing is held out; ``whole_train`` is train and validation together.

    ``looked`` is what another process is handed as ``known``, so that it scans no large set again.
    """

    title: str
    train: Source
    validation: Source | None
    test: Source
    whole_train: Source
    looked: dict[str, Looked] = field(default_factory=dict)
    untested: bool = False
    """Whether nothing is measured on test, which is all of train then."""

    @property
    def labelled(self) -> bool:
        """Whether all splits have labels."""
        return self.train.labels is not None and self.test.labels is not None

    @functools.cached_property
    def contents(self) -> dict[str, str]:
        """What names each split whole: the id and the `image_name` of every item, which is known since they were scanned."""
        return self._marked(Source.mark)

    @functools.cached_property
    def marks(self) -> dict[str, str]:
        """What named each split before `contents` did, so that older results can be compared: the ids of its items, and the
        pixels of 32 of them. Where a few images were replaced it is most often the same."""
        return self._marked(lambda s: s.mark(_sample_pixels(s)))

    def _marked(self, mark: Callable[[Source], str]) -> dict[str, str]:
        return {"validation" if s is self.validation else s.split: mark(s)
                for s in (self.train, self.validation, self.test) if s is not None}


def _sample_pixels(source: Source) -> bytes:
    few = keyed_rng("sample hash", len(source)).integers(0, len(source), size=min(32, len(source)))
    return b"".join(np.ascontiguousarray(source.image(int(i))).tobytes() for i in few)


def load_splits(title: str, name: str, settings: dict, *, train_split: str = "train", test_split: str = "test",
                validation: int | Callable[[int], int] = 0, screen: int = 0, limit: int | None = None,
                limit_test: int | None = None, corrupt: str = "error", setting: str = "data",
                known: Mapping[str, Looked] | None = None, workers: int = 0, keepers: Keepers = no_keepers) -> Splits:
    """Load, look at, and split a data set. Held-out parts are stratified and depend on the ids alone.

    ``validation`` is a count, or what makes one of the number of train images. With ``screen`` that many items of train
    stand in for the test split, which is not even loaded: settings are chosen so. ``setting`` is the path of this data
    set's settings for ``--set``. ``workers`` processes decode; ``keepers`` as of `looked_through`.
    """
    whole = load_split(name, settings, train_split, limit, corrupt, f"--set {setting}.train_split=", known, workers, keepers)
    loaded = [whole]
    if screen:
        if screen >= len(whole):
            raise UserError("screen", f"fewer items than the {len(whole)} of train", str(screen),
                            f"Set screen={len(whole) // 10}.")
        held = stratified(whole, screen, "screen")
        test = replace(whole.take(held), split=train_split + HELD_OUT)
        whole = whole.take(np.setdiff1d(np.arange(len(whole)), held))
        if limit_test is not None and limit_test < len(test):
            test = test.take(stratified(test, limit_test, "limit"))
    elif test_split == train_split and limit_test == limit:
        test = whole
    else:
        test = load_split(name, settings, test_split, limit_test, corrupt, f"--set {setting}.test_split=", known, workers,
                          keepers)
        loaded.append(test)
        _check_apart(title, whole, test)
    if test is not whole and (shared := _also_in(whole, test)):
        say(f"{test.name}/{test.split}: {shared}")
        test = replace(test, note="; ".join(note for note in (test.note, shared) if note))
    looked = {s.split: Looked(s.ids, s.names(), s.note) for s in loaded if not s.in_memory}
    return replace(parted(title, whole, test, validation, setting), looked=looked)


def parted(title: str, whole: Source, test: Source, validation: int | Callable[[int], int] = 0,
           setting: str = "data") -> Splits:
    """A train set that was looked at, with its classes named and its validation part held out, beside a test set."""
    whole, test, unknown = name_classes(whole, test)
    for source in (whole, test):
        if source.labels is not None and len(np.unique(source.labels)) < 2:
            raise UserError(f"{source.name}/{source.split} labels", "at least two classes", "one",
                            f"Use more data, or leave labels out with --set {setting}.label=none.")
    if unknown:
        say(f"{test.name}/{test.split}: {unknown}")
    if callable(validation):
        validation = validation(len(whole))
    if validation >= len(whole):
        raise UserError("validation", f"fewer items than the {len(whole)} of train", str(validation),
                        f"Set validation={len(whole) // 10}.")
    held = stratified(whole, validation, "validation") if validation else np.array([], dtype=np.int64)
    kept = np.setdiff1d(np.arange(len(whole)), held)
    return Splits(title, whole.take(kept), whole.take(held) if validation else None, test, whole)


def _check_apart(title: str, train: Source, test: Source) -> None:
    """What is trained on must not be measured on, unless one split was named for both."""
    if train.split == test.split:
        return
    both = np.intersect1d(train.ids, test.ids)
    if (train.unsplit and test.unsplit) or len(both) == len(test):
        raise UserError(f"data {title}", "a train and a test part", "the same images for both",
                        f"Hold some out as the test part with --set screen={max(1, len(train) // 5)}, "
                        "or arrange them in train/ and test/.")
    if len(both):
        say(f"{title}: {len(both):,} images of {test.split} stand in {train.split} too (first {both[0]})")


def _also_in(train: Source, test: Source) -> str:
    """How many images of test are in train too, under whatever id; "" where none is."""
    mine, theirs = (source.names().view("S16").ravel() for source in (test, train))
    both = np.flatnonzero(np.isin(mine, theirs))
    if not len(both):
        return ""
    return f"{len(both):,} of {len(test):,} images are in {train.split} too, pixel for pixel (first {test.ids[both[0]]})"


def load_split(name: str, settings: dict, split: str, limit: int | None = None, corrupt: str = "error",
               option: str = "--split", known: Mapping[str, Looked] | None = None, workers: int = 0,
               keepers: Keepers = no_keepers) -> Source:
    """One split, checked, a stratified part of it where ``limit`` is set, and decoded once (`load_in_memory`).

    ``option`` is how a split is named on the command that asks; ``known`` is what was found by decoding it all before;
    ``workers`` processes decode; ``keepers`` as of `looked_through`.
    """
    return looked_through(named_split(name, settings, split, option), limit, corrupt, known, workers, keepers)


def named_split(name: str, settings: dict, split: str, option: str = "--split") -> Source:
    """One split as its data set gives it: ids are checked, no image is looked at yet."""
    try:
        source = checked(datasets.call(name, settings, split, where="data"))
    except MissingSplit as error:
        raise error.name_split(option) from None
    if "path" in settings or not Path(name).exists():
        return source
    beside = f"the data set that is built in, not {name} in this folder: ./{name} names that"
    return replace(source, note="; ".join(note for note in (beside, source.note) if note))


def looked_through(source: Source, limit: int | None = None, corrupt: str = "error",
                   known: Mapping[str, Looked] | None = None, workers: int = 0, keepers: Keepers = no_keepers) -> Source:
    """The source, or a stratified part of it, once every image was decoded; what was found is said.

    ``keepers`` gives what keeps its images meanwhile.
    """
    check_options(limit, corrupt, workers)
    if limit is not None and limit < len(source):
        source = source.take(stratified(source, limit, "limit"))
    if known and source.split in known:
        source = replace(known[source.split].applied(source), workers=workers)
    else:
        source = load_in_memory(source, corrupt, workers, keepers(source))
    if source.note:
        say(f"{source.name}/{source.split}: {source.note}")
    return source


def check_options(limit: int | None, corrupt: str, workers: int) -> None:
    """Refuse values that the commands' options of the same names do not take."""
    if corrupt not in ("error", "skip"):
        raise UserError("--corrupt", "error or skip", f"'{corrupt}'", "Leave it out to be told which images are broken.")
    for option, given, least in (("--limit", limit, 1), ("--workers", workers, 0)):
        if given is not None and given < least:
            raise UserError(option, f"a whole number of at least {least}", f"{given}", "Leave it out for its default.")


def say(text: str) -> None:
    """One line for the user; the processes of a run that load the data again keep quiet."""
    if not is_worker():
        progress.say(text)
