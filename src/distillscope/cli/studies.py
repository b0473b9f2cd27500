"""Commands that train: run, distill, embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distillscope.cli.root import (
    Corrupt,
    Device,
    Precision,
    Set,
    Track,
    Workers,
    app,
    command_line,
    completed,
    print_results,
    print_table,
)
from distillscope.files.folders import KEEP_GIB

Epochs = Annotated[int | None, typer.Option(help="passes over the train images")]
BatchSize = Annotated[int | None, typer.Option(help="images per step")]
LearningRate = Annotated[float | None, typer.Option(help="learning rate")]

TEACHERS = completed("teachers")


KeepImages = Annotated[float, typer.Option(min=0, metavar="GIB", help="disk for images at the students' size, if the "
                                           "set does not fit in memory; 0: decode them in every epoch")]


EngineName = Annotated[str, typer.Option(metavar="local|ray", help="what does the work: this machine, or a Ray cluster")]
Address = Annotated[str | None, typer.Option(help="of the Ray cluster, auto for the one of this machine [default: RAY_ADDRESS, "
                                                  "else one is started]")]
TaskCpus = Annotated[int | None, typer.Option(help="cores that Ray gives each process [default: 1, or as many as --workers]")]
TaskGpus = Annotated[float | None, typer.Option(help="GPUs that Ray gives each process, as 0.5 [default: 1 where this machine "
                                                     "has one]")]


def training(epochs: int | None, batch_size: int | None, lr: float | None) -> dict[str, Any]:
    """Setting -> what its option says, or None."""
    return {"training.epochs": epochs, "training.batch_size": batch_size, "training.learning_rate": lr}


def as_overrides(settings: dict[str, Any]) -> list[str]:
    """PATH=VALUE of every option that was given."""
    return [f"{path}={value}" for path, value in settings.items() if value is not None]


@app.command()
def run(
    preset: Annotated[str, typer.Argument(metavar="PRESET_OR_YAML", autocompletion=completed("presets", files=".yaml"),
                                            help="see `distillscope list presets`")],
    out: Annotated[str | None, typer.Option(metavar="DIR|URL", help="run directory [default: runs/NAME]")] = None,
    set_: Set = None,
    data: Annotated[str | None, typer.Option(
        help="data set name, folder, manifest (CSV, TSV, JSONL), parquet, tar, or owner/name on the Hub")] = None,
    teacher: Annotated[str | None, typer.Option(autocompletion=TEACHERS, help="teacher instead of the preset's")] = None,
    limit: Annotated[int | None, typer.Option(help="use a stratified subset of train (and of test) of this size")] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds instead of the preset's; repeatable")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an existing run")] = False,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="one of N parts of the trials alone, each into an --out of "
                                                                  "its own; `merge` joins them")] = None,
    corrupt: Annotated[str | None, typer.Option(
        metavar="error|skip", help="images that cannot be decoded: stop, or skip and report them")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
    device: Device = "auto",
    precision: Precision = None,
    jobs: Annotated[int | None, typer.Option(help="trials at once [default: one per core on a CPU, else 1; with --engine ray "
                                                  "as many as there is room for]")] = None,
    engine: EngineName = "local",
    address: Address = None,
    task_cpus: TaskCpus = None,
    task_gpus: TaskGpus = None,
    workers: Workers = 0,
    keep_images: KeepImages = KEEP_GIB,
    track: Track = None,
) -> None:
    """Run a study: teacher, students, seeds, every measure, figures, table and page.

    Examples:

    - `distillscope run quickstart`
    - `distillscope run cifar10 --dry-run`
    - `distillscope run my-study.yaml --set training.epochs=20 --out runs/long --resume`
    """
    from distillscope.config.load import load_preset
    from distillscope.files.remote import is_url
    from distillscope.processes.engine import Engine
    from distillscope.progress import say
    from distillscope.results.run_files import trials_of
    from distillscope.results.rundir import default_run, is_complete, trial_folder

    overrides = as_overrides({"data": data, "teacher": teacher, "limit": limit, "limit_test": limit,
                              **training(epochs, batch_size, lr), "seeds": seed, "corrupt": corrupt})
    study = load_preset(preset, [*overrides, *(set_ or [])])
    folder = out if out and is_url(out) else Path(out or default_run(study.name))
    where = Engine(engine, address, task_cpus, task_gpus)
    if dry_run:
        from distillscope.study.plan import plan_study
        from distillscope.study.run_at_url import RunAtUrl

        local = RunAtUrl(folder).fetch(resume) if isinstance(folder, str) else folder
        print_table(f"Plan of {study.name}, into {folder}", ["", ""],
                     plan_study(study, local, device, precision, jobs, resume=resume, track=track, workers=workers,
                                keep_images=keep_images, engine=where, shard=shard).rows())
        return
    from distillscope.study.run import run_study

    done = run_study(study, folder, resume=resume, device=device, precision=precision, jobs=jobs, workers=workers,
                     track=track, keep_images=keep_images, command=command_line(), engine=where, shard=shard,
                     report=shard is None)
    if shard:
        print(f"part {shard}: {len(done.trials)} of {len(trials_of(study))} trials, in {folder}\n"
              "when all parts are made: distillscope merge DIR... --out DIR")
        return
    print_results(done.path)
    missing = [t.id for t in trials_of(study) if not is_complete(trial_folder(done.path, t))]
    if missing:
        say(f"not finished: {', '.join(missing)}")
    print(f"page: {done.page.resolve()}{f', and in {folder}' if isinstance(folder, str) else ''}")


@app.command()
def distill(
    teacher: Annotated[str, typer.Option(autocompletion=TEACHERS,
                                         help="for instance efficientnet_lite0, timm/MODEL, open_clip/MODEL:WEIGHTS")],
    out: Annotated[Path, typer.Option(help="folder for the student")],
    data: Annotated[str, typer.Option(help="images to distil on; labels are not needed")],
    student: Annotated[str, typer.Option(autocompletion=completed("students"), help="paper_cnn or timm/MODEL")] = "paper_cnn",
    recipe: Annotated[str | None, typer.Option(metavar="NAME|FILE.yaml", autocompletion=completed("recipes", files=".yaml"),
                                               help="how it is trained: `distillscope list recipes` [default: robust]")] = None,
    objective: Annotated[str | None, typer.Option(autocompletion=completed("objectives"),
                                                  help="replaces the recipe's: `distillscope list objectives`")] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    dim: Annotated[int | None, typer.Option(help="of the student's embeddings: the teacher's leading principal directions "
                                            "[default: the teacher's own embeddings]")] = None,
    seed: Annotated[int | None, typer.Option(help="of initial weights, order and views [default: 42]")] = None,
    split: Annotated[str | None, typer.Option(help="of --data, to train on; a tenth is held out "
                                                   "[default: train]")] = None,
    image_size: Annotated[int | None, typer.Option(help="input size of the student [default: its own; paper_cnn: 32]")] = None,
    limit: Annotated[int | None, typer.Option(help="use a stratified subset of this many images")] = None,
    corrupt: Corrupt = "error",
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted command")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
    keep_images: KeepImages = KEEP_GIB,
    track: Track = None,
) -> None:
    """Distil one student for use: weights, preprocessing and a model card. Labels are not needed.

    Examples:

    - `distillscope distill --teacher efficientnet_lite0 --data digits --out student --set student.width=2`
    - `distillscope distill --teacher timm/resnet50 --data photos --student timm/mobilenetv4_conv_small --dim 256 --out mine`
    - `distillscope distill --teacher efficientnet_lite0 --data digits --recipe paper --out student`
    """
    from distillscope.config.recipe import DEFAULT_RECIPE, one_student
    from distillscope.progress import speaks

    overrides = as_overrides({"data.train_split": split, "students.0.image_size": image_size, "limit": limit,
                              **training(epochs, batch_size, lr)})
    study = one_student(out.name, teacher, data, student, recipe=recipe or DEFAULT_RECIPE, objective=objective, dim=dim,
                        seed=seed, corrupt=corrupt, overrides=[*overrides, *(set_ or [])])
    if dry_run:
        from distillscope.study.plan import plan_student

        rows = plan_student(study, out, resume=resume, device=device, precision=precision, track=track, workers=workers,
                            keep_images=keep_images)
        if speaks():
            print_table("Plan", ["", ""], rows)
        return
    from distillscope.study.student import distill_one

    folder = distill_one(study, out, resume=resume, device=device, precision=precision, workers=workers, track=track,
                         keep_images=keep_images, command=command_line())
    if speaks():
        print(f"student: {folder.resolve()}\nuse it: distillscope.load_student({str(folder)!r}).encode(images)")


@app.command()
def embed(
    data: Annotated[str, typer.Option(help="images to embed")],
    teacher: Annotated[str | None, typer.Option(autocompletion=TEACHERS, help="a teacher's name")] = None,
    student: Annotated[str | None, typer.Option(help="a distilled student's folder, or hf-hub:owner/name")] = None,
    split: Annotated[str, typer.Option(help="of the data set")] = "test",
    out: Annotated[str | None, typer.Option(help="folder or URL for img_emb/ and metadata/ [default: only the cache]")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="only one of N parts; N commands fill one --out")] = None,
    files: Annotated[int | None, typer.Option(help="at least so many files [default: one for each 65,536 items "
                                                   "or shard]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted command")] = False,
    limit: Annotated[int | None, typer.Option(help="a stratified part")] = None,
    corrupt: Corrupt = "error",
    image_size: Annotated[int | None, typer.Option(help="what a model file sees")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="of its normalisation [default: CLIP's]")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="of its normalisation [default: CLIP's]")] = None,
    interpolation: Annotated[str | None, typer.Option(metavar="NAME", help="of its resizing: bicubic, bilinear, nearest or "
                                                                   "nearest-exact [default: bicubic]")] = None,
    crop: Annotated[str | None, typer.Option(metavar="SHARE", help="of its input: share of the shorter side "
                                                                          "that is kept [default: 1]")] = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
    engine: EngineName = "local",
    address: Address = None,
    task_cpus: TaskCpus = None,
    task_gpus: TaskGpus = None,
) -> None:
    """Embed a data set with a teacher (through the cache) or a distilled student, into clip-retrieval's layout.

    Examples:

    - `distillscope embed --teacher efficientnet_lite0 --data digits --split test --out embeddings`
    - `distillscope embed --teacher efficientnet_lite0 --data photos --split train --out embeddings --shard 3/8` (docs/scale.md)
    """
    from distillscope.audits.shown import file_preprocess
    from distillscope.processes.engine import Engine
    from distillscope.progress import speaks
    from distillscope.study.embedding import embed_dataset

    shown = file_preprocess(image_size, mean, std, interpolation, crop)
    said = embed_dataset(data, split, teacher=teacher, student=student, out=out, limit=limit, corrupt=corrupt, device=device,
                         precision=precision, workers=workers, preprocess=shown, shard=shard, files=files, resume=resume,
                         engine=Engine(engine, address, task_cpus, task_gpus))
    if speaks():
        print(said)
