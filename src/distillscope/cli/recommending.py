"""The command that says what to change: recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillscope.cli.json_option import Json, JsonAfterFolders, put_json
from distillscope.cli.root import app


@app.command("recommend", cls=JsonAfterFolders)
def recommend_(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="DIR...",
                                                   help="run directories of one teacher, data set and noise")],
    for_: Annotated[str, typer.Option("--for", help="balance, accuracy, retrieval, robustness or geometry")] = "balance",
    json_: Json = None,
    yaml_: Annotated[Path | None, typer.Option("--yaml", metavar="FILE", help="write the study to run next here")] = None,
) -> None:
    """What to change: a run's objectives, targets and remedies against its plain arm, at equal compute, per student.

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
    from distillscope.files.writing import write_text
    from distillscope.progress import Terminal, tell
    from distillscope.report.recommendation import advice_tables, recommend_runs
    from distillscope.report.sentences.recommendation import following_text, notes, sentence

    if for_ not in PURPOSES:
        raise unknown_name("--for", "purpose", for_, PURPOSES)
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
