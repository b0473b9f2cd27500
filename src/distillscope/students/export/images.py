"""The images that a file is calibrated and verified on: the student's own, or those that the user names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.config.parts import DESCRIPTION, READ, REQUEST, TRIAL, Dataset
from distillscope.config.resolve import named_dataset
from distillscope.data.origin import Origin
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, content_hash, one_tensor
from distillscope.data.splits import load_split, looked_through, named_split, say
from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.files.json_reader import read_json
from distillscope.files.remote import is_url
from distillscope.files.yaml_reader import read_yaml
from distillscope.registry import datasets
from distillscope.results.run_files import read_provenance

VERIFIED = 256
"""Images through the file and the network before it is written, at most."""
FEWEST_VERIFIED = 64
ENLARGED = 32
"""Of these, shown to a raw file in a larger size as well."""
CHOOSING = 128
"""Of int8: images that calibration methods and layers are chosen on."""
CALIBRATED = 512
"""Of int8: images that the ranges are taken from, at most."""
FEWEST_CALIBRATED = 64


def named_images(data: str, split: str, corrupt: str, count: int) -> Source:
    """Up to ``count`` images of ``data``, a stratified part; ``corrupt``: "error" or "skip"."""
    part = named_dataset(data, "--calibrate")
    return load_split(part.name, part.settings, split, count, corrupt)


def own_images(folder: Path, count: int) -> Source:
    """Up to ``count`` of the images that a student was distilled on, as its folder (or its study's) says, broken ones skipped
    where they were then. Paths start where they did then; where other images are there now, that is refused, or said."""
    try:
        origin, named = origin_of(folder), _own_data(folder)
        part = named_dataset(origin.located(named))
        source = named_split(part.name, part.settings, part.train_split)
        _check_own(folder, part, source, origin)
        if origin.located(named) != origin.located(named, moved=False):
            say(f"export {folder}: images are taken from {part.settings['path']}: there are none where it was distilled, as "
                "seen from its folder")
        return looked_through(source, count, asked_of(folder).get("corrupt") or "error")
    except UserError as error:
        raise UserError(f"export {folder}", "the images that the student was distilled on",
                        f"none within reach ({error.where}: {error.got})", "Name images like them: --calibrate DATA.") from None


def _check_own(folder: Path, part: Dataset, source: Source, origin: Origin) -> None:
    """Images of the same name are not the same images: they must be those that were kept, or it is said where they are."""
    path = str(part.settings.get("path", ""))
    where = path if not path or is_url(path) or part.name == "hub" else str(Path(path).expanduser().resolve())
    found, told = origin.known_again(source), ""
    if found is not None:
        told = f"of {found[1]} images that it was distilled on, {found[0]} are as they were"
    if found is None:
        if where and origin.start is None:
            say(f"export {folder}: images are taken from {where}; the student does not say whether it was distilled on those")
    elif 2 * found[0] < found[1]:
        raise UserError(where or part.name, "those images", told)
    elif found[0] < found[1]:
        say(f"export {folder}: {where or part.name}: {told}")


def _own_data(folder: Path) -> Any:
    """What a study or `distill` was told of the images; else the title in student.json, where that is the name of a data set:
    a path of that name may be any."""
    title, data = read_json(folder / DESCRIPTION, dict, "").get("dataset"), asked_of(folder).get("data")
    if isinstance(data, list) and data and _said_in(folder).parent == folder:
        return data[0]
    for named in data if isinstance(data, list) else ():
        if title in (named, Dataset.model_validate(named).title):
            return named
    if title not in datasets:
        raise UserError(str(folder / DESCRIPTION), "where its images are", f"only their name, {title}" if title else "none")
    return title


def origin_of(folder: Path) -> Origin:
    """What was kept of the images that a student, or its study, was made of."""
    title, said_in = read_json(folder / DESCRIPTION, dict, "").get("dataset"), _said_in(folder)
    if said_in.parent == folder:
        said = read_yaml(said_in) if said_in.is_file() else None
        return Origin.read(said.get(READ) if isinstance(said, dict) else None, folder)
    kept = read_provenance(said_in.parent / "provenance.json").get(READ)
    return Origin.read(kept.get(title) if isinstance(kept, dict) else None, said_in.parent)


def _said_in(folder: Path) -> Path:
    """The file that says what a student was made of: its own, or its run's where it stands in one; it need not be there."""
    study = folder.resolve().parent.parent / "study.yaml"
    if (folder / REQUEST).is_file():
        return folder / REQUEST
    return study if study.is_file() and (study.parent / "trials" / folder.resolve().name).is_dir() else folder / TRIAL


def asked_of(folder: Path) -> dict[str, Any]:
    """The settings of a student's study, as plain values, with the precision of its teacher and what `distill` kept of its
    weights; nothing where none are there."""
    path = _said_in(folder)
    said = read_yaml(path) if path.is_file() else {}
    if not isinstance(said, dict):
        return {}
    inner = said.get("settings") if path.parent == folder else said
    marks = said.get("fingerprint")
    weights = marks.get("teacher's weights") if isinstance(marks, dict) else None
    return {"precision": said.get("precision"), "teacher's weights": weights, **inner} if isinstance(inner, dict) else {}


def parts_of(source: Source, quantised: bool) -> tuple[Source, Source, Source]:
    """(calibration, choosing, verification), disjoint, by the ids alone; the first two are empty unless ``quantised``."""
    least = VERIFIED + CHOOSING + FEWEST_CALIBRATED if quantised else FEWEST_VERIFIED
    where = f"export on {source.name}/{source.split}"
    if len(source) < least:
        why = (f" ({FEWEST_CALIBRATED} to calibrate, {CHOOSING} to choose on, {VERIFIED} to verify)" if quantised else
               " to verify the file on")
        todo = "Name more: --calibrate DATA" + (", or use --precision float16." if quantised else ".")
        raise UserError(where, f"at least {least} images{why}", f"{len(source)}", todo)
    distinct = len({content_hash(source.image(i)) for i in range(len(source))})
    if distinct < least // 2:
        raise UserError(where, "images that differ", f"{distinct} different ones of {len(source)}",
                        "Name others: --calibrate DATA.")
    order = keyed_rng("export", source.name, source.split).permutation(len(source))
    verified, rest = np.sort(order[:VERIFIED]), order[VERIFIED:]
    chosen, calibrated = rest[:CHOOSING], rest[CHOOSING : CHOOSING + CALIBRATED]
    if not quantised:
        chosen = calibrated = rest[:0]
    return source.take(np.sort(calibrated)), source.take(np.sort(chosen)), source.take(verified)


def pixels_of(source: Source, preprocess: Preprocess) -> np.ndarray:
    """The images at the student's size (n, size, size, 3) uint8, resized and cropped as in training."""
    floats = [preprocess.resize(source.read(range(i, min(i + 64, len(source))))) for i in range(0, len(source), 64)]
    return torch.cat(floats).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def enlarged(source: Source, size: int) -> Source:
    """The same images with their pixels repeated until they are three times ``size``, so that a file has to shrink them."""
    images = []
    for i in range(len(source)):
        image = source.image(i)
        times = -(-(3 * size + 1) // min(image.shape[:2]))
        images.append(image.repeat(times, axis=0).repeat(times, axis=1))
    return replace(source, ids=np.array([f"{name} enlarged" for name in source.ids]), pixels=None, kept=tuple(images))


def raw_batches(source: Source) -> list[np.ndarray]:
    """The images as stored, (1, h, w, 3) uint8 each."""
    return [one_tensor(source.read([i])).permute(0, 2, 3, 1).contiguous().numpy() for i in range(len(source))]
