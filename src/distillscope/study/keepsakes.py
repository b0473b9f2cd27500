"""What a study keeps so that its page needs no model and no data: confusion, lost images, neighbours, a map, thumbnails.

::

    references/ID/keepsakes/    keepsakes.json, tiles.webp, map.webp      of the teacher, under the study's own target
    trials/ID/keepsakes/        keepsakes.json, tiles.webp                of the first finished seed of each arm and student

Made from what the run directory holds (embeddings and predictions on the test split) and the test images, once all trials of
a data set and teacher have ended; ``run --resume`` adds them to an older run without training anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.config.study import Study
from distillscope.data.source import Source, labels_of, stratified
from distillscope.files.writing import write_atomic, write_text
from distillscope.measure.rows import unit
from distillscope.results.keepsakes_file import VERSION
from distillscope.results.run_files import Trial, trials_of
from distillscope.results.rundir import is_complete, json_object, reference_folder, trial_folder

FOLDER = "keepsakes"
NUM_LOST, NUM_QUERIES, NUM_NEIGHBOURS, NUM_POINTS = 24, 6, 5, 1000
MAX_CLASSES = 100
"""A confusion table of more classes is not kept: nobody could read it."""
TILE, MAP_TILE, COLUMNS = 80, 32, 20
"""Longest side of a thumbnail, the same for the map's many, and how many stand in a row."""
PERPLEXITY, ITERATIONS = 30.0, 500
MAP_METHODS = {
    "pca": "first two principal components of the unit-norm embeddings; a student's are turned and scaled onto the teacher's "
           "(Procrustes)",
    "tsne": f"t-SNE (perplexity {PERPLEXITY:g}, {ITERATIONS} iterations) of the unit-norm embeddings; the teacher's starts "
            "from its principal components, a student's from the teacher's map"}


@dataclass(frozen=True)
class Kept:
    """One model on the test items: embeddings (n, d), predicted classes (n,) or None, and confusion counts or None."""

    embeddings: np.ndarray
    predicted: np.ndarray | None = None
    confusion: np.ndarray | None = None
    made: dict[bytes, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def own_map(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """`map_of` some items, laid onto no other; made once, since each student's is laid onto the teacher's."""
        if points.tobytes() not in self.made:
            self.made[points.tobytes()] = map_of(self.embeddings[points])
        return self.made[points.tobytes()]


def keep_run(run: Path, study: Study, data: str, teacher: str, target: str, test: Source) -> list[Path]:
    """Write what is missing for one data set and teacher; the folders that were written.

    ``target`` names the target transform that students are compared under. What was made of the same seeds is left alone.
    """
    reference = reference_folder(run, data, teacher, target)
    own = read_kept([reference], test) if is_complete(reference) else None
    if own is None:
        return []
    written = []
    if not _is_made(reference, [], test):
        written.append(keep(reference / FOLDER, test, own, []))
    done: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials_of(study):
        if (trial.dataset, trial.teacher) == (data, teacher) and is_complete(trial_folder(run, trial)):
            done.setdefault((trial.arm, trial.student), []).append(trial)
    for trials in done.values():
        folders, seeds = [trial_folder(run, t) for t in trials], [t.seed for t in trials]
        kept = None if _is_made(folders[0], seeds, test) else read_kept(folders, test)
        if kept is not None:
            written.append(keep(folders[0] / FOLDER, test, kept, seeds, own))
    return written


def _is_made(folder: Path, seeds: list[int], test: Source) -> bool:
    made = json_object(folder / FOLDER / "keepsakes.json")
    return (made.get("version"), made.get("seeds"), made.get("items")) == (VERSION, seeds, len(test))


def read_kept(folders: list[Path], test: Source) -> Kept | None:
    """The first folder's embeddings and clean predictions; confusion summed over all. None if they are not of these items."""
    try:
        embeddings = np.load(folders[0] / "embeddings_test" / "img_emb" / "img_emb_0.npy", allow_pickle=False)
    except (OSError, ValueError):
        return None
    if len(embeddings) != len(test):
        return None
    predicted = [found for f in folders if (found := read_predicted(f / "predictions.parquet", test)) is not None]
    if not predicted:
        return Kept(embeddings.astype(np.float32))
    counts = None
    if num_classes(test) <= MAX_CLASSES:
        counts = np.sum([confusion(labels_of(test), p, num_classes(test)) for p in predicted], axis=0)
    return Kept(embeddings.astype(np.float32), predicted[0], counts)


def read_predicted(path: Path, test: Source) -> np.ndarray | None:
    """(n,) clean predictions of the paper's probe, else of the first; None where there are none, or of other items."""
    if test.labels is None or not path.is_file():
        return None
    table = pd.read_parquet(path)
    clean = sorted((c for c in table.columns if c.endswith("|clean|")), key=lambda c: not c.startswith("paper|"))
    same = len(table) == len(test) and (table["id"].astype(str).to_numpy() == test.ids.astype(str)).all()
    return table[clean[0]].to_numpy() if clean and same else None


def num_classes(test: Source) -> int:
    return len(test.class_names) if test.class_names else int(labels_of(test).max()) + 1


def confusion(labels: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """(count, count) int: how many items of the row's class were taken for the column's.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def keep(folder: Path, test: Source, model: Kept, seeds: list[int], teacher: Kept | None = None) -> Path:
    """Write one model's keepsakes into ``folder``, keepsakes.json last; ``teacher`` is None for the teacher itself."""
    tiles: list[int] = []

    def tile(item: int) -> int:
        if item not in tiles:
            tiles.append(item)
        return tiles.index(item)

    queries = stratified(test, NUM_QUERIES, "keepsakes", "queries")
    found = neighbours(model.embeddings, queries, NUM_NEIGHBOURS)
    said: dict[str, Any] = {"version": VERSION, "seeds": seeds, "items": len(test)}
    if model.confusion is not None:
        said["confusion"] = model.confusion.tolist()
    if teacher is None:
        said["classes"] = list(test.class_names) if test.class_names else None
        said["queries"] = [tile(int(q)) for q in queries]
    said["neighbours"] = [[tile(int(i)) for i in row] for row in found]
    if teacher is not None and teacher.predicted is not None and model.predicted is not None:
        right = teacher.predicted == test.labels
        lost = np.flatnonzero(right & (model.predicted != test.labels))
        chosen = lost[stratified(test.take(lost), NUM_LOST, "keepsakes", "lost")] if len(lost) else lost
        if test.labels is not None:
            chosen = chosen[np.argsort(test.labels[chosen], kind="stable")]
        won = int((~right & (model.predicted == test.labels)).sum())
        said["lost"] = {"count": len(lost), "won": won, "teacher_right": int(right.sum()),
                        "tiles": [tile(int(i)) for i in chosen]}
    points = stratified(test, NUM_POINTS, "keepsakes", "map")
    maps = model.own_map(points) if teacher is None else map_of(model.embeddings[points], teacher.own_map(points))
    said["map"] = {name: np.round(xy, 3).tolist() for name, xy in maps.items()}
    if model.predicted is not None:
        said["map"]["predicted"] = model.predicted[points].tolist()
    if teacher is None:
        said["map"]["shared"] = shown(test, points)
        said["map"]["methods"] = MAP_METHODS
        said["map"]["sprite"] = write_sprite(folder / "map.webp", test, points, MAP_TILE, 60)
    said["tiles"] = shown(test, np.array(tiles, dtype=np.int64))
    if model.predicted is not None:
        said["tiles"]["predicted"] = model.predicted[tiles].tolist()
    said["sprite"] = write_sprite(folder / "tiles.webp", test, np.array(tiles, dtype=np.int64), TILE, 90)
    # A list a line: readable enough, and a third of the size of one number per line.
    text = json.dumps(said, separators=(",", ":"), allow_nan=False).replace('],"', '],\n"')
    write_text(folder / "keepsakes.json", text + "\n")
    return folder


def shown(test: Source, items: np.ndarray) -> dict[str, Any]:
    """Ids and labels of some items."""
    labels = None if test.labels is None else test.labels[items].tolist()
    return {"ids": test.ids[items].astype(str).tolist(), "labels": labels}


def neighbours(z: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """(q, count) the items nearest to each query by cosine, nearest first, without the query; ties by their order.

    >>> neighbours(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 0.5]]), np.array([0]), 2).tolist()
    [[2, 3]]
    """
    rows = unit(z.astype(np.float64))
    cosines = rows[queries] @ rows.T
    cosines[np.arange(len(queries)), queries] = -np.inf
    return np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(z) - 1)]


def map_of(z: np.ndarray, teachers: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """{"pca": (n, 2), "tsne": (n, 2)} of embeddings (n, d), the teacher's of mean 0 and mean square 1 along both axes together.

    The same numbers give the same map: nothing is drawn at random. With ``teachers``, the teacher's map, it is laid onto that.
    """
    flat = plane(unit(z.astype(np.float64)))
    if teachers is None:
        return {"pca": flat, "tsne": unfolded(z, flat)}
    return {"pca": onto(teachers["pca"], flat), "tsne": onto(teachers["tsne"], unfolded(z, teachers["tsne"]))}


def plane(z: np.ndarray) -> np.ndarray:
    """(n, 2) the first two principal components, of mean square 1 together; the entry largest in size of each is positive."""
    centred = z - z.mean(axis=0)
    left, s, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(z), 2))
    flat[:, : min(2, len(s))] = (left * s)[:, :2]
    signs = np.sign(flat[np.abs(flat).argmax(axis=0), [0, 1]])
    return of_unit_size(flat * np.where(signs == 0, 1, signs))


def unfolded(z: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(n, 2) t-SNE of embeddings (n, d) from the layout ``start``; the layout itself where there are too few items."""
    if len(z) < 10:
        return start
    from sklearn.manifold import TSNE

    tsne = TSNE(perplexity=min(PERPLEXITY, (len(z) - 1) / 3), max_iter=ITERATIONS, init=(1e-4 * start).astype(np.float32),
                learning_rate="auto", random_state=0, n_jobs=1)
    return of_unit_size(tsne.fit_transform(unit(z.astype(np.float64))).astype(np.float64))


def of_unit_size(xy: np.ndarray) -> np.ndarray:
    """Centred, and of mean square 1 over both axes together; points that are all one stay at 0."""
    xy = xy - xy.mean(axis=0)
    size = np.sqrt(np.square(xy).mean())
    return xy / size if size > 0 else xy


def onto(target: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """``xy`` (n, 2) turned or mirrored, and scaled, to lie nearest to ``target`` (n, 2), both centred (orthogonal Procrustes).

    >>> square = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    >>> bool(np.allclose(onto(square, 3 * square @ np.array([[0.0, 1.0], [-1.0, 0.0]])), square))
    True
    """
    left, s, right = np.linalg.svd(xy.T @ target)
    energy = np.square(xy).sum()
    return xy @ (left @ right) * (s.sum() / energy if energy > 0 else 1.0)


def write_sprite(path: Path, test: Source, items: np.ndarray, side: int, quality: int) -> dict[str, int]:
    """Thumbnails of the items in one lossy WebP, row by row; how to find them: tile's side, columns, rows."""
    from PIL import Image, ImageOps

    images = [Image.fromarray(np.ascontiguousarray(test.read([int(i)])[0].permute(1, 2, 0).numpy())) for i in items]
    side = min(side, max(max(image.size) for image in images))
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), (128, 128, 128))
    for place, image in enumerate(images):
        if max(image.size) > side:
            image = ImageOps.contain(image, (side, side))
        left = place % columns * side + (side - image.width) // 2
        sheet.paste(image, (left, place // columns * side + (side - image.height) // 2))
    write_atomic(path, lambda p: sheet.save(p, format="WEBP", quality=quality, method=6))
    return {"side": side, "columns": columns, "rows": rows}
