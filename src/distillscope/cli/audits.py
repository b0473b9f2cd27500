"""Commands that measure what is there: audit, selftest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distillscope.cli.root import Corrupt, Device, Json, Markdown, Precision, WithJson, Workers, app, command_line, put_json


class WithArtefacts(WithJson):
    """All words after ``--artefact``, up to the next option, are files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        found: list[str] = []
        files = False
        for word in args:
            files = word == "--artefact" or (files and not word.startswith("-"))
            found += ["--artefact", word] if files and word != "--artefact" and found[-1] != "--artefact" else [word]
        return super().parse_args(ctx, found)


@app.command(cls=WithArtefacts)
def audit(
    teacher: Annotated[str, typer.Option(metavar="FILE_OR_MODEL", help="embeddings: a file or folder (FILE:ARRAY, FILE@IDS "
                                         "pick one of several); or a model, with --data")],
    student: Annotated[str, typer.Option(metavar="FILE_OR_MODEL", help="embeddings of the same items; or its folder, a model "
                                         "file or hf-hub:NAME, with --data")],
    labels: Annotated[str | None, typer.Option(metavar="FILE[:COLUMN]",
                                               help="labels, in row order or by id [default: the inputs' own]")] = None,
    ids: Annotated[str | None, typer.Option(metavar="FILE[:COLUMN]", help="ids of the rows of both sides")] = None,
    teacher_ids: Annotated[str | None, typer.Option(metavar="FILE[:COLUMN]", help="ids of the teacher's rows")] = None,
    student_ids: Annotated[str | None, typer.Option(metavar="FILE[:COLUMN]", help="ids of the student's rows")] = None,
    scale: Annotated[float | None, typer.Option(help="divide whole-number embeddings by this, such as 127")] = None,
    train_teacher: Annotated[str | None, typer.Option(help="training items, for probes")] = None,
    train_student: Annotated[str | None, typer.Option(help="training items by the student")] = None,
    train_labels: Annotated[str | None, typer.Option(help="labels of the training items")] = None,
    text: Annotated[str | None, typer.Option(help="embeddings of the class names, for zero-shot accuracy")] = None,
    subgroups: Annotated[str | None, typer.Option(metavar="FILE[:COLUMN]",
                                                  help="one subgroup per item, like labels: what the worst keeps")] = None,
    ood: Annotated[str | None, typer.Option(metavar="DATA", help="images from elsewhere, for models: does either side find "
                                            "them among its own?")] = None,
    ood_split: Annotated[str | None, typer.Option(help="split of --ood [default: --split's]")] = None,
    ood_teacher: Annotated[str | None, typer.Option(help="the same as embeddings")] = None,
    ood_student: Annotated[str | None, typer.Option(help="the same as embeddings, by the student")] = None,
    data: Annotated[str | None, typer.Option(help="images to embed, where a side is a model")] = None,
    split: Annotated[str, typer.Option(help="split of the images or folders")] = "test",
    train_split: Annotated[str | None, typer.Option(help="split of --data to fit the probes on")] = None,
    limit: Annotated[int | None, typer.Option(help="use a stratified subset of this many images")] = None,
    corrupt: Corrupt = "error",
    image_size: Annotated[list[str] | None, typer.Option(metavar="[SIDE:]PIXELS", help="what a model file sees; SIDE is "
                                                         "teacher, student or artefact, without it the first two")] = None,
    mean: Annotated[list[str] | None, typer.Option(metavar="[SIDE:]R,G,B",
                                                   help="of its normalisation [default: CLIP's]")] = None,
    std: Annotated[list[str] | None, typer.Option(metavar="[SIDE:]R,G,B",
                                                  help="of its normalisation [default: CLIP's]")] = None,
    interpolation: Annotated[list[str] | None, typer.Option(metavar="[SIDE:]NAME", help="bicubic, bilinear, nearest or "
                                                            "nearest-exact [default: bicubic]")] = None,
    crop: Annotated[list[str] | None, typer.Option(metavar="[SIDE:]SHARE", help="of the shorter side that is kept "
                                                   "[default: 1]")] = None,
    artefact: Annotated[list[str] | None, typer.Option(metavar="FILE...", help="files made from the student by export or other "
                                                       "tools: what each step lost and costs")] = None,
    timing: Annotated[bool, typer.Option(help="of teacher, student and artefacts: latency and memory")] = True,
    normalize: Annotated[str | None, typer.Option(help="l2: scale rows to unit norm first")] = None,
    only: Annotated[list[str] | None, typer.Option(help="measure only this group; repeatable")] = None,
    intervals: Annotated[bool, typer.Option(help="95 % intervals over items")] = True,
    require: Annotated[list[str] | None, typer.Option(metavar="BOUND", help="exit with 1 if it is not met; repeatable")] = None,
    json_: Json = None,
    out: Annotated[Path | None, typer.Option(help="folder for the page, its figures and the values")] = None,
    markdown: Markdown = None,
    full: Annotated[bool, typer.Option("--full", help="print every measure")] = False,
    seed: Annotated[int, typer.Option(help="of subsamples, folds and permutation nulls")] = 0,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
) -> None:
    """Audit any teacher and student: what did the small one lose? Embeddings in, or models with --data.

    Examples:

    - `distillscope audit --teacher teacher.npy --student student.npy --labels labels.npy --out audit`
    - `distillscope audit --teacher t.npy --student s.npy --require 'alignment.mean_cosine>=0.9'`
    - `distillscope audit --teacher efficientnet_lite0 --student student.onnx --data digits`
    - `distillscope audit --teacher t.npy --student s.npy --ood-teacher other_t.npy --ood-student other_s.npy`
    - `distillscope audit --teacher efficientnet_lite0 --student student --artefact student.int8.onnx --data digits`
    """
    from distillscope.audits.requirements import check_requirements, read_requirement
    from distillscope.audits.run import Elsewhere, Images, Reads, audit_inputs, check_out, publish
    from distillscope.audits.shown import sided_preprocess
    from distillscope.progress import Terminal, tell
    from distillscope.report.terminals import audit_table

    for bound in require or []:  # what cannot be read or written is said before any work
        read_requirement(bound)
    if out is not None:
        check_out(out)
    shown = sided_preprocess(size=image_size, mean=mean, std=std, interpolation=interpolation, crop_fraction=crop)
    images = Images(data, split, limit, device, precision, workers, shown, corrupt)
    found = audit_inputs(teacher, student, labels, train_teacher=train_teacher, train_student=train_student,
                         train_labels=train_labels, train_split=train_split, text=text, subgroups=subgroups, images=images,
                         elsewhere=Elsewhere(ood_teacher, ood_student, ood, ood_split), normalize=normalize,
                         groups=only, intervals=intervals, seed=seed,
                         reading=Reads(ids, teacher_ids, student_ids, scale), artefacts=artefact or [], timed=timing)
    missed = check_requirements(found, require or [])
    printed = put_json(found.to_json() if json_ else "", json_)
    if not printed:
        Terminal().print(audit_table(found, full=full))
    if out is not None:
        tell(f"page: {publish(found, out, teacher, student, command_line(), images).resolve()}", err=printed)
    if markdown is not None:
        from distillscope.files.writing import write_text
        from distillscope.report.audit_page import audit_markdown

        tell(f"summary: {write_text(markdown, audit_markdown(found, teacher, student, missed)).resolve()}", err=printed)
    for line in missed:
        print(f"distillscope: {line}", file=sys.stderr)
    if missed:
        raise typer.Exit(1)


@app.command()
def selftest() -> None:
    """Check the code of `audit` on this machine against cases whose answer is known in closed form; takes a few seconds.

    Example: `distillscope selftest`
    """
    from distillscope.audits.selftest import selftest as run_checks

    checks = run_checks()
    for case in dict.fromkeys(c.case for c in checks):
        print(case)
        for c in (c for c in checks if c.case == case):
            print(f"  {'ok  ' if c.passed else 'FAIL'} {c.measure:36} expected {c.expected:.9g}, got {c.got:.9g}, "
                  f"tolerance {c.tolerance:.2g}")
    failed = sum(not c.passed for c in checks)
    print(f"{len(checks) - failed} of {len(checks)} as expected")
    if failed:
        raise typer.Exit(1)
