"""The keepsakes of a run on its page: images that were lost, neighbours of the same queries, and the card below the map."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillscope.report.figures.keepsakes import Album, Kept
from distillscope.report.sentences.numbers import NBSP
from distillscope.results.models import CLASS_COLOURS, Model


@dataclass(frozen=True)
class Sheet:
    """A sprite, once, as the background of every tile of the style ``name``; ``picture`` is a data: address."""

    name: str
    picture: str
    columns: int
    rows: int


def sheet_name(kept: int, album: int | str) -> str:
    """The style of an album's thumbnails (``map``: those of the map)."""
    return f"sheet-{kept}-{album}"


def sheets(albums: list[Kept]) -> list[Sheet]:
    """Every sprite that there is."""
    found = []
    for i, kept in enumerate(albums):
        pictures = [(sheet_name(i, j), a.picture("tiles.webp"), a.said["sprite"]) for j, a in enumerate(kept.albums)]
        pictures.append((sheet_name(i, "map"), kept.teacher.picture("map.webp"), kept.teacher.said["map"]["sprite"]))
        found += [Sheet(name, data, int(place["columns"]), int(place["rows"])) for name, data, place in pictures if data]
    return found


@dataclass(frozen=True)
class Tile:
    """One thumbnail of a sheet; ``text`` describes it to readers who cannot see it."""

    sheet: str
    column: int
    row: int
    text: str
    other: bool = False
    shared: bool = False


def _tile(sheet: str, album: Album, place: int, text: str, other: bool = False, shared: bool = False) -> Tile:
    columns = album.said["sprite"]["columns"]
    return Tile(sheet, place % columns, place // columns, text, other, shared)


def _name(kept: Kept, value: int | None) -> str:
    return "" if value is None else kept.classes[value]


def _of(values: list[int] | None, place: int) -> int | None:
    return values[place] if values else None


def _title(albums: list[Kept], kept: Kept) -> str:
    return kept.setting.title if len(albums) > 1 else ""


def _who(model: Model) -> str:
    return "teacher" if model.is_teacher else model.label


TILE = 80
"""Longest side of a thumbnail that is made for a page."""


def thumbnail(image: np.ndarray) -> str:
    """An image (h, w, 3) uint8 as a data: address, fitted into a grey square."""
    from PIL import Image, ImageOps

    picture = Image.fromarray(np.ascontiguousarray(image))
    side = min(TILE, max(picture.size))
    buffer = io.BytesIO()
    ImageOps.pad(picture, (side, side), color=(128, 128, 128)).save(buffer, format="WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# -- images that were lost --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LostTile:
    """A lost image: its true class, and what the student takes it for."""

    tile: Tile
    true: str
    taken: str


@dataclass(frozen=True)
class LostImages:
    """A student's contact sheet: ``count`` of the images that the teacher gets right; ``shown`` is 0 where all are."""

    model: Model
    count: int
    teacher_right: int
    share: float
    won: int
    seed: int
    shown: int
    tiles: list[LostTile]


def lost_images(albums: list[Kept]) -> dict[str, Any]:
    """A contact sheet for each student, and whose the page has no room for; no group where there are no labels."""
    groups = []
    for i, kept in enumerate(albums):
        shown = [(j, a) for j, a in enumerate(kept.albums) if "lost" in a.said]
        if shown:
            groups.append({"title": _title(albums, kept),
                           "albums": [_lost(kept, a, sheet_name(i, j)) for j, a in shown if a.said["tiles"]["ids"]]})
    return {"groups": groups, "left_out": [n for kept in albums for n in kept.left_out]}


def _lost(kept: Kept, album: Album, sheet: str) -> LostImages:
    lost, tiles = album.said["lost"], []
    for place in lost["tiles"]:
        true, taken, identity = _classes(kept, album, place)
        tiles.append(LostTile(_tile(sheet, album, place, f"{true}, taken for {taken} ({identity})"), true, taken))
    share = lost["count"] / lost["teacher_right"] if lost["teacher_right"] else float("nan")
    return LostImages(album.model, lost["count"], lost["teacher_right"], share, lost["won"], album.said["seeds"][0],
                      len(tiles) if len(tiles) < lost["count"] else 0, tiles)


def _classes(kept: Kept, album: Album, place: int) -> tuple[str, str, str]:
    """True class, predicted class and id of a tile."""
    said = album.said["tiles"]
    return _name(kept, _of(said["labels"], place)), _name(kept, _of(said.get("predicted"), place)), said["ids"][place]


# -- neighbours -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One model's nearest images to a query."""

    model: Model
    who: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Query:
    """A query, its class (empty without labels), and every model's answer."""

    tile: Tile
    name: str
    answers: list[Answer]


def neighbours(albums: list[Kept]) -> dict[str, Any]:
    """The same queries, each model's five nearest test images, and how many of them are right and shared."""
    groups = [{"title": _title(albums, kept), "queries": [_query(kept, i, q) for q in range(len(kept.teacher.said["queries"]))]}
              for i, kept in enumerate(albums)]
    return {"groups": groups, "findings": [_shares(kept) for kept in albums]}


def _query(kept: Kept, index: int, query: int) -> Query:
    teacher = kept.teacher
    place = teacher.said["queries"][query]
    label = _of(teacher.said["tiles"]["labels"], place)
    own = {teacher.said["tiles"]["ids"][p] for p in teacher.said["neighbours"][query]}
    name = _name(kept, label)
    answers = []
    for j, album in enumerate(kept.albums):
        tiles = [_neighbour(kept, album, sheet_name(index, j), p, label, own) for p in album.said["neighbours"][query]]
        answers.append(Answer(album.model, _who(album.model), tiles))
    return Query(_tile(sheet_name(index, 0), teacher, place, f"query: {name}" if name else "query"), name, answers)


def _neighbour(kept: Kept, album: Album, sheet: str, place: int, label: int | None, own: set[str]) -> Tile:
    said = album.said["tiles"]
    found, shared = _of(said["labels"], place), not album.model.is_teacher and said["ids"][place] in own
    other = label is not None and found != label
    text = " ".join(t for t in (_name(kept, found) or "image", f"({said['ids'][place]})", "of another class" if other else "",
                                "shared with the teacher" if shared else "") if t)
    return _tile(sheet, album, place, text, other, shared)


def _shares(kept: Kept) -> str:
    """How many of the neighbours shown are of the query's class, and how many are the teacher's too."""
    teacher, right, shared, total = kept.teacher, [], [], 0
    for album in kept.albums:
        tiles, same, common, total = album.said["tiles"], 0, 0, 0
        for q, row in enumerate(album.said["neighbours"]):
            own = {teacher.said["tiles"]["ids"][p] for p in teacher.said["neighbours"][q]}
            label = _of(teacher.said["tiles"]["labels"], teacher.said["queries"][q])
            common += sum(tiles["ids"][p] in own for p in row)
            same += sum(label is not None and _of(tiles["labels"], p) == label for p in row)
            total += len(row)
        right.append(f"{_who(album.model)}{NBSP}{same}")
        shared += [] if album.model.is_teacher else [f"{_who(album.model)}{NBSP}{common}"]
    said = [f"of the query's class {', '.join(right)}"] if teacher.said["tiles"]["labels"] else []
    said += [f"shared with the teacher {', '.join(shared)}"] if shared else []
    return f"Of the {total} neighbours shown of each model, {'; '.join(said)}."


# -- the map's card, and what the page's script reads -----------------------------------------------------------------------


@dataclass(frozen=True)
class ClassName:
    """A class with its colour on the map."""

    name: str
    colour: tuple[str, str]


@dataclass(frozen=True)
class Card:
    """What the dot under the pointer is: ``last`` is the place of the last item."""

    index: int
    sheet: str
    classes: list[ClassName]
    last: int


def cards(albums: list[Kept]) -> list[Card]:
    """One card a map; classes are named where there is a colour for each."""
    found = []
    for i, kept in enumerate(albums):
        shared = kept.teacher.said["map"]["shared"]
        few = len(kept.classes) <= len(CLASS_COLOURS) and shared["labels"]
        classes = [ClassName(c, colour) for c, colour in zip(kept.classes, CLASS_COLOURS, strict=False)] if few else []
        found.append(Card(i, sheet_name(i, "map"), classes, len(shared["ids"]) - 1))
    return found


def picture_data(albums: list[Kept]) -> dict[str, Any]:
    """What the page's script needs of them: the map's items, and the rows of the downloads."""
    lost: list[list[Any]] = []
    near: list[list[Any]] = []
    for kept in albums:
        for album in kept.albums:
            said, head = album.said["tiles"], [kept.setting.dataset, kept.setting.teacher, album.model.label]
            for place in album.said.get("lost", {}).get("tiles", []):
                true, taken, identity = _classes(kept, album, place)
                lost.append([*head, identity, true, taken])
            for q, row in enumerate(album.said["neighbours"]):
                query = kept.teacher.said["tiles"]["ids"][kept.teacher.said["queries"][q]]
                near += [[*head, query, rank, said["ids"][p], _name(kept, _of(said["labels"], p))]
                         for rank, p in enumerate(row, start=1)]
    head = ["dataset", "teacher", "model"]
    items = [{"ids": k.teacher.said["map"]["shared"]["ids"],
              "labels": [k.classes[v] for v in k.teacher.said["map"]["shared"]["labels"] or []],
              "columns": k.teacher.said["map"]["sprite"]["columns"], "panels": len(k.albums),
              "answers": [[k.classes[v] for v in a.said["map"].get("predicted") or []] for a in k.albums]} for k in albums]
    return {"maps": items, "tables": {"lost": {"columns": [*head, "id", "true", "taken_for"], "rows": lost},
                                      "neighbours": {"columns": [*head, "query", "rank", "id", "class"], "rows": near}}}
