"""The teacher's embeddings of a study, computed once, transformed into targets, and memory-mapped by every trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillscope import progress, registry
from distillscope.config.parts import Part
from distillscope.config.study import Arm, Study
from distillscope.data.noise import Noise
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import Splits
from distillscope.data.views import View
from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.files.writing import checksum, sweep, write_atomic, write_json, write_text
from distillscope.results.rows import Condition
from distillscope.targets.transforms import Target, check_target, fit_target
from distillscope.teachers.cache import cache_root
from distillscope.teachers.rows import TeacherRows


@dataclass(frozen=True)
class Prepared:
    """A folder of target embeddings (n, d) for one data set, teacher and target; ``common`` is that of the study's own target."""

    folder: Path
    target_name: str
    common: Path | None = None

    def rows(self, name: str) -> np.ndarray:
        """"train", "validation", "test" or a view's name: (n, d) float32, memory-mapped."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def common_rows(self, name: str) -> np.ndarray:
        """The same under the study's own target, whatever the arm's: where all arms are compared."""
        return np.load((self.common or self.folder) / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def view_of(arm: Arm, seed: int, epoch: Any) -> View | None:
    """The arm's view at an epoch; with a bank, one of the few versions that all seeds share."""
    if arm.view is None:
        return None
    if arm.view_bank and isinstance(epoch, int):
        seed, epoch = "bank", epoch % arm.view_bank
    return View(arm.view.name, registry.views.check(arm.view.name, arm.view.settings, f"arms.{arm.name}.view"), seed, epoch)


def rehearse_views(study: Study, source: Source) -> None:
    """Each arm's view on two images, as stored or as the first student sees them: what it cannot do is said before any work."""
    few, spec = np.arange(min(2, len(source))), study.students[0]
    for arm in (a for a in study.arms if a.view):
        view, images = view_of(arm, 0, 0), source.read(few)
        try:
            view(images if view.where == "source" else Preprocess(spec.image_size, spec.mean, spec.std)(images), source.ids[few])
        except UserError as error:
            raise UserError(f"arms.{arm.name}.{error.where}", error.expected, error.got, error.todo) from None


def embedded_views(study: Study, arms: Iterable[Arm]) -> list[tuple[str, View, str]]:
    """(file, view, label) of every view that a teacher must embed for these arms: none where the target is the clean one."""
    found: dict[str, tuple[str, View, str]] = {}
    for arm in (a for a in arms if a.view and a.view_target == "same"):
        for seed in arm.seeds or study.seeds:
            for epoch in range(study.training_of(arm).epochs):
                name, view = view_name(arm, seed, epoch), view_of(arm, seed, epoch)
                shown = f"version {view.epoch + 1}" if arm.view_bank else f"seed {seed}, epoch {epoch + 1}"
                found.setdefault(name, (name, view, f"{arm.view.name}, {shown}"))
    return list(found.values())


def view_name(arm: Arm, seed: int, epoch: int) -> str:
    """The file that holds the targets of that view."""
    view = json.dumps(view_of(arm, seed, epoch).describe(), sort_keys=True, default=str)
    return f"view-{hashlib.blake2b(view.encode(), digest_size=6).hexdigest()}"


def noise_conditions(study: Study) -> dict[tuple[Condition, int], Noise]:
    """(condition, draw) -> noise, for every sigma above 0 and every independent draw."""
    sweep = study.noise
    return {
        (Condition.noise(sigma), draw): Noise(sigma, sweep.spec, draw, sweep.seed)
        for draw in range(sweep.draws) for sigma in sweep.sigmas if sigma > 0
    }


def check_targets(study: Study, dim: int, count: int) -> None:
    """Whether the study's and the arms' targets can be fitted to ``count`` train embeddings of ``dim`` dimensions."""
    for part in (study.target, *map(study.target_of, study.arms)):
        check_target(part.name, part.settings, dim, count)


def fitted_target(part: Part, encoder: TeacherRows, train: np.ndarray) -> Target:
    """The target fitted on the teacher's train embeddings; ready-made ones count as float32."""
    return fit_target(part.name, part.settings, train, encoder.precision)


def prepare_targets(study: Study, encoder: TeacherRows, splits: Splits, part: Part, arms: list[Arm]) -> Prepared:
    """Embed what is missing, fit the target transform on train, and write the targets of every split and view.

    What is there already is used where its checksum holds, else named and made again.
    """
    train = encoder.rows(splits.train, label=f"teacher {splits.title}/train")
    target = fitted_target(part, encoder, train)
    key = {"teacher": encoder.describe(), "target": part.model_dump(), "splits": split_hashes(splits)}
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
    prepared = Prepared(cache_root() / "targets" / digest, target.name)
    if not (prepared.folder / "entry.json").is_file():
        write_json(prepared.folder / "entry.json", key)
    sweep(prepared.folder)
    transform = prepared.folder / "target.safetensors"
    if target.mean is not None and not _is_sound(transform):
        target.save(transform)
        write_text(_mark(transform), checksum(transform))
    _keep(prepared, "train", lambda: target(train))
    for name, source in (("validation", splits.validation), ("test", splits.test)):
        if source is not None:
            rows = encoder.rows(source, label=f"teacher {splits.title}/{name}")
            _keep(prepared, name, lambda rows=rows: target(rows))
    for name, view, label in embedded_views(study, arms):
        def seen(view=view, label=label) -> np.ndarray:
            return target(encoder.rows(splits.train, view, label=f"teacher {splits.title}, {label}"))

        _keep(prepared, name, seen, cheap=lambda view=view: not encoder.num_missing(splits.train, view))
    return prepared


def split_hashes(splits: Splits) -> dict[str, str]:
    """What names the items of each split: their ids, and the pixels of a few."""
    return {s.split if s is not splits.validation else "validation": hashlib.blake2b(
                "\n".join(s.ids).encode() + _sample_hash(s), digest_size=8).hexdigest()
            for s in (splits.train, splits.validation, splits.test) if s is not None}


def fingerprint(encoder: TeacherRows, splits: Splits) -> dict[str, str]:
    """Hashes of the data and the teacher's weights, by which studies that are judged together are held to be of the same."""
    weights = encoder.describe().get("weights")
    return {f"{name} images": mark for name, mark in split_hashes(splits).items()} | ({"teacher's weights": weights} if weights else {})


def _keep(prepared: Prepared, name: str, make: Callable[[], np.ndarray], cheap: Callable[[], bool] = lambda: True) -> None:
    """The targets ``name``, (n, d) float32, written with their checksum unless they are there and sound.

    Older ones without a checksum are compared with what they would be made as, where that is ``cheap``; else they are taken
    if they are finite.
    """
    path = prepared.folder / f"{name}.npy"
    if path.is_file():
        why = _fault(path, make if cheap() else None) if not _mark(path).is_file() else None if _is_sound(path) else "checksum differs"
        if why is None:
            if not _mark(path).is_file():
                write_text(_mark(path), checksum(path))
            return
        progress.say(f"cache {path}: damaged ({why}); made again")
    _mark(path).unlink(missing_ok=True)
    rows = make()
    write_atomic(path, lambda p: np.save(p, np.ascontiguousarray(rows, dtype=np.float32), allow_pickle=False))
    write_text(_mark(path), checksum(path))


def _mark(path: Path) -> Path:
    """Where a file's checksum stands; written after it."""
    return path.with_name(f"{path.name}.checksum")


def _is_sound(path: Path) -> bool:
    try:
        return _mark(path).read_text(encoding="utf-8").strip() == checksum(path)
    except (FileNotFoundError, ValueError):
        return False


def _fault(path: Path, make: Callable[[], np.ndarray] | None) -> str | None:
    """What is wrong with targets that were written before checksums were."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return str(error).splitlines()[0][:120]
    if make is None:
        return None if rows.ndim == 2 and rows.dtype == np.float32 and np.isfinite(rows).all() else "not finite float32 rows"
    wanted = make()
    if rows.shape != wanted.shape or rows.dtype != np.float32:
        return f"{rows.dtype} of shape {rows.shape}"
    # Made on other threads or another machine the last digits differ.
    return None if np.allclose(rows, wanted, rtol=1e-3, atol=1e-3 * float(np.sqrt(np.square(wanted).mean()))) else "other values"


def _sample_hash(source: Source) -> bytes:
    """A few images' pixels: ids alone do not tell two copies of a data set with other pixels apart."""
    few = keyed_rng("sample hash", len(source)).integers(0, len(source), size=min(32, len(source)))
    return b"".join(np.ascontiguousarray(source.image(int(i))).tobytes() for i in few)
