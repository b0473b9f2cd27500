"""Commands: parse, call, print. What they do lives in the library."""

from __future__ import annotations

import errno
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from distillscope.errors import UserError

app = typer.Typer(
    name="distillscope", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    help="Distil a large frozen image encoder into a small student, and see exactly what the student lost.\n\n"
    "Start with: `distillscope run quickstart`",
)
cache_app = typer.Typer(no_args_is_help=True, help="The cache of teacher embeddings (DISTILLSCOPE_CACHE moves it).")
app.add_typer(cache_app, name="cache")

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
Precision = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, for teacher and students")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="override one setting; repeatable")]
Track = Annotated[str | None, typer.Option(help="also log to tensorboard, wandb or mlflow")]
Workers = Annotated[int, typer.Option(help="decoding processes for data that is streamed")]


@app.command()
def run(
    preset: Annotated[str, typer.Argument(metavar="PRESET_OR_YAML", help="see `distillscope list presets`")],
    out: Annotated[Path | None, typer.Option(help="run directory [default: runs/NAME]")] = None,
    set_: Set = None,
    data: Annotated[str | None, typer.Option(help="data set name, folder, parquet, tar, or owner/name on the Hub")] = None,
    teacher: Annotated[str | None, typer.Option(help="teacher instead of the preset's")] = None,
    limit: Annotated[int | None, typer.Option(help="a stratified part of train (and of test)")] = None,
    epochs: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds instead of the preset's; repeatable")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an existing run directory")] = False,
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
    from distillscope.config import load_preset
    from distillscope.progress import say
    from distillscope.rundir import is_complete, trial_folder, trials_of

    overrides = list(set_ or [])
    shortcuts = {"data": data, "teacher": teacher, "limit": limit, "limit_test": limit, "training.epochs": epochs,
                 "training.batch_size": batch_size, "training.learning_rate": lr, "seeds": seed}
    overrides = [f"{k}={v}" for k, v in shortcuts.items() if v is not None] + overrides
    study = load_preset(preset, overrides)
    folder = out or Path("runs") / study.name
    if dry_run:
        from distillscope.plan import plan_study

        _print_table(f"Plan of {study.name}, into {folder}", ["", ""],
                     plan_study(study, folder, device, precision, jobs).rows())
        return
    from distillscope.study import run_study

    done = run_study(study, folder, resume=resume, device=device, precision=precision, jobs=jobs, workers=workers,
                     track=track, command=_command())
    _print_results(folder)
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
    from distillscope.config import apply_override, study_from
    from distillscope.single import distill_one

    values = {"name": out.name, "data": [{"name": data}], "teacher": [{"name": teacher}],
              "students": [{**_student(student), "image_size": image_size}],
              "arms": [{"name": "student", "objective": [{"name": objective}]}],
              "seeds": [seed], "limit": limit, "noise": {"sigmas": []},
              "training": {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr}}
    for override in set_ or []:
        head, _, rest = override.partition(".")
        head = {"student": "students.0", "objective": "arms.0.objective.0", "arm": "arms.0"}.get(head, head)
        apply_override(values, f"{head}.{rest}" if rest else override)
    study = study_from(values, "distill")
    folder = distill_one(study, out, resume=resume, device=device, precision=precision, workers=workers, track=track,
                         command=_command())
    print(f"student: {folder.resolve()}\nuse it: distillscope.load_student({str(folder)!r}).encode(images, ids)")


@app.command()
def audit(
    teacher: Annotated[str, typer.Option(help="embeddings (file or folder), or a model with --data")],
    student: Annotated[str, typer.Option(help="the same items by the student")],
    labels: Annotated[str | None, typer.Option(help="file of labels; else those of the inputs")] = None,
    train_teacher: Annotated[str | None, typer.Option(help="training items, for probes")] = None,
    train_student: Annotated[str | None, typer.Option(help="training items by the student")] = None,
    train_labels: Annotated[str | None, typer.Option(help="labels of the training items")] = None,
    text: Annotated[str | None, typer.Option(help="embeddings of the class names, for zero-shot accuracy")] = None,
    data: Annotated[str | None, typer.Option(help="images, where a side is a model")] = None,
    split: Annotated[str, typer.Option(help="split of the images or folders")] = "test",
    train_split: Annotated[str | None, typer.Option(help="split of --data that the probes are fitted on")] = None,
    limit: Annotated[int | None, typer.Option(help="a stratified part of the images")] = None,
    image_size: Annotated[int | None, typer.Option(help="what a TorchScript or ONNX file sees")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="of its normalisation [default: CLIP's]")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="of its normalisation [default: CLIP's]")] = None,
    normalize: Annotated[str | None, typer.Option(help="l2: rows to unit norm first")] = None,
    only: Annotated[list[str] | None, typer.Option(help="a group of measures; repeatable")] = None,
    intervals: Annotated[bool, typer.Option(help="95 % intervals over items")] = True,
    require: Annotated[list[str] | None, typer.Option(metavar="BOUND", help="exit 1 where it is missed; repeatable")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write every value and curve")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the page, its figures and the values")] = None,
    full: Annotated[bool, typer.Option("--full", help="print every measure")] = False,
    seed: Annotated[int, typer.Option(help="of subsamples, folds and nulls")] = 0,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
) -> None:
    """Audit any teacher and student: what did the small one lose? Embeddings in, or models with --data.

    Examples:

    - `distillscope audit --teacher teacher.npy --student student.npy --labels labels.npy --out audit`
    - `distillscope audit --teacher t.npy --student s.npy --require 'alignment.mean_cosine>=0.9'`
    - `distillscope audit --teacher efficientnet_lite0 --student student.onnx --data digits`
    """
    from rich.console import Console

    from distillscope.auditing import Images, audit_inputs, file_preprocess, publish
    from distillscope.report.audit_terminal import audit_table
    from distillscope.requirements import check_requirements

    images = Images(data, split, limit, device, precision, workers, file_preprocess(image_size, mean, std))
    found = audit_inputs(teacher, student, labels, train_teacher=train_teacher, train_student=train_student,
                         train_labels=train_labels, train_split=train_split, text=text, images=images, normalize=normalize,
                         groups=only, intervals=intervals, seed=seed)
    missed = check_requirements(found, require or [])
    Console().print(audit_table(found, full=full))
    if json_ is not None:
        found.to_json(json_)
        print(f"values: {json_.resolve()}")
    if out is not None:
        print(f"page: {publish(found, out, teacher, student, _command()).resolve()}")
    for line in missed:
        print(f"distillscope: {line}", file=sys.stderr)
    if missed:
        raise typer.Exit(1)


@app.command()
def selftest() -> None:
    """Cases whose answer is known in closed form, through the code of `audit`, on this machine: a minute.

    Example: `distillscope selftest`
    """
    from distillscope.selftest import selftest as run_checks

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


@app.command()
def embed(
    data: Annotated[str, typer.Option(help="images to embed")],
    teacher: Annotated[str | None, typer.Option(help="a teacher's name")] = None,
    student: Annotated[Path | None, typer.Option(help="a distilled student's folder")] = None,
    split: Annotated[str, typer.Option()] = "test",
    out: Annotated[Path | None, typer.Option(help="folder for img_emb/ and metadata/ [default: only the cache]")] = None,
    limit: Annotated[int | None, typer.Option(help="a stratified part")] = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = 0,
) -> None:
    """Embed a data set with a teacher (through the cache) or a distilled student, into clip-retrieval's layout.

    Example: `distillscope embed --teacher efficientnet_lite0 --data digits --split test --out embeddings`
    """
    from distillscope.embedding import embed_dataset

    print(embed_dataset(data, split, teacher=teacher, student=student, out=out, limit=limit, device=device,
                        precision=precision, workers=workers))


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")]) -> None:
    """Rebuild tables, figures and page from a run directory; no model is loaded.

    Example: `distillscope report runs/quickstart`
    """
    from distillscope.report import write_report

    page = write_report(run_dir)
    _print_results(run_dir)
    print(f"page: {page.resolve()}")


@app.command()
def merge(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="runs of one study, made apart")],
    out: Annotated[Path, typer.Option(help="the joined run directory")],
) -> None:
    """Join runs of the same study that were made apart (other seeds, students or arms), and write their report.

    Example: `distillscope merge runs/seed42 runs/seed123 --out runs/all`
    """
    from distillscope.merge import merge_runs

    print(f"page: {merge_runs(run_dirs, out).resolve()}")
    _print_results(out)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="presets, teachers, students, objectives, targets, projectors, views, datasets, measures, stresses, corruptions, remedies, claims")],
) -> None:
    """List the parts of a kind, with what each is and what can be set.

    Example: `distillscope list objectives`
    """
    from distillscope.config import load_preset, preset_names
    from distillscope.errors import unknown_name
    from distillscope.registry import KINDS

    if kind == "presets":
        _print_table("presets", ["name", "what"], [(n, load_preset(n).description.strip()) for n in preset_names()])
        return
    if kind not in KINDS:
        raise unknown_name("list", "kind", kind, ["presets", *KINDS])
    registry = KINDS[kind]
    rows = [(n, registry.summary(n), ", ".join(
        k if p.default is p.empty else f"{k}={p.default}" for k, p in registry.settings(n).items())) for n in registry]
    _print_table(kind, ["name", "what", "settings"], rows)


@app.command()
def doctor() -> None:
    """What this machine has: devices, threads, versions, weights and data within reach, and what to do about the rest.

    Example: `distillscope doctor`
    """
    from distillscope.doctor import examine

    _print_table("doctor", ["what", "found", "what to do"], examine())


@app.command("claims")
def claims_(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="run directories of one teacher, data set and noise")],
    json_: Annotated[Path | None, typer.Option("--json", help="write the verdicts here too")] = None,
) -> None:
    """Decide the papers' ten claims, and your own, on a study's results: supported, refuted or undecided, with the reason.

    Writes claims.json and claims.md into the first directory, and rebuilds its page. No model is loaded.

    Example: `distillscope claims runs/claims-quick`
    """
    from rich.console import Console

    from distillscope.report import claims_table, decide_claims, write_claims, write_report

    found = decide_claims(run_dirs)
    write_claims(found, run_dirs[0])
    page = write_report(run_dirs[0])
    if json_ is not None:
        from distillscope.files import write_text

        write_text(json_, (run_dirs[0] / "claims.json").read_text(encoding="utf-8"))
        print(f"verdicts: {json_.resolve()}")
    for decision in found.decisions:
        Console().print(claims_table(decision))
    print(f"sentences: {(run_dirs[0] / 'claims.md').resolve()}\npage: {page.resolve()}")


@cache_app.command("list")
def cache_list() -> None:
    """Entries of the cache: teacher, view or noise, rows, size. Example: `distillscope cache list`"""
    from distillscope.teachers.cache import list_entries

    rows = []
    for entry in list_entries():
        perturbation = entry["perturbation"] or {}
        what = " ".join(f"{k}={v}" for k, v in perturbation.items() if k in ("kind", "name", "sigma", "draw", "seed", "epoch"))
        rows.append((entry["name"], what or "clean", f"{entry['rows']:,}", f"{entry['bytes'] / 2**20:.1f} MiB"))
    _print_table("cache", ["entry", "images as seen", "rows", "size"], rows)


@cache_app.command("prune")
def cache_prune(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ENTRY...]")] = None,
    all_: Annotated[bool, typer.Option("--all", help="remove every entry")] = False,
) -> None:
    """Remove entries by the names that `cache list` prints, or all of them. Example: `distillscope cache prune --all`"""
    from distillscope.teachers.cache import prune_entries

    if not names and not all_:
        raise UserError("cache prune", "names of entries, or --all", "neither", "See `distillscope cache list`.")
    count, size = prune_entries(names or None)
    print(f"removed {count} entries, {size / 2**20:.1f} MiB")


@cache_app.command("path")
def cache_path() -> None:
    """Where the cache is. Example: `distillscope cache path`"""
    from distillscope.teachers.cache import cache_root

    print(cache_root())


def _student(text: str) -> dict:
    library, _, model = text.partition("/")
    return {"name": library, "model": model, "label": model} if model else {"name": text, "label": text}


def _command() -> str:
    return shlex.join(["distillscope", *sys.argv[1:]])


def _print_table(title: str, columns: list[str], rows: list[tuple]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Console().print(table)


def _print_results(folder: Path) -> None:
    from rich.console import Console

    from distillscope.report import terminal_table

    Console().print(terminal_table(folder))


def main() -> None:
    """Entry point: a UserError is one line and exit code 2; anything else is a bug and shows its traceback."""
    try:
        app()
    except UserError as error:
        print(f"distillscope: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = UserError(str(error.filename or "disk"), "room on the disk", "a full disk",
                         "Free some space and repeat with --resume; what was finished is kept.")
        print(f"distillscope: {full}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("distillscope: interrupted; what was finished is kept. Repeat the command with --resume to go on.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
