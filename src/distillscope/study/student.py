"""One student for use, not a study: weights, preprocessing, model card."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from distillscope import group, progress
from distillscope.config.load import study_from
from distillscope.config.parts import DESCRIPTION, READ, REQUEST, Dataset, Student
from distillscope.config.recipe import FIRST_RECIPE
from distillscope.config.resolve import with_noise
from distillscope.config.study import Arm, Study, Training, as_written
from distillscope.data.origin import kept_of
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import Splits, no_keepers
from distillscope.errors import UserError
from distillscope.files.folders import KEEP_GIB, cache_root, check_fresh, is_filled
from distillscope.files.json_reader import read_json
from distillscope.files.locks import RunLock
from distillscope.files.writing import said_if_deleted, sweep, write_text
from distillscope.files.yaml_reader import read_yaml
from distillscope.registry import datasets
from distillscope.results.run_files import EVERY, trials_of
from distillscope.students.card import model_card, recipe_text, teacher_id, training_rows, training_text, view_text
from distillscope.students.hub import CARD
from distillscope.students.load import StudentEncoder, save_student
from distillscope.students.networks import recompute
from distillscope.students.own_network import OwnNetwork
from distillscope.study.marks import HEAD, head_mark, of_students
from distillscope.study.one_look import OneLook
from distillscope.study.preflight import Work, check_data, check_study, check_teacher, say_parted
from distillscope.study.prepared import fingerprint, load_untested, prepare_targets
from distillscope.study.trial import fresh_student, make_health, training_set
from distillscope.teachers.encoder import TeacherRows, load_teacher
from distillscope.training.loop import distill
from distillscope.training.muon import kernels_of
from distillscope.training.stored_images import seen_by
from distillscope.visible import visible


@dataclass(frozen=True)
class Given:
    """What a caller of Python hands over where a study would name it: images, a teacher (made for them), a network."""

    images: Source | None = None
    teacher: Callable[[Source], TeacherRows] | None = None
    network: OwnNetwork | None = None

    def made_of(self, splits: Splits) -> TeacherRows:
        """The given teacher, made for the images that it is to see."""
        assert self.teacher is not None
        found = self.teacher(splits.whole_train)
        if found.reading:
            progress.say(found.reading)
        return found


@dataclass(frozen=True)
class Begun:
    """A request that every check has passed: its study with the noise written out, what was read, and what is compared."""

    work: Work
    splits: Splits
    encoder: TeacherRows
    request: dict[str, Any]


def distill_one(study: Study, out: Path, *, resume: bool = False, device: str = "auto", precision: str | None = None,
                workers: int = 0, track: str | None = None, keep_images: float = KEEP_GIB, command: str = "") -> Path:
    """Distil the study's only student into ``out``; label-free images do. Started again with ``resume`` it goes on.

    What it goes on with is the same request: another one is refused, with what differs.
    """
    distil(Work(study, None, resume, device, precision, None, track, workers, keep_images), out, command=command)
    return out


def distil(work: Work, out: Path, given: Given = Given(), *, command: str = "") -> StudentEncoder | None:
    """`distill_one`, of what may be ``given``: the student as trained, or None where the folder was finished already.

    The processes of a launcher (`group`) embed and train as one; the first of them writes the folder.
    """
    with said_if_deleted(out, cache_root()), group.parted("distill"):
        begun = begin(work, out, given, keeps=True)
        if (out / DESCRIPTION).exists():
            progress.say(f"{out}: finished already")
            return None
        return _distil(begun, work.study.arms[0], out, given, command)


def begin(work: Work, out: Path, given: Given = Given(), *, keeps: bool = False) -> Begun:
    """What `distill` does before any work, and all that its plan does: everything that may be refused is refused here.

    ``keeps`` says that images may be kept at the student's size as they are scanned; a plan keeps none.
    """
    group.join(work.device)
    settings = {k: v for k, v in work.study.dump().items() if k not in IGNORED}
    request: dict[str, Any] = {"settings": settings, "precision": work.precision or "float32"}

    def check_folder() -> None:
        check_fresh(f"--out {out}", out, "Add --resume, or name another.", going_on=work.resume)
        if is_filled(out):
            compare_request(out, request)

    group.agreed(check_folder)
    work = replace(work, study=with_noise(work.study))
    data, teacher = work.study.data[0], work.study.teacher[0]
    check_study(work)
    if given.network:
        check_own(work.study.training_of(work.study.arms[0]), given.network)
    spec = work.study.students[0]
    named = functools.cache(lambda: load_teacher(teacher, work.device, work.precision))
    seen = given.network.preprocess if given.network else Preprocess(spec.image_size, spec.mean, spec.std)
    look = OneLook(work, named if given.teacher is None else None, [(seen, work.study.arms[0])], data.train_split)
    load = functools.partial(load_untested, work.study, workers=work.workers, reduced=look.reduced,
                             keepers=look.keepers if keeps else no_keepers)
    splits = load(data, given=given.images)
    if given.images is None:
        splits = _as_begun(data, splits, out, load)
    check_data(work, splits)
    if not group.rank():
        if given.network:
            progress.say(visible(given.network.reading))
        _say_if_enlarged(work.study.students[0], splits)
    encoder = named() if given.teacher is None else given.made_of(splits)
    check_teacher(work, splits, encoder, teacher.title)
    request["fingerprint"] = fingerprint(encoder, splits)
    if given.network:
        request["fingerprint"]["student's first weights"] = given.network.fingerprint()
    if seen.resize_mode != "shortest":  # a student of before 2026-11-28 was trained on other images
        request["fingerprint"]["student's images"] = seen.resize_mode
    request["fingerprint"] |= head_mark(work.study, encoder)
    if of_students(work.study, encoder):
        request["fingerprint"]["noise on inputs"] = "in pixels"
    group.agreed(lambda: compare_request(out, request) if (out / REQUEST).is_file() else None)
    return Begun(work, splits, encoder, request)


def _as_begun(data: Dataset, splits: Splits, out: Path, load: Callable[[Dataset], Splits]) -> Splits:
    """The images as ``out`` was begun with them, where that was without labels and they are found now; and it says so."""
    if splits.whole_train.labels is None or data.settings.get("label") is not None or not (out / REQUEST).is_file():
        return splits
    begun = read_yaml(out / REQUEST)
    before = begun.get("fingerprint") if isinstance(begun, dict) else None
    if not isinstance(before, dict) or "label" not in datasets.settings(data.name) or _are(splits, before):
        return splits
    bare = load(data.model_copy(update={"label": "none"}))
    if not _are(bare, before):
        return splits
    progress.say(f"{out}: {data.title} without labels, as when it started (label: none)")
    return bare


def _are(splits: Splits, fingerprint: dict[str, str]) -> bool:
    return all(fingerprint.get(f"{name} images") == mark for name, mark in splits.marks.items())


def check_own(settings: Training, network: OwnNetwork) -> None:
    """What `preflight` checks of networks that are named."""
    if settings.optimizer == "muon":
        kernels_of(network.module.parameters())
    if settings.recompute:
        recompute(copy.deepcopy(network.module), network.label)
    say_parted(settings, network.module, network.label)


ENLARGED = 4
"""How many times larger than the images a student may see them without a word."""


def _say_if_enlarged(spec: Student, splits: Splits) -> None:
    """A network's own size may be far more than the images hold."""
    side = max(max(splits.train.image(i).shape[:2]) for i in range(min(32, len(splits.train))))
    if spec.image_size > ENLARGED * side:
        said = (f"{splits.title}: images of {side} px are enlarged to {spec.image_size} px for {spec.label}; "
                f"--image-size {side} would cost about {(spec.image_size / side) ** 2:.0f} times less")
        progress.say(visible(said))


def _distil(begun: Begun, written: Arm, out: Path, given: Given, command: str) -> StudentEncoder:
    """Train the student and write its folder; ``written`` is the arm as it was asked for."""
    study, splits = begun.work.study, begun.splits
    data, teacher, spec, arm = study.data[0], study.teacher[0], study.students[0], study.arms[0]
    settings, trial = study.training_of(arm), trials_of(study)[0]
    said = f"recipe {recipe_text(study)}: {arm.objective_name}; view {view_text(written)}; {training_text(settings)}"
    progress.say(visible(said))
    held: list[RunLock] = []

    def take_folder() -> None:
        out.mkdir(parents=True, exist_ok=True)
        held.append(RunLock(out))
        sweep(out, alone=True)
        request = {**begun.request, **({} if given.images else {READ: kept_of(data, splits.whole_train, out)})}
        write_text(out / REQUEST, yaml.safe_dump(request, sort_keys=False, allow_unicode=True))

    def write_folder() -> None:
        prepared.copy_target(out)
        write_text(out / CARD, model_card(student, str(out), command=command))
        save_student(student, out)
        (out / "checkpoint.pt").unlink(missing_ok=True)

    try:
        group.agreed(take_folder)
        prepared = prepare_targets(study, begun.encoder, splits, study.target_of(arm), [arm])
        student, streams = fresh_student(study, arm, spec, trial.seed, prepared, begun.work.device,
                                         begun.work.precision or "float32", given.network)
        if splits.whole_train.decoding:
            student.decoding = splits.whole_train.decoding.whole
        seen = seen_by(student.preprocess, splits, arm, begun.work.keep_images)
        with progress.task(f"student {spec.label}", settings.num_seen(len(splits.train))) as advance:
            history = distill(student, training_set(arm, trial.seed, seen, prepared), arm, settings, streams, out,
                              make_health(seen, prepared), track=begun.work.track, advance=advance, warn=progress.say)
        student.described = {**(student.described or {}), "target": prepared.target_name, "teacher": teacher.title,
                             "teacher_id": teacher_id(teacher), "dataset": data.title,
                             **({"images": splits.whole_train.note} if splits.whole_train.note else {}),
                             "recipe": arm.name, "objective": arm.objective_name, "seed": trial.seed,
                             "card": training_rows(study, splits, history)}
        group.agreed(write_folder)
    finally:
        for lock in held:
            lock.release()
    return student


IGNORED = ("name", "description", "published")
"""Settings that say nothing about what is trained; a folder may be renamed."""
UNNAMED = "student"
"""What the only arm was called in requests from before there were recipes."""


ARM = "settings.arms.0.name"


def compare_request(out: Path, asked: dict[str, Any]) -> None:
    """Refuse to go on in ``out`` with another request than it was begun with; a folder older than requests says less."""
    if (out / REQUEST).is_file():
        begun = read_yaml(out / REQUEST)
        if not isinstance(begun, dict) or not isinstance(begun.get("settings"), dict):
            raise UserError(str(out / REQUEST), "what `distill` was asked for", "something else", "Distil into another --out.")
        begun = {**begun, "settings": _at_defaults(begun["settings"])}
        known = begun.keys() & asked.keys()
        before, now = _flat({k: begun[k] for k in known}), _flat({k: asked[k] for k in known})
        every = f"fingerprint.{EVERY}", f"fingerprint.{HEAD}"
        now = {k: v for k, v in now.items() if k in before or not k.startswith(every)}  # older folders have none
        recipe = before.get(ARM)
    elif (out / DESCRIPTION).is_file():
        said = read_json(out / DESCRIPTION)
        before, now = _of_description(said), {k: v for k, v in _of_request(asked["settings"]).items() if k in said}
        recipe = UNNAMED
        progress.say(f"{out}: from before requests were kept; only {', '.join(sorted(now))} can be compared")
    elif (out / "checkpoint.pt").is_file():
        if _flat(asked).get(ARM) not in (UNNAMED, FIRST_RECIPE):
            raise UserError(f"--resume {out}", f"--recipe {FIRST_RECIPE}, since it started before recipes existed",
                            f"{_flat(asked).get(ARM)}", f"Add --recipe {FIRST_RECIPE}, or name another --out.")
        progress.say(f"{out}: from before requests were kept; that this one is the same cannot be checked")
        return
    else:
        raise UserError(f"--resume {out}", f"a student's folder (with {REQUEST})", "another one", "Name another --out.")
    for path in sorted((before.keys() | now.keys()) - {ARM}):
        old, new = before.get(path), now.get(path)
        if old != new:
            where = path.removeprefix("settings.").replace("arms.0.", "").replace("students.0.", "student.")
            raise UserError(f"--resume {out}, {where}", f"{json.dumps(old)[:120]} as when it started", json.dumps(new)[:120],
                            _old_way(path, before, recipe, now.get(ARM)))


def _old_way(path: str, before: dict[str, Any], begun: str | None, asked: str | None) -> str:
    """What to type in order to go on as it was begun, where it is the recipe or what a student sees that differs."""
    if path.startswith(("settings.arms.", "settings.training.", "settings.target.", "objective")) and begun != asked:
        if begun == UNNAMED and asked != FIRST_RECIPE:
            return f"It started before recipes existed: add --recipe {FIRST_RECIPE}, or name another --out."
        if begun and begun != UNNAMED:
            return f"It was started with the recipe {begun}: add --recipe {begun}, or name another --out."
    setting = path.removeprefix("settings.students.0.").split(".")[0]
    if setting in ("image_size", "mean", "std") and begun == UNNAMED:
        colours = [str([before.get(f"settings.students.0.{key}.{i}") for i in range(3)]) for key in ("mean", "std")]
        return (f"It saw that by default then: --image-size {before.get('settings.students.0.image_size')} "
                f"--set 'student.mean={colours[0]}' --set 'student.std={colours[1]}', or name another --out.")
    return "Repeat it with the old value, or into another --out."


def _at_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with those that have come since at their defaults."""
    try:
        return {k: v for k, v in study_from({"name": "student", **as_written(settings)}).dump().items() if k not in IGNORED}
    except UserError:
        return settings


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """{"a.0.b": plain value} of nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    return {k: v for name, inner in items for k, v in _flat(inner, f"{path}.{name}" if path else str(name)).items()}


def _of_request(settings: dict[str, Any]) -> dict[str, Any]:
    """What a request says of a student's description, by the description's keys."""
    study = Study.model_validate({"name": "student", **settings})
    spec, arm = study.students[0], study.arms[0]
    return {"name": spec.name, "settings": spec.settings, "label": spec.label, "objective": arm.objective_name,
            "seed": study.seeds[0], "teacher": study.teacher[0].title, "dataset": study.data[0].title}


def _of_description(said: dict[str, Any]) -> dict[str, Any]:
    return {k: said[k] for k in ("name", "settings", "label", "objective", "seed", "teacher", "dataset") if k in said}
