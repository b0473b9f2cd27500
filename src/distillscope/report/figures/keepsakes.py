"""Keepsakes of a run (see `distillscope.study.keepsakes`), read; and the figures that are drawn from them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.files.folders import is_archive
from distillscope.report.figures.figure import Figure, Grid, Panel, Series
from distillscope.report.figures.geometry import of_setting
from distillscope.report.page import STUDY_FIGURES
from distillscope.report.sentences.numbers import alike, number, percent, several, shortened
from distillscope.results.keepsakes_file import Keepsakes, read_keepsakes
from distillscope.results.models import Model, Setting, trials_of_model
from distillscope.results.run import Run

MOST_STUDENTS = 5
METHODS = {"tsne": "t-SNE", "pca": "PCA"}
"""Keys of the map's layouts, the one that is shown first first."""


def why_absent(run: Run) -> str:
    """Why a run has no thumbnails, map or confusion, and where they are or what makes them."""
    if is_archive(run.path):
        return "An archive has no thumbnails, map or confusion: the run that it was packed from does."
    return ("This run kept no thumbnails, map or confusion. Repeat its command with --resume: finished trials are not trained "
            "again, and what is missing is made from what they saved.")


@dataclass(frozen=True)
class Album:
    """One model's keepsakes: ``said`` is its keepsakes.json."""

    model: Model
    folder: Path
    said: dict[str, Any]
    checked: Keepsakes

    @property
    def confusion(self) -> np.ndarray | None:
        """(classes, classes) share of the row's items, NaN for a class without items; summed over the finished seeds."""
        if not self.said.get("confusion"):
            return None
        counts = np.asarray(self.said["confusion"], dtype=np.float64)
        total = counts.sum(axis=1, keepdims=True)
        return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)

    def picture(self, name: str) -> str:
        """A sprite as a data: address; empty where the file is gone."""
        path = self.folder / name
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


@dataclass(frozen=True)
class Kept:
    """What was kept under one data set and teacher; ``left_out`` are students whose keepsakes the page has no room for."""

    setting: Setting
    teacher: Album
    students: tuple[Album, ...]
    left_out: tuple[str, ...] = ()

    @property
    def albums(self) -> tuple[Album, ...]:
        return (self.teacher, *self.students)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, or their numbers."""
        names = self.teacher.said.get("classes")
        if names:
            return [str(n) for n in names]
        labels = (self.teacher.said["map"]["shared"]["labels"] or []) + (self.teacher.said["tiles"]["labels"] or [])
        size = max([len(self.teacher.said.get("confusion", [])), *(int(v) + 1 for v in labels)])
        return [str(i) for i in range(size)]


def read_album(model: Model, folder: Path) -> Album | None:
    """The keepsakes of a trial's or a reference's folder; None where there are none, or damaged or older ones (`damaged`)."""
    try:
        checked = read_keepsakes(folder)
    except UserError:
        return None
    return Album(model, folder / "keepsakes", {k: v for k, v in checked.model_dump().items() if v is not None}, checked)


def damaged(run: Run) -> list[str]:
    """The keepsakes of a run that are there and cannot be shown, in sentences."""
    found = []
    for kind, trials in (("references", run.references), ("trials", run.trials)):
        for trial in trials:
            folder = run.path / kind / trial.folder
            if (folder / "keepsakes").exists():
                try:
                    read_keepsakes(folder)
                except UserError as error:
                    found.append(f"{kind}/{trial.folder}/keepsakes: cannot be shown (expected {error.expected}, got "
                                 f"{error.got}). {error.todo}")
    return found


def kept_of(run: Run, settings: list[Setting]) -> list[Kept]:
    """One `Kept` for each setting that has any; the first arm's students come first, and no more than the page has room for."""
    found = []
    for setting in settings:
        teachers = [a for m in setting.teachers for t in trials_of_model(run, m)
                    if (a := read_album(m, run.path / "references" / t.folder)) and a.checked.map.shared]
        if not teachers:
            continue
        students, teacher = [], teachers[0].checked
        count = len(Kept(setting, teachers[0], ()).classes)
        for model in setting.students:
            albums = [a for t in trials_of_model(run, model) if (a := read_album(model, run.path / "trials" / t.folder))
                      and a.checked.fits(teacher, count)]
            students += albums[:1]
        kept, rest = students[:MOST_STUDENTS], students[MOST_STUDENTS:]
        found.append(Kept(setting, teachers[0], tuple(kept), tuple(a.model.label for a in rest)))
    return found


def _title(albums: list[Kept], kept: Kept, album: Album) -> str:
    name = "teacher" if album.model.is_teacher else album.model.label
    return f"{kept.setting.title}: {name}" if len(albums) > 1 else name


def _seeds(album: Album) -> dict[str, Any]:
    count = len(album.said["seeds"])
    return {"n": count or None, "n_of": "seed"}


@STUDY_FIGURES.register("by_class", order=150)
def by_class(run: Run, albums: list[Kept]) -> Figure:
    """Accuracy on each class, teacher beside students."""
    panels, findings = [], []
    for kept in albums:
        own = [(a, table) for a in kept.albums if (table := a.confusion) is not None]
        if not own or len(kept.classes) > 40:
            continue
        series, step = [], min(0.16, 0.7 / len(own))
        for place, (album, table) in enumerate(own):
            share = np.diag(table)
            known = np.flatnonzero(np.isfinite(share))
            x = known + step * (place - (len(own) - 1) / 2)
            series.append(Series.of(album.model, x.tolist(), share[known].tolist(), kind="points", marker=album.model.marker,
                                    hover=[f"class {kept.classes[i]}" for i in known], **_seeds(album)))
        panels.append(Panel(kept.setting.title if len(albums) > 1 else "", "", "accuracy within the class", series,
                            y_percent=True,
                            x_ticks=[(float(i), shortened(c, 12)) for i, c in enumerate(kept.classes)], y_range=(-0.02, 1.04),
                            x_range=(-0.5, len(kept.classes) - 0.5)))
        findings += _widest_gap(albums, kept)
    return Figure("by_class", "Which classes",
                  "Accuracy of the probe on clean test images, class by class. A class where a student falls far below the "
                  "teacher lost what distinguishes it from its neighbours; the confusion below says what it is taken "
                  "for.", panels, "" if panels else why_absent(run), findings)


def _widest_gap(albums: list[Kept], kept: Kept) -> list[str]:
    teacher = kept.teacher.confusion
    if teacher is None or not kept.students:
        return []
    gaps = {}
    for album in kept.students:
        if album.confusion is not None and album.model.arm == kept.students[0].model.arm:
            gaps[album.model.label] = np.diag(teacher) - np.diag(album.confusion)
    if not gaps:
        return []
    mean = np.mean(list(gaps.values()), axis=0)
    worst = int(np.nanargmax(mean))
    same, where = alike(mean.tolist(), float(mean[worst])), of_setting([k.setting for k in albums], kept.setting)
    if mean[worst] <= 0:
        return [f"On no class are the students{where} below the teacher by the mean."]
    each = ", ".join(f"{label} {number(100 * gap[worst], 1)}" for label, gap in gaps.items())
    points = f"{each} points" if len(same) == 1 else f"{number(100 * mean[worst], 1)} points by the mean of the students"
    return [f"The widest gap to the teacher{where} is on {several([kept.classes[i] for i in same])}: {points}."]


@STUDY_FIGURES.register("confusion", order=160)
def confusion(run: Run, albums: list[Kept]) -> Figure:
    """What each class is taken for, teacher beside students."""
    panels, findings = [], []
    for kept in albums:
        for album, table in ((a, table) for a in kept.albums if (table := a.confusion) is not None):
            values = [[None if np.isnan(v) else float(v) for v in row] for row in table]
            panels.append(Panel(_title(albums, kept, album), "taken for", "true class", [], grid=Grid(
                album.model.label, album.model.highlight, values, kept.classes, kept.classes, "share of the class", root=True,
                **_seeds(album))))
        findings += _new_confusions(albums, kept)
    return Figure("confusion", "What is taken for what",
                  "Each row is a true class, each column what the probe calls it; cells are shares of the row, over all "
                  "finished seeds. Compare a student's cells off the diagonal with the teacher's: what is strong in both is "
                  "hard, what is strong in the student alone was lost.",
                  panels, "" if panels else why_absent(run), findings)


def _new_confusions(albums: list[Kept], kept: Kept) -> list[str]:
    teacher, said = kept.teacher.confusion, []
    for album in kept.students:
        if teacher is None or album.confusion is None or album.model.arm != kept.students[0].model.arm:
            continue
        more = np.nan_to_num(album.confusion - teacher)
        np.fill_diagonal(more, 0)
        true, taken = np.unravel_index(int(more.argmax()), more.shape)
        if more[true, taken] > 0:
            more_pairs = len(alike(more.ravel().tolist(), float(more[true, taken]))) - 1
            others = f" (as much for {more_pairs} other pair{'s' * (more_pairs > 1)} of classes)" if more_pairs else ""
            said.append(f"{album.model.label} takes “{kept.classes[true]}” for “{kept.classes[taken]}” in "
                        f"{percent(album.confusion[true, taken])}, the teacher in {percent(teacher[true, taken])}{others}")
    where = of_setting([k.setting for k in albums], kept.setting)
    return [f"Where confusion grew most{where}: {'; '.join(said)}."] if said else []


@STUDY_FIGURES.register("map", order=170)
def maps(run: Run, albums: list[Kept]) -> Figure:
    """The same test items in two dimensions, teacher and students side by side."""
    panels, methods = [], {}
    for kept in albums:
        shared, methods = kept.teacher.said["map"]["shared"], kept.teacher.said["map"]["methods"]
        labels = shared["labels"]
        for album in kept.albums:
            drawn = album.said["map"]
            predicted = drawn.get("predicted")
            hover = [kept.classes[p] for p in predicted] if predicted else [""] * len(shared["ids"])
            views = [(name, [float(x) for x, _ in drawn[m]], [float(y) for _, y in drawn[m]]) for m, name in METHODS.items()]
            series = Series.of(album.model, views[0][1], views[0][2], kind="cloud", groups=labels or [], hover=hover,
                               dash="solid")
            panels.append(Panel(_title(albums, kept, album), "", "", [series], square=True, views=views))
    said = " ".join(f"{methods[m]}." if methods[m].startswith(name) else f"{name}: {methods[m]}."
                    for m, name in METHODS.items() if m in methods)
    return Figure("map", "A map of the same images",
                  "Each dot is a test image, the same ones for every model; colours are true classes. Point at a dot to see "
                  "the image and where every model puts it. Classes that run into each other in a student's map alone are what "
                  "it no longer separates. Distances between clusters of a t-SNE mean little: read who is next to whom. "
                  f"{said}", panels, "" if panels else why_absent(run))
