"""Teachers of open_clip: image towers, shown images as open_clip itself shows them, and class names through text towers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.registry import teachers
from distillscope.teachers.encoder import Encoder, hash_state, load_state, read_state
from distillscope.teachers.models import activation_read


class _ImageTower(torch.nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.visual = clip.visual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)


@teachers.register("open_clip")
def open_clip(*, model: str, weights: Path | None = None, unit_norm: bool = False) -> Encoder:
    """Any open_clip image tower: `open_clip/ViT-B-32:openai` or ARCHITECTURE with a local weights file (extra open-clip)."""
    clip = load_clip(model, weights)
    tower, notes = _ImageTower(clip), []
    preprocess, said = _clip_sees(model, clip, weights is not None)
    if weights is not None:
        notes = [n for n in (activation_read(model, f"{model}-quickgelu", _clip_models()), said) if n]
    before = Preprocess(preprocess.size, tuple(clip.visual.image_mean), tuple(clip.visual.image_std))
    return Encoder(f"open_clip/{model}", tower, clip.visual.output_dim, preprocess, hash_state(tower.state_dict().items()),
                   unit_norm=unit_norm, reading=f"open_clip/{model}: {'; '.join(notes)}" if notes else "",
                   revised="" if preprocess == before else "images as open_clip shows them")


def _clip_sees(model: str, clip: Any, from_file: bool) -> tuple[Preprocess, str]:
    """What open_clip shows an image tower; and, of weights in a file, which do not say it, what was taken for theirs."""
    known, said = _clip_config(clip), ""
    if from_file:
        known, said = _clip_config_by_name(model, known)
    where, size = f"teacher open_clip/{model}", clip.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    mode, fill = known["resize_mode"], known["fill_color"]
    if height != width or (mode == "longest" and fill != 0):
        raise UserError(where, "a model that takes square images, with a black border if any",
                        f"{height} x {width} px, resize_mode {mode}, fill_color {fill}",
                        "Pass it in Python with its own transform: distill(MODULE, ..., teacher_preprocess=TRANSFORM).")
    interpolation = "bilinear" if known["interpolation"] == "bilinear" else "bicubic"  # "random" is bicubic when embedding
    return Preprocess(height, tuple(known["mean"]), tuple(known["std"]), interpolation, 1.0, mode), said


def _clip_config(clip: Any) -> dict[str, Any]:
    """The preprocess config of a model as open_clip made it; what it does not say is open_clip's default."""
    plain = {"mean": clip.visual.image_mean, "std": clip.visual.image_std, "interpolation": "bicubic",
             "resize_mode": "shortest", "fill_color": 0}
    own = getattr(clip.visual, "preprocess_cfg", None) or {}
    return {key: own.get(key) or value for key, value in plain.items()}


def _clip_config_by_name(model: str, plain: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """That of the tag, or of all published weights of the architecture if they agree, else the default; and which, in words."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    default, found = _config_text(plain), dict[str, tuple[dict[str, Any], list[str]]]()
    architecture, _, named = model.partition(":")
    for tag in [named] if named else list_pretrained_tags_by_model(architecture):
        told = get_pretrained_cfg(architecture, tag)
        config = {key: told.get(key) or value for key, value in plain.items()}
        found.setdefault(_config_text(config), (config, []))[1].append(tag)
    if len(found) == 1 and default not in found:
        (text, (config, _)), = found.items()
        return config, f"images shown as to the published weights ({text})"
    others = ", ".join(tag for text, (_, tags) in found.items() if text != default for tag in tags)
    return plain, f"images shown as open_clip's default ({default}), which the weights {others} are not for" if others else ""


def _config_text(config: Mapping[str, Any]) -> str:
    mean, std = (tuple(round(float(v), 4) for v in config[key]) for key in ("mean", "std"))
    return f"mean {mean}, std {std}, {config['interpolation']}, resize_mode {config['resize_mode']}"


def _clip_models() -> Sequence[str]:
    import open_clip as library

    return library.list_models()


def load_clip(model: str, weights: Path | None = None) -> Any:
    """Both towers of an open_clip model, ``ARCHITECTURE:TAG`` from the Hub or ARCHITECTURE with a local file."""
    try:
        import open_clip as library
    except ImportError:
        raise UserError(f"teacher open_clip/{model}", "the package open_clip_torch", "not installed",
                        "pip install 'distillscope[open-clip]'.") from None
    architecture, _, tag = model.partition(":")
    where = f"teacher open_clip/{model}"
    if architecture not in library.list_models():
        raise UserError(where, "an architecture that open_clip knows", f"'{architecture}'",
                        f"Known: {', '.join(library.list_models()[:8])}, ...")
    if weights is None and not tag:
        raise UserError(where, "ARCHITECTURE:WEIGHTS or a local weights file", f"'{model}'",
                        f"For instance open_clip/{architecture}:openai.")
    # OpenAI's weights were trained with QuickGELU, which open_clip switches on by the tag; a local file has no tag.
    quick = {"force_quick_gelu": True} if tag == "openai" else {}
    before = logging.root.manager.disable
    if weights is not None:
        logging.disable(logging.WARNING)  # it says that the weights are random, which are read from the file below
    try:
        clip = library.create_model(architecture, pretrained=None if weights else tag, **quick)
    except Exception as error:
        raise UserError(where, "weights from the Hub, or a local file", type(error).__name__,
                        f"Go online once, or name a file: open_clip/{architecture}:FILE.safetensors.") from None
    finally:
        logging.disable(before)
    if weights is not None:
        load_state(clip, read_state(weights, f"{where} weights"), f"{where} weights {weights}")
    return clip


@torch.inference_mode()
def class_text(model: str, class_names: Sequence[str], weights: Path | None = None,
               template: str = "a photo of a {}.") -> np.ndarray:
    """Embeddings (classes, d) float32 of the class names by an open_clip model's text tower, for zero-shot accuracy.

    One prompt a class, Radford et al. (2021)'s plain one; their ensembles of prompts read a few points higher.
    """
    import open_clip as library

    clip = load_clip(model, weights).eval()
    prompts = [template.format(name.replace("_", " ")) for name in class_names]
    return clip.encode_text(library.get_tokenizer(model.partition(":")[0])(prompts)).float().numpy()
