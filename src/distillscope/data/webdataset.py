"""WebDataset shards: tar files of (key.jpg, key.cls | key.json), read by random access without unpacking."""

from __future__ import annotations

import functools
import io
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distillscope.data.classes import (
    LABELS,
    Labels,
    check_alike,
    class_labels,
    is_whole,
    label_columns,
    need_column,
    not_used,
    read_labels,
)
from distillscope.data.decode import (
    MAX_FILE_BYTES,
    BrokenImage,
    Decoding,
    MinSide,
    is_image,
    kind_of_file,
    kinds_said,
    passed_over,
)
from distillscope.data.source import MissingSplit, Source, data_option, encoded_source, near_splits
from distillscope.errors import UserError
from distillscope.files.folders import expect_all, gaps_said
from distillscope.files.json_reader import parse_json
from distillscope.files.remote import RemoteFile, opened
from distillscope.measure.classes import partitions_agree
from distillscope.registry import datasets

Shard = Path | RemoteFile


FILE = "KEY.cls"
"""Where a label may stand, beside the keys of KEY.json."""


@dataclass
class Shards:
    """What tar files hold: of each one its images' keys, where they begin and how long they are (n, 2), and their labels as
    they are written, by where they stand (`FILE`, or a key of the JSON files); labels whose image is elsewhere; what can be no
    label; all keys of the JSON files, in the order met; and how many files there are of each other kind."""

    shards: list[Shard] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    texts: list[dict[str, list[str | None]]] = field(default_factory=list)
    stray: dict[str, dict[str, str]] = field(default_factory=dict)
    bad: dict[str, UserError] = field(default_factory=dict)
    said: dict[str, None] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, shard: Shard, images: Mapping[str, tuple[int, int]], labels: Mapping[str, Mapping[str, str]]) -> None:
        self.shards.append(shard)
        self.keys.append(np.array(list(images), dtype=str))
        self.places.append(np.array(list(images.values()), np.int64).reshape(-1, 2))
        self.texts.append({at: [sys.intern(own[k]) if k in own else None for k in images] for at, own in labels.items()})
        for at, own in labels.items():
            self.stray.setdefault(at, {}).update({k: text for k, text in own.items() if k not in images})

    def all_keys(self) -> np.ndarray:
        """The keys of all images, each there once."""
        keys = np.concatenate([np.empty(0, "U1"), *self.keys])
        order = np.argsort(keys, kind="stable")
        again = order[1:][keys[order[1:]] == keys[order[:-1]]]
        if len(again):
            number = int(np.searchsorted(np.cumsum([len(k) for k in self.keys]), again[0], side="right"))
            raise UserError(str(self.shards[number]), "keys that differ", f"'{keys[again[0]]}' twice", "Name each item once.")
        return keys

    def candidates(self, label: str | None, given: Path | str) -> list[str]:
        """Where labels may be read, the first that has some: `FILE`, or keys of KEY.json."""
        there = [*self.stray, *(at for at in self.bad if at not in self.stray)]
        if label == "none":
            return []
        if label == "cls" and FILE in there:
            return [FILE]
        keys = [at for at in there if at != FILE]
        if FILE not in there:
            columns = keys if label is None or label in keys else list(self.said)
            return label_columns(columns, label, LABELS, f"data {given}", given)
        if label is None or (label == "label" and label not in keys):
            return [FILE]
        return [need_column([FILE, *keys], label, LABELS, "label", f"data {given}", given)]

    def written(self, at: str) -> list[str | None]:
        """The label of every image as it stands in one place."""
        stray = self.stray.get(at, {})
        return [stray.get(key) if text is None else text for keys, texts in zip(self.keys, self.texts, strict=True)
                for key, text in zip(keys.tolist(), texts.get(at) or [None] * len(keys), strict=True)]

    def all_texts(self, keys: np.ndarray, given: Path | str, at: str, label: str | None) -> Texts | None:
        """The label of every image from one place, `FILE` with `label` of KEY.json beside it; None where no file has one."""
        pair = at == FILE and label is None and ("label" in self.stray or "label" in self.bad)
        places = (FILE, "label") if pair else (at,)
        self.check(places)
        found = Texts(self.written(at), places)
        if pair:
            found = _together(found.values, self.written("label"), keys, given)
        if not any(self.stray.get(place) for place in places) and not any(found.values):
            return None
        if absent := [key for key, text in zip(keys, found.values, strict=True) if text is None]:
            raise UserError(f"data {given}", "a label for every image, or for none",
                            f"{len(absent)} of {len(keys)} without, {absent[0]} first",
                            f"Add them, or take the images without labels: {data_option(given, label='none')}.")
        return found

    def texts_at(self, places: Sequence[str]) -> Iterator[str]:
        """Every label in these places, also those whose image is elsewhere."""
        for at in places:
            yield from (text for own in self.texts for text in own.get(at, ()) if text)
            yield from self.stray.get(at, {}).values()

    def check(self, chosen: Sequence[str]) -> None:
        """Refuse what can be no label where labels are read."""
        for at in chosen:
            if at in self.bad:
                raise self.bad[at]

    def note(self, texts: Texts | None, why: Mapping[str, str]) -> str:
        """Which keys of the JSON files are labels and which are not used; "" where there is no other than `label`."""
        places = texts.places if texts else ()
        left = not_used(self.said, places, why)
        if not left and set(places) <= {FILE, "label"} and not (texts and texts.said):
            return ""
        used = " and ".join(at if at == FILE else f"'{at}' of KEY.json" for at in places if at == FILE or at in self.said)
        used = texts.said if texts and texts.said else used
        return "; ".join(part for part in (f"classes from {used}" if used else "no labels", left and f"{left} of KEY.json")
                         if part)


class Texts(NamedTuple):
    """Labels as they are written (n,), None where there is none; the places that they are from, in words where that is not all;
    and the classes' names, where the labels are their numbers."""

    values: list[str | None]
    places: tuple[str, ...]
    said: str = ""
    names: tuple[str, ...] | None = None


def _alike(one: str, two: str) -> bool:
    return one == two or (is_whole(one) and is_whole(two) and int(one) == int(two))


def _together(files: list[str | None], jsons: list[str | None], keys: np.ndarray, given: Path | str) -> Texts:
    """The labels of KEY.cls and of `label` in KEY.json, which say the same, or are two ways to write the same classes."""
    places = (FILE, "label")
    both = [i for i, (one, two) in enumerate(zip(files, jsons, strict=True)) if one is not None and two is not None]
    ones, twos = [files[i] or "" for i in both], [jsons[i] or "" for i in both]
    if all(map(_alike, ones, twos)):
        return Texts([two if one is None else one for one, two in zip(files, jsons, strict=True)], places)
    numbered, counted = all(map(is_whole, ones)), any(map(is_whole, twos))
    fits = np.array(list(map(_alike, ones, twos)))
    if not (numbered and counted):  # numbers beside other numbers are no names of theirs
        fits = partitions_agree(np.array(ones), np.array(twos))
    name, own = dict(zip(ones, twos, strict=True)), dict(zip(twos, ones, strict=True))
    wrong = [i for i, fit in zip(both, fits.tolist(), strict=True) if not fit]
    wrong += [i for i, (one, two) in enumerate(zip(files, jsons, strict=True)) if one is None and two not in (None, *own)]
    if wrong:
        i = both[0] if files[wrong[0]] is None else wrong[0]
        raise UserError(f"data {given}", "one label for each image", f"'{files[i]}' in {keys[i]}.cls and '{jsons[i]}' in "
                        f"{keys[i]}.json", f"Take those of the .cls: {data_option(given, label='cls')}, or of the .json: "
                        f"{data_option(given, label='label')}.")
    values = [own.get(two or "") if one is None else one for one, two in zip(files, jsons, strict=True)]
    present = {one for one in values if one is not None}
    if not numbered or counted or not present <= name.keys():
        return Texts(values, (FILE,), "KEY.cls ('label' of KEY.json has the same classes under other names)")
    if present == set(map(str, range(len(present)))):
        names = tuple(name[str(i)] for i in range(len(present)))
        return Texts(values, places, "KEY.cls, with the names that are 'label' of KEY.json", names)
    return Texts([None if one is None else name[one] for one in values], ("label",),
                 "'label' of KEY.json, which has the same as KEY.cls")


@datasets.register("webdataset")
def webdataset(split: str, *, path: Path, image: str | None = None, label: str | None = None, background: str = "white",
               exif: bool = True, min_side: MinSide = None) -> Source:
    """WebDataset shards: FOLDER/{split}*.tar, or one .tar; labels from KEY.cls or from `label`, `class` ... in KEY.json.

    Labels are whole numbers, or texts, which are numbered by name over all shards of the folder. ``image`` is the suffix of
    the images (KEY.input.png: "input.png") where a key has several.
    """
    given, path = path, Path(path).expanduser()
    shards = [path] if path.is_file() else _shards(path, split)
    if not shards:
        raise no_shards(given, split, sorted({split_of(s.relative_to(path).as_posix()) for s in _shards(path)}))
    rest = [] if path.is_file() else [s for s in _shards(path) if s not in shards]
    return read_split(split, path.stem, shards, rest, given, image, label, Decoding(background, exif, min_side),
                      unsplit=path.is_file())


def no_shards(given: Path | str, split: str, there: Sequence[str]) -> MissingSplit:
    """No shard is called after the split; ``there`` are those that some are."""
    got = f"shards of {', '.join(there)}" if there else "no such file"
    return MissingSplit(f"data {given}", f"{split}*.tar", got, split, near_splits(split, there) or there[:4])


def read_split(split: str, name: str, shards: Sequence[Shard], rest: Sequence[Shard], given: Path | str, image: str | None,
               label: str | None, decoding: Decoding, *, unsplit: bool = False) -> Source:
    """The images of ``shards``. Classes that are texts are numbered over the ``rest`` of the data set too."""
    found = _read_shards(shards, given, image, label)
    keys = found.all_keys()
    texts: dict[str, Texts] = {}
    more = functools.cache(lambda: _read_shards(rest, given, image, label))

    def every(at: str) -> list[str]:
        return [text for text in (*texts[at].values, *more().texts_at(texts[at].places)) if text]

    def read_at(at: str) -> Labels | None:
        if (here := found.all_texts(keys, given, at, label)) is None:
            return None
        texts[at] = here
        return _numbers(here, more, given)

    sure = [FILE, "label", label or ""]
    at, labelled, left = read_labels(found.candidates(label, given), sure, read_at, every)
    labels, names = labelled or (None, None)
    said = found.note(texts[at] if labelled and at else None, left) if label != "none" else ""
    starts = np.cumsum([0, *map(len, found.places)])

    def read(index: int) -> bytes:
        number = int(np.searchsorted(starts, index, side="right")) - 1
        offset, size = found.places[number][index - starts[number]].tolist()
        if size > MAX_FILE_BYTES:
            raise BrokenImage(f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read")
        return _read(found.shards[number], offset, size)

    gaps = "" if unsplit else gaps_said([shard.name for shard in shards])
    return encoded_source(name, split, np.char.add(f"{split}/", keys), read, decoding, labels=labels, class_names=names,
                          note="; ".join(n for n in (gaps, said, kinds_said(found.others)) if n),
                          unsplit=unsplit)


def _numbers(found: Texts, more: Callable[[], Shards], given: Path | str) -> Labels:
    """Whole numbers as they are; texts as classes by name over the other splits too, which ``more`` reads."""
    texts, where = [text for text in found.values if text is not None], f"data {given}"
    if not all(re.fullmatch(r"-?\d+", text) for text in texts):
        more().check(found.places)
        return class_labels(texts, [*texts, *more().texts_at(found.places)], where, given)
    if longest := next((text for text in texts if len(text) > 18), None):
        raise UserError(where, "labels that fit 64 bits", f"{longest[:20]}... of {len(longest)} digits",
                        f"Fix it, or take the images without labels: {data_option(given, label='none')}.")
    check_alike(texts, where, given)
    return np.array([int(text) for text in texts], dtype=np.int64), found.names


def shards_of(settings: Mapping[str, Any], split: str) -> list[str] | None:
    """The paths of the shards that a split consists of; None where there are none."""
    path = Path(str(settings.get("path", ""))).expanduser()
    found = [path] if path.is_file() else _shards(path, split)
    return [str(shard) for shard in found] or None


def _shards(path: Path, split: str | None = None) -> list[Path]:
    """The folder's shards: {split}*.tar and {split}/*.tar, or every one."""
    names = {f.relative_to(path).as_posix(): f for pattern in ("*.tar", "*/*.tar") for f in path.glob(pattern)
             if not passed_over(f.relative_to(path))}
    return [names[name] for name in sorted(names if split is None else shards_named(list(names), split, str(path)))]


def shards_named(names: Sequence[str], split: str, where: str) -> list[str]:
    """Those of one split, by their places below the folder; where they say how many they are, all must be there."""
    found = [name for name in names if split_of(name) == split]
    expect_all(found, f"data {where}, split {split}", "Fetch those that are missing, or name the one file that is meant.")
    return found


def split_of(name: str) -> str:
    """The split that a shard is of, by its place below the folder.

    >>> split_of("train-0001.tar"), split_of("train_hard_01.tar"), split_of("train/01.tar"), split_of("test-shard-1.tar")
    ('train', 'train_hard', 'train', 'test')
    """
    folder, _, file = name.rpartition("/")
    stem = file.removesuffix(".tar")
    return folder or re.split(r"([-_.](shard|part|chunk|block|piece|batch)s?)?[-_.{]?\d", stem)[0] or stem


def _read_shards(shards: Sequence[Shard], given: Path | str, image: str | None, label: str | None) -> Shards:
    found = Shards()
    for shard in shards:
        _read_shard(shard, found, given, image, label)
    return found


def _read_shard(shard: Shard, found: Shards, given: Path | str, image: str | None, label: str | None) -> None:
    """Add what one shard holds; nothing of it stays but where its images lie."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, dict[str, str]] = {}
    several: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for name, *place in _members(shard):
        if passed_over(name):
            continue
        folder, _, base = name.rpartition("/")
        key, _, suffix = base.partition(".")
        key, at = f"{folder}/{key}".lstrip("/"), (place[0], place[1])
        if suffix.lower() == image.lower() if image else is_image(f"x.{suffix}") and "." not in suffix:
            if key in images:
                raise UserError(str(shard), "keys that differ", f"'{key}' twice", "Name each item once.")
            images[key] = at
        elif suffix.lower() == "cls" or (suffix.lower() == "json" and label != "none"):
            for stands, text in _labels(shard, at, name, label, given, found) if label != "none" else ():
                labels.setdefault(stands, {})[key] = text
        elif is_image(name) and not image:  # key.input.png: an image if it is the key's only one
            several.setdefault(key, []).append((suffix, at))
        else:
            found.others[kind_of_file(name)] += 1
    for key, members in several.items():
        if key in images:
            found.others.update(kind_of_file(f"{key}.{suffix}") for suffix, _ in members)
        elif len(members) > 1:
            raise UserError(f"data {given}", "one image for each key (what stands before the first dot)",
                            f"{', '.join(s for s, _ in members[:4])} of '{key}'",
                            f"Name the one that is meant: {data_option(given, image=members[0][0])}.")
        else:
            images[key] = members[0][1]
    found.add(shard, images, labels)


def _members(shard: Shard) -> list[tuple[str, int, int]]:
    """(name, offset, size) of every file in a tar, without its content."""
    try:
        with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
            size = file.seek(0, io.SEEK_END)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(str(shard), "an uncompressed tar file", f"{type(error).__name__}: {error}",
                        "Fetch or make it again.") from None
    if size < 1024 or _read(shard, size - 1024, 1024).strip(b"\0"):  # tarfile takes a cut in a header for the end
        raise UserError(str(shard), "a tar file with its end mark", f"{len(members)} files and then a cut", "Fetch it again.")
    return members


def _read(shard: Shard, offset: int, size: int) -> bytes:
    with opened(shard) as handle:
        handle.seek(offset)
        return handle.read(size)


def _labels(shard: Shard, at: tuple[int, int], name: str, label: str | None, given: Path | str,
            found: Shards) -> Iterator[tuple[str, str]]:
    """Where a .cls or .json file has labels, and what they are; what can be none is kept in ``found`` for when it is one."""
    content, where = _read(shard, *at), f"{shard} {name}"
    todo = f"Fix it, or take the images without labels: {data_option(given, label='none')}."
    if name.lower().endswith(".cls"):
        values: dict[str, Any] = {FILE: content.decode(errors="replace").strip()}
    else:
        said = parse_json(content, where, dict, todo, nan=True)
        found.said.update(dict.fromkeys(said))
        values = {key: said[key] for key in said if key == label or key.casefold() in LABELS}
    for place, value in values.items():
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (int, str, type(None))) or value == "":
            at_key = where if place == FILE else f"{where} '{place}'"
            found.bad.setdefault(place, UserError(at_key, "a whole number or a name as label", repr(value)[:40], todo))
        elif value is not None:
            yield place, str(value)
