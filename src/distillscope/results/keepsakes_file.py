"""keepsakes.json, checked: every number that points to an image or a class points to one that is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from distillscope.files.json_reader import read_json

VERSION = 1
AGAIN = "Delete the folder keepsakes and repeat the run's command with --resume."
Count = Annotated[int, Field(ge=0, le=2**53)]
Size = Annotated[int, Field(ge=1, le=10**6)]
Point = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=2)]


class _Items(BaseModel):
    ids: list[str]
    labels: list[Count] | None = None
    predicted: list[Count] | None = None

    @model_validator(mode="after")
    def _as_long(self) -> _Items:
        if any(v and len(v) != len(self.ids) for v in (self.labels, self.predicted)):
            raise ValueError("as many labels as ids")
        return self


class _Sprite(BaseModel):
    side: Size
    columns: Size
    rows: Size


class _Lost(BaseModel):
    count: Count
    won: Count
    teacher_right: Count
    tiles: list[Count]


class _Map(BaseModel):
    pca: Annotated[list[Point], Field(min_length=1)]
    tsne: Annotated[list[Point], Field(min_length=1)]
    predicted: list[Count] | None = None
    shared: _Items | None = None
    methods: dict[str, str] = {}
    sprite: _Sprite | None = None

    @model_validator(mode="after")
    def _as_long(self) -> _Map:
        ids = self.shared.ids if self.shared else self.pca
        lengths = {len(self.pca), len(self.tsne), len(self.predicted or self.pca), len(ids)}
        if len(lengths) > 1 or (self.shared and not (self.sprite and self.methods)):
            raise ValueError("a map of as many points as items")
        return self


class Keepsakes(BaseModel):
    """What a model keeps of its test images; a teacher's has queries and a shared map besides."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)]
    seeds: list[int]
    items: Count | None = None
    confusion: list[list[Count]] | None = None
    classes: list[str] | None = None
    queries: list[Count] | None = None
    neighbours: list[list[Count]]
    lost: _Lost | None = None
    map: _Map
    tiles: _Items
    sprite: _Sprite

    @model_validator(mode="after")
    def _point_to_what_is_there(self) -> Keepsakes:
        tiles = [*_flat(self.neighbours), *(self.queries or []), *(self.lost.tiles if self.lost else [])]
        if max(tiles, default=-1) >= len(self.tiles.ids):
            raise ValueError(f"numbers of the {len(self.tiles.ids)} tiles")
        if self.confusion is not None and {len(row) for row in self.confusion} != {len(self.confusion)}:
            raise ValueError("a square confusion")
        if self.lost and not self.seeds:
            raise ValueError("the seed of what was lost")
        if self.map.shared and len(self.neighbours) != len(self.queries or []):
            raise ValueError("neighbours of each query")
        known = self.num_classes
        if known is not None and max(self.named, default=-1) >= known:
            raise ValueError(f"numbers of the {known} classes")
        return self

    @property
    def num_classes(self) -> int | None:
        """How many classes there are, where that is said."""
        sizes = [len(v) for v in (self.classes, self.confusion) if v]
        return min(sizes, default=None)

    @property
    def named(self) -> list[int]:
        """Every class that is named by its number."""
        shared = self.map.shared.labels if self.map.shared else None
        return [*(self.tiles.labels or []), *(self.tiles.predicted or []), *(self.map.predicted or []), *(shared or [])]

    def fits(self, teacher: Keepsakes, num_classes: int) -> bool:
        """Whether a student's can be shown beside the teacher's."""
        return (len(self.neighbours) == len(teacher.neighbours) and len(self.map.pca) == len(teacher.map.pca)
                and len(self.confusion or teacher.confusion or []) == len(teacher.confusion or self.confusion or [])
                and max(self.named, default=-1) < max(num_classes, 1))


def read_keepsakes(folder: Path) -> Keepsakes:
    """The keepsakes of a trial's or a reference's folder; a `UserError` says what is wrong with them."""
    return read_json(folder / "keepsakes" / "keepsakes.json", Keepsakes, AGAIN)


def _flat(rows: Iterable[Iterable[int]]) -> list[int]:
    return [value for row in rows for value in row]
