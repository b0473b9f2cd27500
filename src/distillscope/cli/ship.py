"""Commands that take a student to a device, or to the Hub: export, bench, push."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from distillscope.cli.root import Json, JsonAfterFiles, JsonAfterFolders, app, print_table, put_json
from distillscope.progress import tell


@app.command(cls=JsonAfterFolders)
def export(
    student: Annotated[str, typer.Argument(metavar="DIR", help="a distilled student's folder, or hf-hub:owner/name")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the file to write")],
    to: Annotated[str, typer.Option(metavar="onnx|openvino|executorch|litert|coreml")] = "onnx",
    precision: Annotated[str, typer.Option(metavar="float32|float16|int8")] = "float32",
    input_: Annotated[str, typer.Option("--input", metavar="sized|raw", help="images at the student's size, or of any, "
                                                                             "resized in the file as in training")] = "sized",
    calibrate: Annotated[str | None, typer.Option(metavar="DATA", help="images to calibrate int8 and to verify "
                                                                        "on [default: those it was distilled on]")] = None,
    split: Annotated[str | None, typer.Option(help="split of --calibrate [default: train]")] = None,
    corrupt: Annotated[str | None, typer.Option(metavar="error|skip", help="images of --calibrate that cannot be decoded: "
                                                                            "stop, or skip them [default: error]")] = None,
    min_cosine: Annotated[float | None, typer.Option(help="int8: mean cosine to the network that the file must keep "
                                                          "[default: 0.99]")] = None,
    qat: Annotated[bool, typer.Option("--qat", help="int8: first fine-tune the weights for rounding")] = False,
    qat_steps: Annotated[int | None, typer.Option(help="of 32 images, with --qat [default: 300]")] = None,
    licence: Annotated[str | None, typer.Option(help="licence written into the metadata")] = None,
    json_: Json = None,
) -> None:
    """Export a student to one file with its preprocessing inside: uint8 images (b, h, w, 3) in, float32 embeddings out.

    The file is verified before it is written: up to 256 images go through its own runtime and through the network.

    In int8 the ranges come from the images, methods are compared on others, and layers that hurt stay in float32.

    Examples:

    - `distillscope export student --out student.onnx`
    - `distillscope export student --precision int8 --min-cosine 0.995 --out student.int8.onnx`
    - `distillscope export student --precision int8 --qat --min-cosine 0.9999 --out student.int8.onnx`
    - `distillscope export student --precision float16 --input raw --out student.onnx`
    """
    from distillscope.students.export.quantise import BoundMissed
    from distillscope.students.export.write import LICENCE, export_student

    try:
        found = export_student(student, out, to=to, precision=precision, input=input_, calibrate=calibrate, split=split,
                               corrupt=corrupt, min_cosine=min_cosine, qat=qat, qat_steps=qat_steps,
                               licence=licence or LICENCE)
    except BoundMissed as error:
        _print_tried("What int8 gives at each size (images for choosing)", error.frontier)
        raise
    if put_json(json.dumps([made.plain() for made in found], indent=2) if json_ else "", json_):
        return
    if "tried" in found[0].decided:
        counts = found[0].decided["num_images"]
        title = f"int8 (* chosen): ranges from {counts['calibration']} images, cosine on {counts['choosing']} others"
        _print_tried(title, [{**way, "chosen": way == found[0].decided["chosen"]} for way in found[0].decided["tried"]])
    if "fine_tuning" in found[0].decided:
        _print_tuning(found[0].decided["fine_tuning"], found[0].images, len(found[0].agreement.ids))
    rows = [(made.path.name, f"{made.size_bytes / 1000:,.1f}", made.batch or "any", f"{made.agreement.mean:.6f}",
             f"{made.agreement.worst:.6f}", f"{made.agreement.r2:.6f}") for made in found]
    not_run = found[0].decided.get("not_run")
    print_table(f"{'Its source verified' if not_run else 'Verified'} on {len(found[0].agreement.ids)} images of "
                f"{found[0].images}: cosine to the network", ["file", "kB", "batch", "mean", "worst", "R²"], rows)
    if not_run:
        tell(f"{found[0].path.name}: {not_run}")


def _print_tuning(tuning: dict[str, Any], images: str, count: int) -> None:
    """What the tuning won, all layers in int8."""
    kept = "kept" if tuning["kept"] else "not kept, since it was no better on the images for choosing"
    rows = [(line["numbers"], f"{line['mean_cosine']:.6f}", f"{line['worst_cosine']:.6f}",
             "" if line["teacher_cosine"] is None else f"{line['teacher_cosine']:.5f}") for line in tuning["figures"]]
    print_table(f"Fine-tuned ({kept}): {tuning['said']}; cosines on {count} others of {images}",
                ["numbers", "mean", "worst", "to teacher"], rows)
    if tuning["without_teacher"]:
        tell(f"no cosine to the teacher ({tuning['without_teacher']})")


def _print_tried(title: str, ways: list[dict[str, Any]]) -> None:
    """A row for each way to quantise, the chosen one marked."""
    rows = [(way["method"] + (" *" if way.get("chosen") else ""), way["weight_bits"], ", ".join(way["in_float"]) or "none",
             f"{way['mean_cosine']:.5f}", f"{way['worst_cosine']:.5f}", f"{way['bytes'] / 1000:,.1f}",
             f"{way['times_smaller']:.2f}x") for way in ways]
    print_table(title, ["ranges", "bits", "in float32", "mean", "worst", "kB", "smaller"], rows)


@app.command(cls=JsonAfterFiles)
def bench(
    models: Annotated[list[str], typer.Argument(metavar="FILE_OR_DIR...",
                                                help="exported files, and students' folders or names on the Hub")],
    threads: Annotated[str, typer.Option(metavar="N,N", help="numbers of threads")] = "1",
    batch: Annotated[str, typer.Option(metavar="N,N", help="images per call")] = "1,32",
    seconds: Annotated[float, typer.Option(help="to time each model, batch and number of threads")] = 1.0,
    json_: Json = None,
) -> None:
    """Time students and exported files in turn: pixel values in, embeddings out.

    Times are per call. "times" is the speed relative to the first model; MiB is what loading and calling it adds to a
    process at its peak. Other work on the machine slows everything down.

    Examples:

    - `distillscope bench student student.onnx student.int8.onnx`
    - `distillscope bench student student.onnx --threads 1,2 --batch 1,32`
    """
    from distillscope.provenance import hardware
    from distillscope.students.export.bench import bench as timed
    from distillscope.students.export.bench import int8_instructions
    from distillscope.students.hub import title_of

    found = timed(models, threads=_numbers("--threads", threads), batches=_numbers("--batch", batch), seconds=seconds)
    machine = f"{hardware()}; {int8_instructions()}"
    if put_json(json.dumps({"machine": machine, "timings": [t.plain() for t in found]}, indent=2) if json_ else "", json_):
        return
    tell(machine)
    for count, size in dict.fromkeys((t.threads, t.batch) for t in found):
        rows = [(title_of(t.name), t.precision, f"{t.median_ms:.2f}", f"{t.p90_ms:.2f}", f"{t.images_per_second:,.0f}",
                 f"{t.ratio:.2f}", f"{t.size_bytes / 1000:,.0f}", "" if t.peak_mib is None else f"{t.peak_mib:.0f}")
                for t in found if (t.threads, t.batch) == (count, size)]
        print_table(f"batch {size}, {count} thread{'s' if count > 1 else ''}",
                    ["model", "numbers", "ms", "p90", "images/s", "times", "kB", "MiB"], rows)


@app.command()
def push(
    student: Annotated[str, typer.Argument(metavar="DIR", help="a distilled student's folder")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="a repository on the Hugging Face Hub; created if missing")],
    audit: Annotated[Path | None, typer.Option(metavar="FILE.json", help="what `audit --json` wrote for this student")] = None,
    artefact: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="an exported file of it to include; "
                                                                              "repeatable")] = None,
    licence: Annotated[str | None, typer.Option(metavar="NAME", help="the Hub's name for it [default: other]")] = None,
    private: Annotated[bool | None, typer.Option("--private/--public", help="of a new repository [default: the "
                                                                            "owner's default]")] = None,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="created if missing [default: main]")] = None,
    message: Annotated[str, typer.Option(help="of the commit")] = "A student by distillscope",
) -> None:
    """Push a student to the Hugging Face Hub: weights, description and model card, as one commit.

    The card holds the audit's figures, also as the Hub's model-index, and code that uses the student, with an .onnx file by
    NumPy, Pillow and ONNX Runtime alone. Log in with `hf auth login`, or set HF_TOKEN.

    Examples:

    - `distillscope push student ann/digits-student --private`
    - `distillscope push student ann/digits-student --audit audit.json --artefact student.onnx --licence apache-2.0`
    """
    from distillscope.students.card import OTHER
    from distillscope.students.hub import spec_of
    from distillscope.students.load import load_student

    found = load_student(student, "cpu")
    address = found.push_to_hub(repo, private=private, commit_message=message, revision=revision, audit=audit,
                                artefacts=artefact or [], licence=licence or OTHER)
    tell(f"pushed: {address}\nuse it: distillscope.load_student('{spec_of('/'.join(address.split('/')[-4:-2]), revision)}')")


def _numbers(option: str, text: str) -> list[int]:
    from distillscope.errors import UserError

    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(option, "whole numbers with commas between", f"'{text}'", f"For instance {option} 1,2.") from None
