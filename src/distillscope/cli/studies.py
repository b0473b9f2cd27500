"""Commands that train: run, distill, embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillscope.cli.root import Corrupt, Device, Precision, Set, Track, Workers, app, command_line, print_results, print_table


@app.command()
def run(
    preset: Annotated[str, typer.Argument(metavar="PRESET_OR_YAML", help="see `distillscope list presets`")],
    out: Annotated[Path | None, typer.Option(help="run directory [default: runs/NAME]")] = None,
    set_: Set = None,
    data: Annotated[str | None, typer.Option(help="data set name, folder, manifest (CSV, TSV, JSONL), parquet, tar, or owner/name on the Hub")] = None,
    teacher: Annotated[str | None, typer.Option(help="teacher instead of the preset's")] = None,
    limit: Annotated[int | None, typer.Option(help="a stratified part of train (and of test)")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds instead of the preset's; repeatable")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an existing run directory")] = False,
    corrupt: Annotated[str | None, typer.Option(metavar="error|skip", help="images that cannot be decoded: end, or leave them out and say so")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and do nothing")] = False,
    device: Device = "auto",
    precision: Precision = None,
    jobs: Annotated[int | None, typer.Option(help="trials at once [default: one a core on a CPU, else 1]")] = None,
    workers: Workers = 0,
    track: Track = None,
) -> None:
    """Run a study: teacher, students, seeds, every measure, figures, table and page.

    Examples:

    - `distillscope run quickstart`
    - `distillscope run cifar10 --dry-run`
    - `distillscope run my-study.yaml --set training.epochs=20 --out runs/long --resume`
    """
    from distillscope.config.load import load_preset
    from distillscope.progress import say
    from distillscope.results.rundir import default_run, is_complete, trial_folder, trials_of

    overrides = list(set_ or [])
    shortcuts = {"data": data, "teacher": teacher, "limit": limit, "limit_test": limit, "training.epochs": epochs,
                 "training.batch_size": batch_size, "training.learning_rate": lr, "seeds": seed, "corrupt": corrupt}
    overrides = [f"{k}={v}" for k, v in shortcuts.items() if v is not None] + overrides
    study = load_preset(preset, overrides)
    folder = out or default_run(study.name)
    if dry_run:
        from distillscope.study.plan import plan_study

        print_table(f"Plan of {study.name}, into {folder}", ["", ""],
                     plan_study(study, folder, device, precision, jobs).rows())
        return
    from distillscope.study.run import run_study

    done = run_study(study, folder, resume=resume, device=device, precision=precision, jobs=jobs, workers=workers,
                     track=track, command=command_line())
    print_results(folder)
    missing = [t.id for t in trials_of(study) if not is_complete(trial_folder(folder, t))]
    if missing:
        say(f"not finished: {', '.join(missing)}")
    print(f"page: {done.page.resolve()}")


@app.command()
def distill(
    teacher: Annotated[str, typer.Option(help="for instance efficientnet_lite0, timm/MODEL, open_clip/MODEL:WEIGHTS")],
    out: Annotated[Path, typer.Option(help="where the student goes")],
    data: Annotated[str, typer.Option(help="images to distil on; labels are not needed")],
    student: Annotated[str, typer.Option(help="paper_cnn or timm/MODEL")] = "paper_cnn",
    objective: Annotated[str, typer.Option(help="see `distillscope list objectives`")] = "cosine",
    epochs: Annotated[int, typer.Option()] = 5,
    batch_size: Annotated[int, typer.Option()] = 64,
    lr: Annotated[float, typer.Option(help="learning rate")] = 1e-3,
    seed: Annotated[int, typer.Option()] = 42,
    image_size: Annotated[int, typer.Option(help="what the student sees")] = 32,
    limit: Annotated[int | None, typer.Option(help="a stratified part of the images")] = None,
    corrupt: Corrupt = "error",
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
    track: Track = None,
) -> None:
    """Distil one student for use: weights, preprocessing and a model card.

    Example: `distillscope distill --teacher efficientnet_lite0 --data digits --out student --set student.width=2`
    """
    from distillscope.config.load import apply_override, study_from
    from distillscope.progress import speaks
    from distillscope.study.student import distill_one

    values = {"name": out.name, "data": [{"name": data}], "teacher": [{"name": teacher}],
              "students": [{**_student(student), "image_size": image_size}],
              "arms": [{"name": "student", "objective": [{"name": objective}]}],
              "seeds": [seed], "limit": limit, "corrupt": corrupt, "noise": {"sigmas": []},
              "training": {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr}}
    for override in set_ or []:
        head, _, rest = override.partition(".")
        head = {"student": "students.0", "objective": "arms.0.objective.0", "arm": "arms.0"}.get(head, head)
        apply_override(values, f"{head}.{rest}" if rest else override)
    study = study_from(values, "distill")
    folder = distill_one(study, out, resume=resume, device=device, precision=precision, workers=workers, track=track,
                         command=command_line())
    if speaks():
        print(f"student: {folder.resolve()}\nuse it: distillscope.load_student({str(folder)!r}).encode(images)")


def _student(text: str) -> dict:
    library, _, model = text.partition("/")
    return {"name": library, "model": model, "label": model} if model else {"name": text, "label": text}


@app.command()
def embed(
    data: Annotated[str, typer.Option(help="images to embed")],
    teacher: Annotated[str | None, typer.Option(help="a teacher's name")] = None,
    student: Annotated[Path | None, typer.Option(help="a distilled student's folder")] = None,
    split: Annotated[str, typer.Option()] = "test",
    out: Annotated[Path | None, typer.Option(help="folder for img_emb/ and metadata/ [default: only the cache]")] = None,
    limit: Annotated[int | None, typer.Option(help="a stratified part")] = None,
    corrupt: Corrupt = "error",
    image_size: Annotated[int | None, typer.Option(help="what a model file sees")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="of its normalisation [default: CLIP's]")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="of its normalisation [default: CLIP's]")] = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
) -> None:
    """Embed a data set with a teacher (through the cache) or a distilled student, into clip-retrieval's layout.

    Example: `distillscope embed --teacher efficientnet_lite0 --data digits --split test --out embeddings`
    """
    from distillscope.audits.run import file_preprocess
    from distillscope.study.embed import embed_dataset

    print(embed_dataset(data, split, teacher=teacher, student=student, out=out, limit=limit, corrupt=corrupt,
                        device=device, precision=precision, workers=workers, preprocess=file_preprocess(image_size, mean, std)))
