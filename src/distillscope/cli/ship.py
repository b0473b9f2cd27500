"""Commands that take a student to a device: export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from distillscope.cli.root import Json, JsonAfterFolders, app, print_table, put_json


@app.command(cls=JsonAfterFolders)
def export(
    student: Annotated[Path, typer.Argument(metavar="DIR", help="a distilled student's folder")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the file to write")],
    to: Annotated[str, typer.Option(help="runtime: onnx")] = "onnx",
    precision: Annotated[str, typer.Option(metavar="float32|float16")] = "float32",
    input_: Annotated[str, typer.Option("--input", metavar="sized|raw", help="images at the student's size, or of any, "
                                                                             "resized in the file as in training")] = "sized",
    calibrate: Annotated[str | None, typer.Option(metavar="DATA", help="images to verify on "
                                                                        "[default: those it was distilled on]")] = None,
    split: Annotated[str, typer.Option(help="split of --calibrate")] = "train",
    licence: Annotated[str | None, typer.Option(help="what the metadata say of it")] = None,
    json_: Json = None,
) -> None:
    """Export a student to one file with its preprocessing inside: uint8 images (b, h, w, 3) in, float32 embeddings out.

    Nothing is written that was not verified: 256 images go through the file's own runtime and through the network.

    Examples:

    - `distillscope export student --out student.onnx`
    - `distillscope export student --precision float16 --input raw --out student.onnx`
    """
    from distillscope.students.export.write import LICENCE, export_student

    found = export_student(student, out, to=to, precision=precision, input=input_, calibrate=calibrate, split=split,
                           licence=licence or LICENCE)
    if put_json(json.dumps([made.plain() for made in found], indent=2) if json_ else "", json_):
        return
    rows = [(made.path.name, f"{made.size_bytes / 1000:,.1f}", made.batch or "any", f"{made.agreement.mean:.6f}",
             f"{made.agreement.worst:.6f}") for made in found]
    print_table(f"{precision}, {len(found[0].agreement.ids)} images of {found[0].images} through the file and the network",
                ["file", "kB", "batch", "mean cosine", "worst"], rows)
