"""What a model file may have to be told of its preprocessing: read from the command line, refused where no file takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillscope.config.parts import INTERPOLATIONS, model_file
from distillscope.errors import UserError, unknown_name

SIDES = ("teacher", "student", "artefact")
SHOWN = {"size": "--image-size", "mean": "--mean", "std": "--std", "interpolation": "--interpolation",
         "crop_fraction": "--crop"}
"""What a model file may have to be told of its preprocessing -> the option."""


def file_preprocess(size: str | int | None = None, mean: str | None = None, std: str | None = None,
                    interpolation: str | None = None, crop_fraction: str | None = None) -> dict[str, Any] | None:
    """What model files are shown, from the command line's texts: only what is set; None where nothing is.

    >>> file_preprocess(None, "0.5,0.5,0.5", None)
    {'mean': (0.5, 0.5, 0.5)}
    """
    told = {"size": None if size is None else _whole("--image-size", str(size)),
            "mean": None if mean is None else _three("--mean", mean),
            "std": None if std is None else _three("--std", std),
            "interpolation": None if interpolation is None else _interpolation(interpolation),
            "crop_fraction": None if crop_fraction is None else _share("--crop", crop_fraction)}
    return {key: value for key, value in told.items() if value is not None} or None


def sided_preprocess(**texts: list[str] | None) -> dict[str, dict[str, Any]]:
    """The same for each side: a text may begin with the side that it is for; without one it is for teacher and student.

    >>> sided_preprocess(size=["224", "student:32"], mean=None)
    {'teacher': {'size': 224}, 'student': {'size': 32}}
    """
    found: dict[str, dict[str, str]] = {}
    for key, given in texts.items():
        split = [(side if colon and side in SIDES else "", rest if colon and side in SIDES else text)
                 for text in given or [] for side, colon, rest in [text.partition(":")]]
        for side, text in split:
            for one in (side,) if side else SIDES[:2]:
                if side or not any(other == one for other, _ in split):
                    if key in found.get(one, {}):
                        raise UserError(SHOWN[key], "one value per side", f"'{found[one][key]}' and '{text}'",
                                        f"For instance {SHOWN[key]} teacher:{text}.")
                    found.setdefault(one, {})[key] = text
    return {side: file_preprocess(**given) or {} for side, given in found.items()}


def _interpolation(text: str) -> str:
    if text not in INTERPOLATIONS:
        raise unknown_name("--interpolation", "interpolation", text, INTERPOLATIONS)
    return text


def _whole(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(option, "what the file sees, in pixels", text, f"Set {option} 224.")
    return int(text)


def _share(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UserError(option, "the share of the shorter side that the crop keeps, above 0 and up to 1", f"'{text}'",
                        f"For instance {option} 0.875.")
    return value


def _three(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or (option == "--std" and min(values) <= 0):
        raise UserError(option, "three numbers, one per channel" + (", above 0" if option == "--std" else ""), f"'{text}'",
                        f"For instance {option} 0.5,0.5,0.5.")
    return values


def refuse_unused(preprocess: Mapping[str, dict[str, Any]], sides: Mapping[str, Sequence[str | None]]) -> None:
    """Refuse a preprocessing option where no side is a model file: named models and students' folders bring their own."""
    takes = {side: any(spec is not None and model_file(spec) for spec in specs) for side, specs in sides.items()}
    for key in dict.fromkeys(key for said in preprocess.values() for key in said):
        told = [side for side, said in preprocess.items() if key in said]
        if not any(takes[side] for side in told):
            raise UserError(SHOWN[key], "a model file, whose preprocessing is not known",
                            f"none as {' or '.join(told)}: names, students' folders and embeddings bring their own",
                            "Leave it out.")
