"""What trials of a study share: its images, noise and views, its targets (fitted once on train), its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distillscope import group, progress, registry
from distillscope.config.parts import Dataset, Part
from distillscope.config.study import Arm, Study
from distillscope.data.looking import Looked
from distillscope.data.noise import Noise
from distillscope.data.preprocess import Preprocess, coarse_for
from distillscope.data.source import Source
from distillscope.data.splits import Keepers, Splits, load_splits, looked_through, named_split, no_keepers, parted, say
from distillscope.data.views import OnTop, View
from distillscope.errors import UserError
from distillscope.files.folders import cache_root
from distillscope.files.writing import checksum, sweep, write_atomic, write_json, write_text
from distillscope.results import rundir
from distillscope.results.rows import Condition
from distillscope.results.run_files import EVERY
from distillscope.targets.transforms import Target, fit_target, load_target
from distillscope.teachers.encoder import TeacherRows

LOGITS = "-logits"
TRANSFORM = "target.safetensors"
"""In a folder of targets, and in every folder of a student trained towards them."""


@dataclass(frozen=True)
class Prepared:
    """A folder of target embeddings (n, d) for one data set, teacher and target; ``common`` is that of the study's target.

    ``taught`` is the file of what the teacher's probes say of the test items, on these embeddings; ``head`` names the teacher's
    own classifier, where it has one.
    """

    folder: Path
    target_name: str
    common: Path | None = None
    taught: Path | None = None
    head: str = ""

    @property
    def target(self) -> Target:
        """The transform itself, for embeddings of other images than the splits' and views'."""
        return load_target(self.folder / TRANSFORM)

    def rows(self, name: str) -> np.ndarray:
        """"train", "validation", "test" or a view's name: (n, d) float32, memory-mapped."""
        return np.load(self.rows_file(name), mmap_mode="r", allow_pickle=False)

    def logits(self, name: str) -> np.ndarray:
        """What the teacher's own head says of the images of "train" or a view (n, classes), where an arm asks for it."""
        return self.rows(f"{name}{LOGITS}-{self.head}")

    def rows_file(self, name: str) -> Path:
        """Where these rows stand."""
        return self.folder / f"{name}.npy"

    def common_rows_file(self, name: str) -> Path:
        """The same under the study's own target, whatever the arm's: where all arms are compared."""
        return (self.common or self.folder) / f"{name}.npy"

    def copy_target(self, folder: Path) -> None:
        """The transform into a student's folder; none where the target is the teacher's embeddings as they are."""
        (folder / TRANSFORM).unlink(missing_ok=True)
        if (self.folder / TRANSFORM).exists():
            write_atomic(folder / TRANSFORM, lambda p: p.write_bytes((self.folder / TRANSFORM).read_bytes()))


@dataclass(frozen=True)
class Untransformed:
    """The teacher's embeddings as they are, asked like `Prepared` ones; nothing is written."""

    encoder: TeacherRows
    splits: Splits
    target_name: str = "none"
    target: Target = Target("none")

    def rows(self, name: str) -> np.ndarray:
        """"train", "validation" or "test": (n, d) float32."""
        source = {"train": self.splits.train, "validation": self.splits.validation, "test": self.splits.test}[name]
        if source is None:
            raise ValueError(f"no {name} part")
        return self.encoder.rows(source)


def prepare_targets(study: Study, encoder: TeacherRows, splits: Splits, part: Part, arms: list[Arm]) -> Prepared:
    """Embed what is missing, fit the target transform on train, and write the targets of every split and view.

    What is there already is used where its checksum holds, else named and made again. The processes of a launcher embed a part
    each; then the first of them fits and writes, and the others find it.
    """
    key: dict[str, Any] = {"teacher": encoder.describe(), "target": part.model_dump(), "images": splits.contents}
    if any(encoder.rescales(view) for _, view, _ in embedded_views(study, arms)):  # older targets hold other strengths
        key["noise"] = "in pixels"
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
    folder = cache_root() / "targets" / digest
    if group.world() > 1:
        views = embedded_views(study, arms)
        lacking = set(group.agreed(lambda: [name for name, _, _ in views if not is_sound(folder / f"{name}.npy")]))
        for name, source in _sets(splits):
            encoder.rows(source, label=f"teacher {splits.title}/{name}")
        for _, view, label in (seen for seen in views if seen[0] in lacking):
            encoder.rows(splits.train, view, label=f"teacher {splits.title}, {label}")
    return group.in_turn(lambda: _written(study, encoder, splits, part, arms, folder, key))


def _sets(splits: Splits) -> list[tuple[str, Source]]:
    named = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    return [(name, source) for name, source in named if source is not None and not (splits.untested and name == "test")]


def _written(study: Study, encoder: TeacherRows, splits: Splits, part: Part, arms: list[Arm], folder: Path,
             key: dict[str, Any]) -> Prepared:
    """The targets of every split and view in ``folder``, which ``key`` names."""
    train = encoder.rows(splits.train, label=f"teacher {splits.title}/train")
    if not (folder / "entry.json").is_file():
        write_json(folder / "entry.json", key)
    sweep(folder)
    target = _fitted_once(part, encoder, train, folder / TRANSFORM)
    keep_rows(folder / "train.npy", lambda: target(train))
    for name, source in _sets(splits)[1:]:
        rows = encoder.rows(source, label=f"teacher {splits.title}/{name}")
        keep_rows(folder / f"{name}.npy", partial(target, rows))

    def seen(view: View, label: str) -> np.ndarray:
        return target(encoder.rows(splits.train, view, label=f"teacher {splits.title}, {label}"))

    def said(view: View | None, label: str) -> np.ndarray:
        if encoder.head is None:
            raise ValueError(f"teacher {encoder.name} has no head")  # checked before
        return encoder.head(train if view is None else encoder.rows(splits.train, view, label=label))

    def is_cached(view: View) -> bool:
        return not encoder.num_missing(splits.train, view)

    for name, view, label in embedded_views(study, arms):
        keep_rows(folder / f"{name}.npy", partial(seen, view, label), cheap=partial(is_cached, view))
    for arm in (arm for arm in arms if arm.view_target == "mean"):
        versions = [view_name(arm, 0, number) for number in range(arm.view_bank or 0)]
        keep_rows(folder / f"{mean_name(arm)}.npy", partial(_mean, [folder / f"{name}.npy" for name in versions]))
    head = encoder.head.mark if encoder.head else ""
    if asking := [arm for arm in arms if asks_for_logits(arm)]:
        named: list[tuple[str, View | None, str]] = [("train", None, ""), *embedded_views(study, asking)]
        for name, shown, label in named:
            keep_rows(folder / f"{name}{LOGITS}-{head}.npy", partial(said, shown, f"teacher {splits.title}, {label}"))
    return Prepared(folder, target.name, head=head)


def _mean(paths: list[Path]) -> np.ndarray:
    """The mean (n, d) of the rows of several files."""
    found: np.ndarray = sum(np.load(path, mmap_mode="r", allow_pickle=False).astype(np.float64) for path in paths) / len(paths)
    return found


def asks_for_logits(arm: Arm) -> bool:
    """Whether an objective of the arm compares with what the teacher's own head says."""
    return any(o.weight and "teacher_logits" in registry.objectives.needs(o.name) for o in arm.objective)


def _fitted_once(part: Part, encoder: TeacherRows, train: np.ndarray, path: Path) -> Target:
    """The target that ``path`` holds, or fitted on the teacher's train embeddings and kept there; ready-made: as float32."""
    if is_sound(path):
        return load_target(path)
    target = fit_target(part.name, part.settings, train, encoder.precision)
    if target.mean is not None:
        target.save(path)
        write_text(mark_of(path), checksum(path))
    return target


def load_data(study: Study, data: Dataset, known: Mapping[str, Looked] | None = None, workers: int = 0,
              keepers: Keepers = no_keepers) -> Splits:
    """The splits of one of the study's data sets; ``known`` is what another process found in them (`Splits.looked`).

    ``workers`` processes decode, also what is read later of a set that memory does not hold; ``keepers`` as of
    `looked_through`.
    """
    setting = "data" if len(study.data) == 1 else f"data.{study.data.index(data)}"
    splits = load_splits(data.title, data.name, data.settings, train_split=data.train_split, test_split=data.test_split,
                         validation=study.validation, screen=study.screen, limit=study.limit, limit_test=study.limit_test,
                         corrupt=study.corrupt, setting=setting, known=known, workers=workers,
                         keepers=keepers)
    _say_if_coarse(study, splits)
    return splits


def as_begun(study: Study, run: Path) -> Study:
    """The study as its run was begun (`rundir.as_begun`), with ``label: none`` where a data set had no labels then and would be
    read with some now: a column by another name than `label` was not found in earlier versions. It is said."""
    study = rundir.as_begun(study, run)
    without = rundir.begun_without_labels(run)
    now = [data.title for data in study.data if data.title in without and _finds_labels(study, data)]
    if not now:
        return study
    progress.say(f"{run}: {', '.join(now)} without labels, as when the run started (label: none); with them it is another run")
    return study.model_copy(update={"data": tuple(
        data.model_copy(update={"label": "none"}) if data.title in now else data for data in study.data)})


def _finds_labels(study: Study, data: Dataset) -> bool:
    """Whether the splits have labels though none were named; what cannot be read is refused later, with its reason."""
    if data.settings.get("label") is not None:
        return False
    try:
        splits = [data.train_split] if study.screen else [data.train_split, data.test_split]
        return "label" in registry.datasets.settings(data.name) and all(
            named_split(data.name, data.settings, split).labels is not None for split in splits)
    except UserError:
        return False


def load_untested(study: Study, data: Dataset, given: Source | None = None, workers: int = 0,
                  reduced: Callable[[Source], Source] = lambda source: source, keepers: Keepers = no_keepers) -> Splits:
    """Train, or the ``given`` images, with a tenth (at most 1,000) held out; no test split is touched.

    ``reduced`` says how large JPEGs are decoded; ``keepers`` as of `looked_through`.
    """
    if given is None:
        given = named_split(data.name, data.settings, data.train_split, "--set data.train_split=")
    whole = looked_through(reduced(given), study.limit, study.corrupt, workers=workers, keepers=keepers)
    splits = replace(parted(data.title, whole, whole, lambda count: min(1000, count // 10)), untested=True)
    _say_if_coarse(study, splits)
    return splits


def _say_if_coarse(study: Study, splits: Splits) -> None:
    """What students see of JPEGs that are decoded at a part of their size, where whole ones would show them something else."""
    for spec in study.students:
        if coarse := coarse_for(Preprocess(spec.image_size, spec.mean, spec.std), splits.whole_train.decoding):
            say(f"student {spec.label}: {coarse}")


def noise_conditions(study: Study) -> dict[tuple[Condition, int], Noise]:
    """(condition, draw) -> noise, for every sigma above 0 and every independent draw."""
    sweep = study.noise
    return {
        (Condition.noise(sigma), draw): Noise(sigma, sweep.spec, draw, sweep.seed)
        for draw in range(sweep.draws) for sigma in sweep.sigmas if sigma > 0
    }


def fingerprint(encoder: TeacherRows, splits: Splits) -> dict[str, str]:
    """Hashes of the data and the teacher's weights, by which studies that are judged together are held to be of the same.

    Those of EVERY image are not in older results: what lacks them is compared by the others. Weights that are computed with
    otherwise than before are said to be others, so that no run goes on with two kinds of embeddings.
    """
    weights = encoder.mark
    images = {f"{name} images": mark for name, mark in splits.marks.items()}
    images |= {f"{EVERY}{name} image": mark for name, mark in splits.contents.items()}
    return images | ({"teacher's weights": weights} if weights else {})


def view_of(arm: Arm, seed: int, epoch: Any) -> View | None:
    """The arm's view at an epoch; with a bank, one of the few versions that all seeds share."""
    return None if arm.view is None else _drawn(arm, arm.view, seed, epoch)


def _drawn(arm: Arm, part: Part, seed: int, epoch: Any) -> View:
    drawn: tuple[int | str, Any] = (seed, epoch)
    if arm.view_bank and isinstance(epoch, int):
        drawn = "bank", epoch % arm.view_bank
    return View(part.name, registry.views.check(part.name, part.settings, f"arms.{arm.name}.view"), *drawn)


def seen_view(arm: Arm, seed: int, epoch: Any) -> View | OnTop | None:
    """What the arm's student sees at an epoch: its view, and on top of it the one that the teacher does not see."""
    view = view_of(arm, seed, epoch)
    if view is None or arm.student_view is None:
        return view
    part, where = arm.student_view, f"arms.{arm.name}.student_view"
    # draws of its own: of two views of one kind the second would undo the first's flip, or double its noise
    then = View(part.name, registry.views.check(part.name, part.settings, where), seed, f"{epoch} on top")
    if then.where != view.where:
        raise UserError(f"{where}.where", f"{view.where}, as the view under it", then.where, f"Set {where}.where={view.where}.")
    if view.std and then.std and view.std != then.std:
        raise UserError(f"{where}.std", f"{list(view.std)}, as the view under it", f"{list(then.std)}", "Give both the same.")
    return OnTop(view, then)


def view_name(arm: Arm, seed: int, epoch: int) -> str:
    """The file that holds the targets of the arm's view."""
    view = view_of(arm, seed, epoch)
    if view is None:
        raise ValueError(f"arm {arm.name} has no view")
    described = json.dumps(view.describe(), sort_keys=True, default=str)
    return f"view-{hashlib.blake2b(described.encode(), digest_size=6).hexdigest()}"


def mean_name(arm: Arm) -> str:
    """The file that holds the mean of the targets of all versions in the bank of the arm's view."""
    return f"mean-{arm.view_bank}-{view_name(arm, 0, 0)}"


def target_name(arm: Arm, seed: int, epoch: int) -> str:
    """The file with what the arm's student is trained towards at an epoch."""
    if arm.view is None or arm.view_target == "clean":
        return "train"
    return mean_name(arm) if arm.view_target == "mean" else view_name(arm, seed, epoch)


def embedded_views(study: Study, arms: Iterable[Arm]) -> list[tuple[str, View, str]]:
    """(file, view, label) of every view that a teacher must embed for these arms: none where the target is the clean one."""
    found: dict[str, tuple[str, View, str]] = {}
    for arm in arms:
        if arm.view is None or arm.view_target == "clean":
            continue
        whole_bank = arm.view_bank if arm.view_target == "mean" else None
        for seed in arm.seeds or study.seeds:
            for epoch in range(whole_bank or study.training_of(arm).epochs):
                name, view = view_name(arm, seed, epoch), _drawn(arm, arm.view, seed, epoch)
                version = f"version {epoch % arm.view_bank + 1}" if arm.view_bank else f"seed {seed}, epoch {epoch + 1}"
                found.setdefault(name, (name, view, f"{arm.view.name}, {version}"))
    return list(found.values())


def rehearse_views(study: Study, source: Source) -> None:
    """Each arm's view on two images, as stored or as the first student sees them: what it cannot do is said before any work."""
    few, spec = np.arange(min(2, len(source))), study.students[0]
    for arm in study.arms:
        view, images = seen_view(arm, 0, 0), source.read(few)
        if view is None:
            continue
        if view.where != "source":
            images = Preprocess(spec.image_size, spec.mean, spec.std)(images)
        try:
            view(images, source.ids[few])
        except UserError as error:
            raise UserError(f"arms.{arm.name}.{error.where}", error.expected, error.got, error.todo) from None


def keep_rows(path: Path, make: Callable[[], np.ndarray], cheap: Callable[[], bool] = lambda: True) -> None:
    """Targets (n, d) float32 in ``path``, written with their checksum unless they are there and sound.

    Older ones without a checksum are compared with what they would be made as, where that is ``cheap``; else they are taken
    if they are finite.
    """
    if path.is_file():
        if mark_of(path).is_file():
            why = None if is_sound(path) else "checksum differs"
        else:
            why = _fault(path, make if cheap() else None)
        if why is None:
            if not mark_of(path).is_file():
                write_text(mark_of(path), checksum(path))
            return
        progress.say(f"cache {path}: damaged ({why}); made again")
    mark_of(path).unlink(missing_ok=True)
    rows = make()
    write_atomic(path, lambda p: np.save(p, np.ascontiguousarray(rows, dtype=np.float32), allow_pickle=False))
    write_text(mark_of(path), checksum(path))


def mark_of(path: Path) -> Path:
    """Where a file's checksum stands; written after it."""
    return path.with_name(f"{path.name}.checksum")


def is_sound(path: Path) -> bool:
    try:
        return mark_of(path).read_text(encoding="utf-8").strip() == checksum(path)
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
    size = float(np.sqrt(np.square(wanted).mean()))
    return None if np.allclose(rows, wanted, rtol=1e-3, atol=1e-3 * size) else "other values"
