"""A distilled student: saved with its preprocessing and its model card, loaded ready to use."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distillscope import progress
from distillscope.config.parts import DESCRIPTION, HUB, WEIGHTS, on_hub
from distillscope.data.decode import Decoding, files_in, is_image
from distillscope.data.preprocess import Preprocess, gathered
from distillscope.data.source import Source, read_batches
from distillscope.devices import kept_memory
from distillscope.errors import UserError
from distillscope.files.folders import refuse_archive, room
from distillscope.files.writing import write_atomic, write_json
from distillscope.registry import students
from distillscope.students.card import OTHER, OWN
from distillscope.students.description import AGAIN, Description, read_description, stored_shapes
from distillscope.students.hub import named_by_hub, pretrained_name, push, student_folder, write_pretrained
from distillscope.students.networks import HIDDEN, Transform, own_network
from distillscope.teachers.encoder import Encoder, Perturbation, hash_state, load_state, read_state

MOST_PARAMETERS = 2_000_000_000


@dataclass
class StudentEncoder(Encoder):
    """An Encoder that was distilled, with what is needed to build it again (``described``)."""

    described: dict[str, Any] | None = None
    role = "student"

    def rows(self, source: Source, perturbation: Perturbation | None = None, *, label: str | None = None,
             workers: int = 0) -> np.ndarray:
        """Embeddings (n, dim) float32 of every item, with a line of progress; the cache keeps teachers only."""
        with progress.task(label or f"student {source.name}/{source.split}", len(source)) as advance:
            return self.embed_source(source, perturbation, advance, workers=workers)

    def embed(self, images: Any, *, batch_size: int = 256) -> NDArray[np.float32]:
        """Embeddings (n, dim) float32 of images of any kind and number, read a batch at a time, with a line of progress.

        A `Source`, paths, Pillow images, encoded bytes, NumPy arrays or tensors (uint8, or floats in [0, 1]), one or many,
        also as a column of a data frame; a folder stands for all images below it, in the order of their paths. Nothing else is
        asked for. An image that cannot be decoded is a `UserError` that names it.
        """
        if batch_size < 1:
            raise UserError(f"student {self.name} batch_size", "a whole number of at least 1", f"{batch_size}", "256 is usual.")
        if isinstance(images, Source):
            return self.rows(images)
        held = gathered(_files_below(Path(images)) if isinstance(images, (str, Path)) and Path(images).is_dir() else images)
        found = [np.empty((0, self.dim), np.float32)]
        self.module.eval()
        with progress.task(f"student {self.name}", len(held)) as advance:
            for start in range(0, len(held), batch_size):
                found.append(self.encode(held[start : start + batch_size]))
                advance(len(found[-1]))
        return np.concatenate(found)

    def save_pretrained(self, folder: Path | str, *, audit: Any = None, artefacts: Sequence[Path | str] = (),
                        licence: str = OTHER) -> None:
        """Write the student and its card into ``folder``, which `load_student` and `from_pretrained` take.

        ``audit`` of this student (a file of ``distillscope audit --json``, or what `distillscope.audit` gave) goes into the
        card, and into its metadata as a model-index; ``artefacts``, files that were exported from this student, go along.
        ``licence`` is an identifier of the Hub. Everything is checked before anything is written.
        """
        write_pretrained(self, Path(folder), str(folder), audit=audit, artefacts=artefacts, licence=licence)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None,
                    commit_message: str = "A student by distillscope", revision: str | None = None, branch: str | None = None,
                    create_pr: bool = False, audit: Any = None, artefacts: Sequence[Path | str] = (),
                    licence: str = OTHER) -> str:
        """What `save_pretrained` writes, as one commit to ``owner/name`` on the Hugging Face Hub; gives the commit's address.

        The repository is made where there is none, ``private`` where that is said; so is ``revision``, a branch (``branch`` is
        the same). ``token``: by default that of `hf auth login` or HF_TOKEN. What the Hub refuses is a `UserError`.
        """
        return push(self, repo_id, private=private, token=token, message=commit_message, revision=revision or branch,
                    create_pr=create_pr, audit=audit, artefacts=artefacts, licence=licence)

    @classmethod
    def from_pretrained(cls, name_or_path: Path | str, *, revision: str | None = None, token: str | bool | None = None,
                        device: str = "auto", precision: str = "float32",
                        module: torch.nn.Module | None = None) -> StudentEncoder:
        """`load_student`, of a folder or of ``owner/name`` on the Hub at a ``revision`` (a branch, a tag or a commit)."""
        return load_student(pretrained_name(name_or_path, revision), device, precision, module=module, token=token)

    def fit(self, images: Any = None, labels: Any = None) -> StudentEncoder:
        """Itself, since it is trained: for scikit-learn's pipelines."""
        return self

    def transform(self, images: Any) -> NDArray[np.float32]:
        """`embed`, as scikit-learn calls it."""
        return self.embed(images)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names (dim,) of the embedding's columns."""
        return np.array([f"embedding_{i}" for i in range(self.dim)], dtype=object)

    def __sklearn_clone__(self) -> StudentEncoder:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @kept_memory()
    def embed_source(self, source: Source, perturbation: Perturbation | None = None,
              advance: Callable[[int], None] | None = None, batch_size: int = 256, workers: int = 0) -> np.ndarray:
        """Embeddings (n, dim) float32 of every item, in evaluation mode."""
        was_training = self.module.training
        self.module.eval()
        out = room((len(source), self.dim))
        batches = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
        for indices, images in read_batches(source, batches, workers):
            out[indices] = self.encode(images, source.ids[indices], perturbation)
            if advance:
                advance(len(indices))
        self.module.train(was_training)
        return out


def _files_below(folder: Path) -> list[Path]:
    """The image files in a folder and in those below it, as every command finds them, in the order of their paths."""
    found = sorted(path for path in files_in(folder) if is_image(path.name))
    if not found:
        raise UserError(f"embed {folder}", "a folder with images", "none", "Name another.")
    return found


@contextmanager
def _named(where: str) -> Iterator[None]:
    """What does not fit is said with the file that it stands in."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}, {error.where}", error.expected, error.got, AGAIN) from None


def build_student(name: str, settings: dict[str, Any], embedding_dim: int, preprocess: Preprocess, label: str,
                  device: torch.device, precision: str = "float32") -> StudentEncoder:
    """A student with fresh weights, on its device."""
    try:
        module = students.call(name, settings, embedding_dim, preprocess.size, where=f"student {label}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            raise
        raise UserError(f"student {label}", "a network that fits into memory", str(error).splitlines()[0][:120],
                        "Make it smaller.") from None
    module = module.to(device=device, memory_format=torch.channels_last)
    settings = {"hidden": HIDDEN, **settings} if name == "paper_cnn" else settings
    described = {"name": name, "settings": settings, "embedding_dim": embedding_dim, "preprocess": preprocess.describe()}
    return StudentEncoder(label, module, embedding_dim, preprocess, "", precision, device=device, described=described)


def build_own(body: torch.nn.Module, embedding_dim: int, preprocess: Preprocess, label: str, device: torch.device,
              precision: str = "float32") -> StudentEncoder:
    """A student of a copy of the caller's own network, projected to ``embedding_dim`` where it gives another dimension."""
    module = own_network(copy.deepcopy(body).cpu(), preprocess.size, embedding_dim, label)
    module = module.to(device).to(memory_format=torch.channels_last)
    described = {"name": OWN, "settings": {}, "embedding_dim": embedding_dim, "preprocess": preprocess.describe()}
    return StudentEncoder(label, module, embedding_dim, preprocess, "", precision, device=device, described=described)


def check_student(name: str, settings: dict[str, Any], image_size: int, label: str) -> torch.nn.Module | None:
    """Build it once, on no device and from no random stream, so that a wrong value is said before any work starts.

    Gives what was built, or None where whether it fits depends on the teacher's dimension.
    """
    if settings.get("projection") == "none":
        return None
    with torch.random.fork_rng(devices=[]):
        offline = {**settings, **({"pretrained": False} if "pretrained" in settings else {})}
        drawn = outline(name, offline, 8, image_size, label)
        return students.call(name, offline, 8, image_size, where=f"student {label}") if drawn is None else drawn


def outline(name: str, settings: dict[str, Any], embedding_dim: int, image_size: int, label: str) -> torch.nn.Module | None:
    """The network with its shapes and without any memory; None for one that cannot be built so.

    More than two billion parameters are refused.
    """
    try:
        with torch.device("meta"):
            module = students.call(name, settings, embedding_dim, image_size, where=f"student {label}")
    except UserError as error:
        if "meta" in error.got:
            return None
        raise
    except Exception:  # a network of one's own may compute with numbers while it is built; what is wrong with it then shows
        return None
    count = sum(p.numel() for p in module.parameters())
    if count > MOST_PARAMETERS:
        raise UserError(f"student {label}", f"a network of at most {MOST_PARAMETERS:,} parameters", f"{count:,}",
                        "Make it smaller.")
    return module


def _check_shapes(module: torch.nn.Module | None, described: Description, shapes: dict[str, torch.Size], where: str) -> None:
    """Compare an outline with what the head of the weights' file says, before any memory is taken for either."""
    if module is None:
        return
    with torch.device("meta"):
        last = described.last()
        module = module if last is None else torch.nn.Sequential(module, last)
        load_state(module, {name: torch.empty(shape) for name, shape in shapes.items()}, where)


def save_student(student: StudentEncoder, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """weights.safetensors, and student.json with all that `load_student` needs."""
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in student.module.state_dict().items()}
    write_atomic(folder / WEIGHTS, lambda p: save_file(state, p))
    read = {k: getattr(student.decoding, k) for k in ("background", "exif")}
    own = {"decoding": read} if student.decoding != Decoding() else {}
    write_json(folder / DESCRIPTION, {**(student.described or {}), "label": student.name, **own,
                                      "weights_hash": hash_state(state.items()), **(extra or {})})


def with_transform(student: StudentEncoder, last: Transform) -> StudentEncoder:
    """A copy of the student whose embeddings go through ``last``, which is stored with its weights."""
    module = torch.nn.Sequential(copy.deepcopy(student.module), last.to(student.device)).eval()
    dim = len(last.mean) if last.matrix is None else last.matrix.shape[-1]
    described = {**(student.described or {}), "transform": last.describe()}
    return replace(student, module=module, dim=dim, weights_hash="", described=described)


def load_student(folder: Path | str, device: str = "auto", precision: str = "float32", *,
                 module: torch.nn.Module | None = None, token: str | bool | None = None) -> StudentEncoder:
    """The student that a folder holds, in evaluation mode: ``load_student(DIR).encode(images)``.

    ``folder`` is what `distillscope distill --out` wrote, one trial of a study, or ``hf-hub:owner/name[@revision]`` on the
    Hub (with ``token``). ``module``, with any weights, for a student that was made of a caller's own network
    (`distillscope.distill`); it is copied. ``device``: "auto", "cpu", "cuda", ...; ``precision``: of the network, "float32",
    "bfloat16" or "float16". A folder without a student, and weights that are not its own, are a `UserError`.

    >>> import tempfile
    >>> folder, preprocess = Path(tempfile.mkdtemp()), Preprocess(16)
    >>> save_student(build_student("paper_cnn", {}, 24, preprocess, "S", torch.device("cpu")), folder)
    >>> load_student(folder, "cpu").encode(np.zeros((2, 40, 50, 3), np.uint8)).shape
    (2, 24)
    """
    from distillscope.devices import choose_device

    if on_hub(folder) is not None:
        fetched = student_folder(folder, token)
        with named_by_hub(folder, fetched):
            return load_student(fetched, device, precision, module=module)
    folder = student_folder(folder)
    description = folder / DESCRIPTION
    if not description.is_file():
        refuse_archive(folder, f"student {folder}")
        trials = sorted(folder.glob(f"trials/*/{DESCRIPTION}"))
        todo = f"Name a trial, for instance {trials[0].parent}." if trials else "Name what `distillscope distill --out` wrote."
        if not folder.exists() and re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(folder)):
            todo = f"{todo.removesuffix('.')}, or on the Hub {HUB}{folder}."
        raise UserError(f"student {folder}", f"a folder with {DESCRIPTION} and {WEIGHTS}", "none there", todo)
    described, written = read_description(description)
    weights, label = folder / WEIGHTS, described.label or described.name
    before = {"hidden": "target"} if described.name == "paper_cnn" else {}  # what a student that does not say was built with
    settings = {**before, **described.settings, **({"pretrained": False} if "pretrained" in described.settings else {})}
    preprocess = described.seen(str(description))
    chosen, shapes = choose_device(device), stored_shapes(weights)
    if (described.name == OWN) != (module is not None):
        raise UserError(f"student {folder}", *(("no module, since it says what it is built of", "one", "Leave it out.")
                                               if module is not None else
                                               ("the network that it was made of, which is no part of this package or of timm",
                                                "none", f"In Python: load_student({str(folder)!r}, module={label}()).")))
    if module is not None:
        student = build_own(module, described.embedding_dim, preprocess, label, chosen, precision)
    else:
        with _named(str(description)):
            drawn = outline(described.name, settings, described.embedding_dim, preprocess.size, label)
        _check_shapes(drawn, described, shapes, str(weights))
        with _named(str(description)):
            student = build_student(described.name, settings, described.embedding_dim, preprocess, label, chosen, precision)
    last = described.last()
    student = student if last is None else with_transform(student, last)
    state = read_state(weights, str(weights))
    if not described.weights_hash:
        progress.say(f"{description}: has no weights_hash, so we cannot tell whether {WEIGHTS} is this student's")
    elif hash_state(state.items()) != described.weights_hash:
        raise UserError(str(weights), f"the weights that {DESCRIPTION} was written with "
                        f"(weights_hash {described.weights_hash[:12]})", "others", AGAIN)
    load_state(student.module, state, str(weights))
    student.described, student.weights_hash = written, described.weights_hash
    with _named(str(description)):
        student.decoding = Decoding(described.decoding.background, described.decoding.exif)
    student.module.eval()
    return student
