"""Models as inputs of an audit: named or in a file, they embed images; teachers and model files go through the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distillscope.config.parts import Teacher, model_file
from distillscope.config.resolve import named_dataset
from distillscope.data.decode import Decoding
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import load_split
from distillscope.inputs.embeddings import Embeddings
from distillscope.inputs.members import strings
from distillscope.inputs.reading import Reading
from distillscope.students.export.load import name_of_weights
from distillscope.students.hub import is_folder, title_of
from distillscope.students.load import load_student
from distillscope.teachers.artefacts import Artefact
from distillscope.teachers.encoder import load_teacher


def embed_model(spec: str, data: str | Source, split: str = "test", *, limit: int | None = None, device: str = "auto",
                precision: str | None = None, workers: int = 0,
                preprocess: Preprocess | Mapping[str, Any] | None = None, shown: str | None = None) -> Embeddings:
    """Embeddings (n, d) float32 of one split of ``data`` by the model ``spec``, with the ids and labels of the images.

    ``preprocess``, whole or only what is known of it (size, mean, std), is for model files, which carry none: what they do not
    say is assumed (224 px or a file's own size, CLIP's mean and std), and a line says so. Every other model keeps its own.
    Loading a TorchScript file runs the program in it, so open only what you trust. ``shown`` is what the reading calls the
    images.
    """
    source = data if isinstance(data, Source) else load_images(data, split, limit, workers=workers)
    name = title_of(spec)
    remarks: tuple[str, ...] = ()
    if is_folder(spec):
        student = load_student(spec, device, precision or "float32")
        weights = name_of_weights(student)
        rows = student.rows(source, label=f"{name}, {source.name}/{split}", workers=workers)
        remarks = _otherwise(student.decoding, source)
    else:
        encoder = load_teacher(model_teacher(spec, preprocess), device, precision)
        rows = encoder.rows(source, label=f"{name}, {source.name}/{split}", workers=workers)
        remarks = (encoder.reading.partition(": ")[2],) if encoder.reading else ()
        own = encoder.network
        remarks += _otherwise(own.decoding, source) if isinstance(own, Artefact) else ()
        weights = own.facts.weights_hash if isinstance(own, Artefact) else own.weights_hash if own else ""
    labels, images = source.labels, shown or f"{source.name}/{split}"
    count, dims = rows.shape
    reading = Reading(spec, "the model's output", count, dims, images, None if labels is None else images, remarks=remarks,
                      unlabelled=0 if labels is None else int(np.ma.getmaskarray(labels).sum()), weights=weights)
    return Embeddings(rows, strings(source.ids, f"{source.name}/{split} ids"), source.labels, name, reading,
                      named=True)


def _otherwise(known: Decoding, source: Source) -> tuple[str, ...]:
    """What is said where the images are decoded in another way than those that the student was distilled on.

    >>> _otherwise(Decoding("black"), Source("a", "test", np.array(["0"]), lambda i: None, decoding=Decoding()))
    ('the student was distilled on images decoded with background: black, and these are with background: white',)
    """
    if source.decoding is None:
        return ()
    differ = [k for k in ("background", "exif") if getattr(known, k) != getattr(source.decoding, k)]
    learned, now = (", ".join(f"{k}: {str(getattr(one, k)).lower()}" for k in differ) for one in (known, source.decoding))
    return (f"the student was distilled on images decoded with {learned}, and these are with {now}",) if differ else ()


def load_images(data: str, split: str, limit: int | None, corrupt: str = "error", option: str = "--split",
                workers: int = 0) -> Source:
    """One split of the data set, folder or file that ``data`` names; ``option`` is how the command calls a split."""
    part = named_dataset(data)
    return load_split(part.name, part.settings, split, limit, corrupt, option, workers=workers)


def model_teacher(spec: str, preprocess: Preprocess | Mapping[str, Any] | None) -> Teacher:
    """The registered teacher that ``spec`` stands for; ``preprocess`` counts for a model file only."""
    found = model_file(spec)
    if found is None:
        return Teacher.model_validate(spec)
    given = preprocess.describe() if isinstance(preprocess, Preprocess) else preprocess or {}
    return Teacher.model_validate({**found, **given})
