"""A teacher as studies and audits ask it: rows for the items of a source; an Encoder makes them with a network."""

from __future__ import annotations

import hashlib
import pickle
import re
import textwrap
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from distillscope import progress, registry
from distillscope.config.parts import Teacher
from distillscope.data.decode import Decoding
from distillscope.data.noise import on_input, own_units
from distillscope.data.preprocess import Names, Preprocess, gathered, names_of, ready
from distillscope.data.source import Images, Source
from distillscope.devices import autocast, choose_device
from distillscope.errors import UserError
from distillscope.teachers import cache
from distillscope.teachers.folding import fold_batch_norms

ENCODE_BATCH, ENCODE_PIXELS = 256, 2**20
"""Images, and on a CPU pixels of them as the network takes them, that `encode` gives a network at once, where it is handed
more: 256 of a wide network's first feature maps would fill 10 GiB at 224 px."""

FOLDED = "batch norms folded only where they belong"


class Perturbation(Protocol):
    """What is done to an image before a model sees it: an augmented view, or noise.

    ``where`` is "source" (the stored image, before preprocessing: every model sees the same) or "input" (the model's
    own normalised tensor).
    """

    @property
    def where(self) -> str: ...

    def __call__(self, images: Any, ids: Names) -> Any: ...

    def describe(self) -> dict[str, Any]: ...


class Head(NamedTuple):
    """The linear layer by which a network that was trained to classify makes logits of its embeddings."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, embeddings: np.ndarray) -> NDArray[np.float32]:
        """Logits (n, classes) of embeddings (n, d) as the network gives them.

        >>> Head(np.ones((2, 3), np.float32), np.array([0, 1], np.float32))(np.ones((1, 3), np.float32)).tolist()
        [[3.0, 4.0]]
        """
        found: NDArray[np.float32] = np.asarray(embeddings, np.float32) @ self.weights.T + self.bias
        return found

    @property
    def mark(self) -> str:
        """Names its weights, which the hash of the network below it does not hold."""
        return hashlib.blake2b(self.weights.tobytes() + self.bias.tobytes(), digest_size=8).hexdigest()


class TeacherRows(ABC):
    """A teacher that has rows and no network: it cannot embed views or noisy images. `Encoder` is the one that can.

    A teacher of one's own gives ``name``, ``dim`` (of its embeddings), `describe` and `lookup`; the rest follows.
    """

    name: str
    dim: int
    precision: str = "float32"
    num_parameters: int = 0
    head: Head | None = None
    """Its own classifier, where it has one that takes its embeddings as they are."""
    reading: str = ""
    """What was decided about weights or a file that do not say it themselves, in one line for the user."""
    revised: str = ""
    """What is done otherwise than until 2026-11-28, so that embeddings of before are not taken for the same; mostly nothing."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values that decide the embeddings: they name what is stored, and ``weights`` what is judged together."""

    def lookup(self, source: Source) -> np.ndarray:
        """(n, dim) float32, row i for item i of ``source``; an `Encoder` makes its rows from the images instead."""
        raise UserError(f"teacher {self.name}", "a method `lookup` that gives its rows", "none", "Write one in its class.")

    @property
    def mark(self) -> str:
        """The hash of its weights, and how they are used otherwise than before: what is judged together has the same."""
        weights = str(self.describe().get("weights") or "")
        return f"{weights}, {self.revised}" if weights and self.revised else weights

    @property
    def network(self) -> Encoder | None:
        """What embeds images again; None where there are only rows."""
        return None

    @property
    def place(self) -> str:
        """Where its embeddings are kept, for the user."""
        return self.name

    def rows(self, source: Source, perturbation: Perturbation | None = None, *, label: str | None = None,
             workers: int = 0) -> np.ndarray:
        """Embeddings (n, dim) float32 of every item of a source as ``perturbation`` shows it; ``label`` for the progress."""
        if perturbation is not None:
            raise UserError(f"teacher {self.name}", "a model, since views and noise need new embeddings",
                            "ready-made embeddings", "Leave noise out (noise.sigmas: []) and use arms without a view.")
        return self.lookup(source)

    def rescales(self, perturbation: Perturbation | None) -> bool:
        """Whether noise on its input counts in other units than its own: until 2026-11-28 it was stronger or weaker there."""
        return False

    def num_missing(self, source: Source, perturbation: Perturbation | None = None) -> int:
        """How many images of ``source`` must still be embedded; nothing is."""
        return 0


@dataclass
class Encoder(TeacherRows):
    """A frozen network: ``encode(images)`` gives float32 embeddings (b, dim), not normalised unless ``unit_norm``.

    ``weights_hash`` names the weights. ``unit_norm`` divides by the L2 norm in the network's own precision, as the
    paper does in float16. ``batch_size`` suits a CPU's caches; a GPU wants more.
    """

    name: str
    module: torch.nn.Module
    dim: int
    preprocess: Preprocess
    weights_hash: str
    precision: str = "float32"
    unit_norm: bool = False
    batch_size: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_parameters: int = 0
    reading: str = ""
    revised: str = ""
    head: Head | None = field(default=None, repr=False, compare=False)
    unfolded: int = field(default=0, init=False, repr=False, compare=False)
    """Batch norms beside a convolution that is not theirs, once `to` has looked: older embeddings have them folded into it."""
    decoding: Decoding = field(default_factory=Decoding, repr=False, compare=False)
    """How `encode` reads files and Pillow images: of a student as those that it was distilled on were."""

    role = "teacher"

    def __post_init__(self) -> None:
        self.num_parameters = sum(p.numel() for p in self.module.parameters())  # before batch norms are folded

    def describe(self) -> dict[str, Any]:
        """Everything that decides its embeddings: the key of the cache."""
        return {"name": self.name, "weights": self.weights_hash, "dim": self.dim, "precision": self.precision,
                "unit_norm": self.unit_norm, "preprocess": self.preprocess.describe(),
                **({"unfolded": self.unfolded} if self.unfolded else {})}

    def to(self, device: torch.device, precision: str | None = None) -> Encoder:
        """Move it, make it frozen and fast: eval mode, channels last, batch norms folded into the convolutions."""
        module = self.module.eval().requires_grad_(False)
        self.unfolded = fold_batch_norms(module, lambda: self.preprocess(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))
        if self.unfolded and FOLDED not in self.revised:
            self.revised += f"{'; ' if self.revised else ''}{FOLDED}"
        self.module = module.to(device).to(memory_format=torch.channels_last)
        self.device, self.precision = device, precision or self.precision
        if device.type != "cpu":
            self.batch_size = max(self.batch_size, 256)
        return self

    def rescales(self, perturbation: Perturbation | None) -> bool:
        return isinstance(self.preprocess, Preprocess) and own_units(perturbation, self.preprocess.std) is not None

    @property
    def network(self) -> Encoder:
        """What embeds images again: itself."""
        return self

    @property
    def place(self) -> str:
        """The cache's entry for clean images."""
        return str(cache.entry_path(self, None)[0])

    def rows(self, source: Source, perturbation: Perturbation | None = None, *, label: str | None = None,
             workers: int = 0) -> np.ndarray:
        """Embeddings (n, dim) float32 of every item, from the cache where it has them."""
        return cache.embed(self, source, perturbation, label=label, workers=workers)

    def num_missing(self, source: Source, perturbation: Perturbation | None = None) -> int:
        return cache.missing_rows(self, source, perturbation)

    def encode(self, images: Any, ids: Names | None = None, perturbation: Perturbation | None = None) -> NDArray[np.float32]:
        """Embeddings (b, dim) float32 of ``images`` as stored; NaN or infinity is an error that names the item.

        ``images``: uint8 or floats in [0, 1], as torch (b, 3, h, w) or NumPy (b, h, w, 3) or (b, 3, h, w); PIL images and
        paths, decoded as data sets are; one of them, or a list, of any sizes. Any number: batches are made of them. ``ids``
        name the images in errors and seed a perturbation's draws; paths stand for themselves.
        """
        items = gathered(images)
        names, size = names_of(items, ids), self._at_once()
        with torch.inference_mode():
            found = [self._encode(ready(items[i : i + size], i, self.decoding), names[i : i + size], perturbation)
                     for i in range(0, len(items), size)]
        return found[0] if len(found) == 1 else np.concatenate([np.empty((0, self.dim), dtype=np.float32), *found])

    def _at_once(self) -> int:
        if self.device.type != "cpu" or not isinstance(self.preprocess, Preprocess):
            return max(ENCODE_BATCH, self.batch_size)
        return max(self.batch_size, min(ENCODE_BATCH, ENCODE_PIXELS // self.preprocess.size**2))

    def _encode(self, images: Images, ids: Names, perturbation: Perturbation | None) -> np.ndarray:
        if perturbation is not None and perturbation.where == "source":
            images = perturbation(images, ids)
        if isinstance(images, torch.Tensor):
            images = images.to(self.device)
        inputs = self.preprocess(images).to(self.device)
        if perturbation is not None and perturbation.where == "input":
            inputs = on_input(perturbation, inputs, ids, self.preprocess.std)
        return self._rows_of(inputs, ids)

    @property
    def sees(self) -> Preprocess | None:
        """How clean images may be shown to it in advance, as where they are decoded; None where it takes them as stored."""
        own = type(self)._encode is Encoder._encode
        return self.preprocess if own and isinstance(self.preprocess, Preprocess) else None

    def encode_seen(self, seen: torch.Tensor, ids: Names) -> NDArray[np.float32]:
        """Embeddings (b, dim) float32 of images as ``sees.shown`` gives them, (b, 3, size, size) uint8: those of `encode`."""
        with torch.inference_mode():
            return self._rows_of(self.preprocess.normalise(seen.to(self.device).float().div_(255)), ids)

    def _rows_of(self, inputs: torch.Tensor, ids: Names) -> np.ndarray:
        """Embeddings of what the network takes."""
        with autocast(self.device, self.precision):
            embeddings = self.module(inputs)
            if self.unit_norm:
                embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
        out = embeddings.float().cpu().numpy()
        if not np.isfinite(out).all():
            bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
            raise UserError(f"{self.role} {self.name}", "finite embeddings",
                            f"NaN or infinity for {len(bad)} of {len(out)} images, first {ids[int(bad[0])]}",
                            "Check that image and the weights; with --precision float16 or bfloat16 try float32.")
        return out


def load_teacher(teacher: Teacher, device: str, precision: str | None) -> TeacherRows:
    """The teacher, frozen and on its device; a preset's own precision gives way to what the user asks for.

    "float16_on_cuda" is the notebook's: float16 on a CUDA device, float32 elsewhere.
    """
    found: TeacherRows = registry.teachers.call(teacher.name, teacher.settings, where="teacher")
    if found.network:
        chosen, own = choose_device(device), teacher.precision or "float32"
        if own == "float16_on_cuda":
            own = "float16" if chosen.type == "cuda" else "float32"
        found.network.to(chosen, precision or own)
        if (seen := found.network.preprocess).resize_mode != "shortest":
            said = f"images are {seen.in_words()}"
            found.reading = f"{found.reading}; {said}" if found.reading else f"{found.name}: {said}"
        if found.reading:
            progress.say(found.reading)
    return found


def plain_line(error: Exception) -> str:
    """An error of torch, onnxruntime or a parser in one plain line: its kind and its last line, which gives the reason.

    >>> plain_line(ValueError("Traceback:\\n\\x1b[31mno such layer\\x1b[0m."))
    'ValueError: no such layer'
    """
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = textwrap.shorten(lines[-1], 200, placeholder=" ...").rstrip(".") if lines else ""
    return f"{type(error).__name__}: {reason}".rstrip(": ")


def hash_state(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A hex name for the weights: it changes with any value, name, shape or dtype."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors):
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_state(path: Path | str, where: str = "weights") -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, or from a torch file read without executing anything in it."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(where, "a weights file that exists (.safetensors, .pt, .pth, .bin)", f"'{path}'",
                        "Check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that it may refuse: then it raises
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(where, "safetensors or a plain state dict", f"'{path}' with pickled objects, which are never opened",
                        "Save only model.state_dict(), best as safetensors.") from None
    except Exception as error:  # safetensors, torch and zip each raise their own
        raise UserError(where, "safetensors or a plain state dict (no TorchScript)", f"'{path}' ({plain_line(error)})",
                        "Save it as safetensors, or fetch it again if it was cut short.") from None
    for key in ("state_dict", "model", "module"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(where, "a state dict of tensors", f"'{path}' with other content", "Save model.state_dict().")
    return {k.removeprefix("module."): v for k, v in state.items()}


def load_state(module: torch.nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Strictly: every tensor finds its place, or one line says what does not fit."""
    own = module.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or shapes:
        first = (missing or extra or shapes)[0]
        raise UserError(where, "weights of that architecture",
                        f"{len(missing)} missing, {len(extra)} unknown, {len(shapes)} of another shape (first: {first})",
                        "Name the architecture that the file was made from.")
    module.load_state_dict(state, strict=False)
