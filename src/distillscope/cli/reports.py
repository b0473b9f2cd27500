"""Commands that read run directories: report, compare, recommend, merge, archive, claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillscope.cli.root import (
    PRINT,
    Json,
    JsonAfterFiles,
    JsonAfterFolders,
    app,
    command_line,
    print_results,
    print_table,
    put_json,
)
from distillscope.errors import UserError


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="a run directory")],
    paper: Annotated[bool, typer.Option(
        "--paper", help="also DIR/paper: the six plots for one and two columns (PDF, SVG), and LaTeX")] = False,
    serve: Annotated[bool, typer.Option(
        "--serve", help="watch a run while it is running; the page renews itself (this machine only)")] = False,
    port: Annotated[int | None, typer.Option(
        help="of --serve [default: the first free one from 8000 on]", min=1, max=65535)] = None,
) -> None:
    """Rebuild tables, figures and page from a run directory; no model is loaded.

    Examples: `distillscope report runs/quickstart`, `distillscope report runs/quickstart --paper`,
    `distillscope report runs/quickstart --serve`
    """
    if port is not None and not serve:
        raise UserError("--port", "--serve with it", "--port alone", "Add --serve.")
    if serve:
        from distillscope.report.serve import serve as watch

        watch(run_dir, port)
        return
    from distillscope.progress import tell
    from distillscope.report.study_page import write_paper, write_report

    page = write_report(run_dir)
    print_results(run_dir)
    if paper:
        tell(f"for a paper: {write_paper(run_dir)[0].parent.resolve()}")
    tell(f"page: {page.resolve()}")


@app.command(cls=JsonAfterFiles)
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(
        metavar="DIR...", help="run directories, or audits (folder, .json or page)")],
    out: Annotated[Path | None, typer.Option(help="folder for the page [default: runs/compare-A-B; with --json none]")] = None,
    json_: Json = None,
) -> None:
    """Compare runs: paired differences with intervals, and a page that overlays them. No model is loaded.

    Every run is compared with the first; models are matched by data set, teacher, arm and student.

    Example: `distillscope compare runs/quickstart runs/longer`
    """
    import json

    from distillscope.compare.runs import compare_runs
    from distillscope.progress import Terminal, tell
    from distillscope.report.compare_page import check_out, default_out, write_comparison
    from distillscope.report.terminals import comparison_tables

    if out is not None:
        check_out(out)
    found = compare_runs(run_dirs)
    folder = out if out is not None or json_ == PRINT else check_out(Path("runs") / default_out(found))
    printed = put_json(json.dumps(found.to_dict(), indent=2, allow_nan=False), json_)
    if not printed:
        console = Terminal()
        for part in comparison_tables(found, console.width):
            console.print(part)
    if folder is not None:
        page = write_comparison(found, folder, command_line())
        tell(f"page: {page.resolve()}", err=printed)


@app.command()
def merge(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="runs of one study, made separately")],
    out: Annotated[Path, typer.Option(help="the joined run directory")],
) -> None:
    """Join runs of the same study that were made separately (other seeds, students or arms), and write their report.

    Example: `distillscope merge runs/seed42 runs/seed123 --out runs/all`
    """
    from distillscope.progress import tell
    from distillscope.report.study_page import write_report
    from distillscope.results.merge import merge_runs

    tell(f"page: {write_report(merge_runs(run_dirs, out)).resolve()}")
    print_results(out)


@app.command()
def archive(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="a new or empty folder")],
) -> None:
    """Pack a run into a few small files that report, claims, compare, recommend and merge read like the run itself.

    Every number, curve and verdict is kept as it is; weights, embeddings, predictions and pictures are left out, so a packed
    run cannot go on (`run --resume`). The run stays where it is.

    Example: `distillscope archive runs/quickstart results/quickstart`
    """
    from distillscope.progress import tell
    from distillscope.results.archive import write_archive

    files = write_archive(run_dir, out)
    packed, whole = (sum(p.stat().st_size for p in found if p.is_file()) / 2**20 for found in (files, run_dir.rglob("*")))
    tell(f"archive: {out.resolve()} ({len(files)} files, {packed:.2f} of {whole:.1f} MiB)")


@app.command("claims", cls=JsonAfterFolders)
def claims_(
    run_dirs: Annotated[list[Path], typer.Argument(
        metavar="DIR...", help="run directories of one teacher, data set and noise")],
    json_: Json = None,
) -> None:
    """Decide the papers' ten claims, and your own, on a study's results: supported, refuted or undecided, with the reason.

    Writes claims.json and claims.md into the first directory, and rebuilds its page. No model is loaded.

    Example: `distillscope claims runs/claims-quick`
    """
    from distillscope.progress import Terminal, tell
    from distillscope.report.claims import claims_table, decide_claims, together_tables, write_claims
    from distillscope.report.study_page import write_report

    found = decide_claims(run_dirs)
    write_claims(found, run_dirs[0])
    page = write_report(run_dirs[0])
    printed = put_json((run_dirs[0] / "claims.json").read_text(encoding="utf-8"), json_)
    for decision in found.decisions if not printed else ():
        Terminal().print(claims_table(decision))
    for dataset, head, rows in together_tables(found) if not printed else ():
        print_table(f"{dataset}, {len(head) - 2} teachers together", head, [tuple(row) for row in rows])
    tell(f"sentences: {(run_dirs[0] / 'claims.md').resolve()}\npage: {page.resolve()}", err=printed)


@app.command("recommend", cls=JsonAfterFolders)
def recommend_(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="DIR...",
                                                   help="run directories of one teacher, data set and noise")],
    for_: Annotated[str, typer.Option("--for", help="balance, accuracy, retrieval, robustness or geometry")] = "balance",
    json_: Json = None,
    yaml_: Annotated[Path | None, typer.Option("--yaml", metavar="FILE", help="write the study to run next here")] = None,
) -> None:
    """Say what to change: compares a run's objectives, targets and remedies with its plain arm, per student, at equal compute.

    Only arms that saw as many images as the plain arm, without labels, are ranked; differences are paired over seeds, tested
    over all pairs of arms at once, and arms without a significant difference are named together. The balance is the mean of
    four scores, each the gain as a share of what the plain student lacks to the teacher (at least a tenth of the teacher's
    value): clean accuracy, accuracy under noise (mean over the study's levels), recall at 1 and effective rank after the
    ridge map into the teacher's space. No model is loaded.

    Examples:

    - `distillscope recommend runs/quickstart`
    - `distillscope recommend runs/screen --for robustness --yaml next.yaml`
    """
    from distillscope.advice.axes import PURPOSES
    from distillscope.errors import unknown_name
    from distillscope.files.folders import check_absent
    from distillscope.files.writing import write_text
    from distillscope.progress import Terminal, tell
    from distillscope.report.recommendation import advice_tables, recommend_runs
    from distillscope.report.sentences.recommendation import following_text, notes, sentence

    if for_ not in PURPOSES:
        raise unknown_name("--for", "purpose", for_, PURPOSES)
    if yaml_ is not None:
        check_absent(f"--yaml {yaml_}", yaml_)
    advice = recommend_runs(run_dirs, for_)
    if yaml_ is not None:
        write_text(yaml_, advice.yaml)
    if put_json(advice.to_json(), json_):
        return
    for table in advice_tables(advice):
        Terminal().print(table)
    for one in advice.found:
        tell("".join(f"{line}\n" for line in [*(sentence(r, one) for r in one.rankings), *notes(one)]))
    tell(advice.chosen_on)
    for command in advice.screen_commands():
        tell(f"  {command}")
    where = f"written: {yaml_.resolve()}" if yaml_ else "--yaml FILE writes it"
    tell(f"\nstudy to run next: {following_text(advice.following or {})}\n{where}")
