"""The three pages are what they were: content, order, labels and roles, line by line; hostile names are text in every export.

Each page is made of invented or recorded numbers, so that every machine writes the same one. Drawings are replaced by a dot,
since matplotlib's take most of the time and are tested elsewhere.

A change that is meant is recorded again, and read in the diff of the outlines, with

    PYTHONPATH=src:tests python tests/report/test_pinned_pages.py [NAME ...]

which prints what changed, and writes it. ``--pages FOLDER`` writes the pages themselves, with their drawings, to look at.
"""

from __future__ import annotations

import csv
import difflib
import functools
import io
import json
import lzma
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from builders.browser import outline
from builders.planted import planted_run, write_run
from builders.synthetic_run import keep_pictures, make_run
from distillscope.compare.runs import compare_runs
from distillscope.measure.results import Audit
from distillscope.progress import Terminal
from distillscope.report import audit_page, compare_page, study_page
from distillscope.report.claims import claims_of, claims_table, markdown
from distillscope.report.study_page import write_results
from distillscope.report.tables import build_table, terminal_table, to_csv, to_latex, to_markdown
from distillscope.results.audit_file import read_audit
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary
from distillscope.visible import HIDDEN, NUMBER

FIXTURES = Path(__file__).parents[1] / "fixtures" / "pages"
OLDER_RUN = FIXTURES.parent / "run-148b24f.tar.xz"
SUITE = {"corruption=none": (0.9, 0.7), "corruption=fog/1": (0.8, 0.6), "corruption=fog/5": (0.5, 0.4),
         "corruption=snow/1": (0.7, 0.3),
         "band=0-0.25/0.1": (0.6, 0.5), "band=0.75-1/0.1": (0.6, 0.65)}
TOP_K = {"top_k=16": 0.7, "top_k=64": 0.8, "top_k=16/0.2": 0.5, "top_k=64/0.2": 0.4, "top_k=all": 0.82, "top_k=all/0.2": 0.35}
PROVENANCE = {"distillscope": "0.1.0", "versions": {"numpy": "2.2.0"}, "hardware": "2 cores", "commit": None, "threads": 0,
              "seconds": 61.5,
              "command": "not this one", "normalize": "l2"}
COMMAND = "distillscope audit --teacher t.npy --student 's s.npy' --out audit"
RECORDED, AUDITS = FIXTURES / "outlines.txt.xz", FIXTURES / "audits.json.xz"
SHOWN = 60
"""Lines of a difference that are printed."""
NASTY = "=1+1|<img src=x onerror=alert(1)>\n# `x` \\input{/etc/passwd} \x1b]0;pwn\x07\x9b31m\u202e"
STATIC = Path(__file__).parents[2] / "src" / "distillscope" / "report" / "static"


def _dot(figures: list, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        if figure.panels:
            Image.new("RGB", (4, 4)).save(folder / f"{figure.key}.png")


def _stressed(run: Path) -> Path:
    """Adds every stress: rows to the teacher and to all trials, heat maps, curves of the gradient and the time of an image."""
    for path in [*run.glob("references/*/results.csv"), *run.glob("trials/*/results.csv")]:
        frame = pd.read_csv(path)
        head = frame.iloc[0].to_dict()
        is_teacher = head["student"] == "teacher"
        side, luck = ("teacher", 0.0) if is_teacher else ("student", 0.01 * [42, 123, 456].index(head["seed"]))
        rows = [(f"paper.probe.{side}.accuracy", c, v[not is_teacher] + luck) for c, v in SUITE.items()]
        rows += [(f"noise_probe.paper.{side}.{what}", c, v + luck) for what, c, v in (
            ("accuracy", "noise_probe=0", 0.7), ("clean_fit_accuracy", "noise_probe=0.2", 0.3),
            ("accuracy", "noise_probe=0.2", 0.5))]
        rows += [("capacity.latency_ms", "clean", 9.0 if is_teacher else 3.0)]
        rows += [(f"top_k.paper.{side}.accuracy", c, v) for c, v in TOP_K.items()] if is_teacher else []
        more = pd.DataFrame([{**head, "measure": m, "condition": c, "value": v, "n": 500} for m, c, v in rows])
        pd.concat([frame, more]).to_csv(path, index=False)
        (path.parent / "stress").mkdir()
        np.save(path.parent / "stress" / "fourier.paper.probe.npy", np.linspace(0.1, 0.6 + luck, 9).reshape(3, 3))
        curves = json.loads((path.parent / "curves.json").read_text())
        curves[f"stress.gradient.{side}"] = {"x": [0.25, 0.5, 0.75, 1.0], "y": [0.5, 0.8, 0.9, 1.0], "low": None, "high": None,
                                             "unit": "share"}
        (path.parent / "curves.json").write_text(json.dumps(curves))
    return run


def study(folder: Path) -> Path:
    """Two arms, every stress, pictures, published values, claims."""
    run = make_run(folder / "run", arms=("cosine", "augmented"), target="pca512", spread="population", published=[
        {"student": "S", "condition": "clean", "measure": "student.effective_rank", "value": 15.91},
        {"student": "L", "condition": "noise=0.1", "measure": "paper.probe.student.accuracy", "value": 0.4376, "std": 0.061},
        {"student": "XL", "condition": "clean", "measure": "student.effective_rank", "value": 1.0}])
    return study_page.write_report(keep_pictures(_stressed(run), count=24))


def partial_study(folder: Path) -> Path:
    """Two teachers, no labels, no provenance, one seed; a trial is missing, one warns, one has no number, one is damaged."""
    run = make_run(folder / "run", teachers=("clip-vit-b32", "dinov2"), students=("S", "M"), seeds=(42,), labels=False,
                   provenance=False,
                   incomplete=[("cosine", "M", 42)])
    trial = run / "trials" / "cifar10--clip-vit-b32--cosine--S--seed42"
    done = json.loads((trial / "complete.json").read_text())
    (trial / "complete.json").write_text(json.dumps({**done, "warnings": ["the loss rose <twice>"]}))
    frame = pd.read_csv(trial / "results.csv")
    frame.loc[frame["measure"] == "paper.uniformity", "value"] = np.nan
    frame.to_csv(trial / "results.csv", index=False)
    return study_page.write_report(run)


def ranked_study(folder: Path) -> Path:
    """Arms of every kind with planted means, so that claims are decided and arms are ranked."""
    run = planted_run(arms="one four", seeds=range(1, 6))
    return study_page.write_report(write_run(run, folder / "run"))


def older_study(folder: Path) -> Path:
    """A run that a real study left."""
    with tarfile.open(OLDER_RUN) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # no argument of it before Python 3.11.4
        archive.extractall(folder)
    return study_page.write_report(folder / "run")


def recorded_audit(folder: Path, name: str, **changes: Any) -> Audit:
    """One of the recorded audits, each the text of its .json, with some fields changed."""
    path = folder / f"{name}.json"
    path.write_text(json.loads(lzma.decompress(AUDITS.read_bytes()))[name])
    held, found = json.loads(path.read_text()), read_audit(path, name)
    for part in ("repeats", "precision", "scaled", "labels"):
        setattr(found, part, held[part])
    for part, value in changes.items():
        setattr(found, part, value)
    return found


def audit(folder: Path) -> Path:
    """Labels, rows that were dropped, and how both files were read."""
    found = recorded_audit(folder, "labelled", inputs={
        "teacher": {"said": "t.npy: (500, 64) float64"}, "student": {"said": "s s.npy: column 'z', (510, 64) float32"},
        "pairing": {"said": "rows were paired by id"}, "images": {"note": "<none>"}})
    found.notes += ["10 rows of <s s.npy> have no partner and were dropped."]
    return audit_page.write_audit(found, folder / "out", teacher="t.npy", student="<s s>.npy", command=COMMAND,
                                  provenance=PROVENANCE)


def plain_audit(folder: Path) -> Path:
    """No labels, and a student of other dimensions."""
    return audit_page.write_audit(recorded_audit(folder, "dimensions"), folder / "out", teacher="t.npy", student="s.npy",
                                  command=COMMAND,
                                  provenance={})


def _shifted(run: Path, by: float, **changes: Any) -> Path:
    for path in run.glob("trials/*/results.csv"):
        frame = pd.read_csv(path)
        frame.loc[frame["measure"] == "student.effective_rank", "value"] += by + 0.01 * (frame["seed"].iloc[0] % 10)
        frame.to_csv(path, index=False)
    held = yaml.safe_load((run / "study.yaml").read_text())
    (run / "study.yaml").write_text(yaml.safe_dump({**held, **changes}))
    return run


def _predicting(run: Path, share: float) -> Path:
    for k, path in enumerate(sorted(run.glob("trials/*"))):
        labels = np.arange(300) % 10
        columns: dict[str, Any] = {"id": [f"test/{i}" for i in range(300)], "label": labels}
        for name in ("paper|clean|", "paper|noise=0.2|0", "paper|noise=0.2|1"):
            columns[name] = np.where((np.arange(300) * (k + 7)) % 300 < 300 * share, labels, (labels + 1) % 10)
        pd.DataFrame(columns).to_parquet(path / "predictions.parquet", index=False)
    return run


def compared_studies(folder: Path) -> Path:
    """Three runs: other training and predictions of the same items in one, other noise, seeds and students in the other."""
    small = {"students": ("S", "M"), "dim": 24, "epochs": 2}
    first = _predicting(make_run(folder / "short", **small), 0.6)
    second = _predicting(_shifted(make_run(folder / "long <er>", **small), 1.2, training={"epochs": 9}), 0.7)
    third = _shifted(make_run(folder / "apart", seeds=(1, 2), students=("S", "XL"), dim=24, epochs=2), 0.3,
                     noise={"where": "input", "sigmas": [0.2]})
    found = compare_runs([first, second, third])
    return compare_page.write_comparison(found, folder / "out", "distillscope compare short 'long <er>' apart --out out")


def compared_audits(folder: Path) -> Path:
    """Three audits, of which one has fewer items and another teacher."""
    recorded_audit(folder, "labelled")
    recorded_audit(folder, "dimensions")
    held = json.loads((folder / "labelled.json").read_text())
    for value in held["measures"].values():
        value["n"] = min(value["n"], 300)
    held["measures"]["teacher.effective_rank"]["value"] += 1
    (folder / "fewer.json").write_text(json.dumps(held))
    found = compare_runs([folder / f"{name}.json" for name in ("labelled", "dimensions", "fewer")])
    return compare_page.write_comparison(found, folder / "out",
                                          "distillscope compare labelled.json dimensions.json fewer.json")


PAGES: dict[str, Callable[[Path], Path]] = {f.__name__: f for f in (
    study, partial_study, ranked_study, older_study, audit, plain_audit, compared_studies, compared_audits)}


def written(name: str, folder: Path, draw: bool = False) -> str:
    """The text of one of `PAGES`, written under ``folder``, which is emptied and is called FOLDER in the text."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    modules = (study_page, audit_page, compare_page)
    drawing = [m.write_figures for m in modules]
    try:
        for module in modules if not draw else ():
            module.write_figures = _dot
        return PAGES[name](folder).read_text(encoding="utf-8").replace(str(folder.resolve()), "FOLDER")
    finally:
        for module, own in zip(modules, drawing, strict=True):
            module.write_figures = own


@functools.cache
def recorded() -> dict[str, str]:
    """Every outline, by the page's name."""
    text = lzma.decompress(RECORDED.read_bytes()).decode() if RECORDED.is_file() else ""
    return {name: outlined for part in text.split("\f") if part for name, _, outlined in [part.partition("\n")]}


def difference(name: str, now: str) -> list[str]:
    """The lines that differ, each with the two above it."""
    before = recorded().get(name, "")
    return list(difflib.unified_diff(before.splitlines(), now.splitlines(), "recorded", "now", lineterm="", n=2))


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_it_was(name, tmp_path):
    lines = difference(name, outline(written(name, tmp_path / name)))
    more = f"\n... and {len(lines) - SHOWN} lines more" if len(lines) > SHOWN else ""
    assert not lines, f"the page '{name}' changed:\n" + "\n".join(lines[:SHOWN]) + more


def record(names: list[str]) -> None:
    known = recorded()
    for name in names or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            now = outline(written(name, Path(folder) / name))
        print("\n".join([f"{name}, {len(now.splitlines())} lines:", *difference(name, now)]))
        known[name] = now
    text = "".join(f"\f{name}\n{known[name]}" for name in PAGES)
    RECORDED.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("hostile") / "run", students=(f"S{NASTY}", f"@{NASTY}"),
                             arms=(f"+a{NASTY}", f"-b{NASTY}"),
                             datasets=(NASTY,), teachers=(f"t{NASTY}",), seeds=(1, 2), draws=1, epochs=1, dim=8))


def table(run):
    return build_table(run, settings_of(run), Summary.of(run))


def test_no_cell_of_an_exported_table_is_a_formula(run):
    cells = [c for row in csv.reader(io.StringIO(to_csv(table(run)))) for c in row]
    assert not [c for c in cells if c[:1] in ("=", "+", "-", "@", "\t") and not NUMBER.fullmatch(c)]
    assert any(c.startswith("'@") for c in cells)


def test_no_cell_of_the_joined_results_is_a_formula(run):
    with open(write_results(run), newline="", encoding="utf-8") as file:
        cells = [c for row in csv.reader(file) for c in row]
    assert not [c for c in cells if c[:1] in ("=", "+", "-", "@", "\t") and not NUMBER.fullmatch(c)]
    assert {f"'+a{NASTY}", f"'-b{NASTY}", f"'@{NASTY}"} <= set(cells)


def test_markdown_keeps_its_tables_and_holds_no_html(run):
    for text in (to_markdown(table(run)), markdown(claims_of(run))):
        assert "<img" not in text and not HIDDEN.search(text)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
        assert not [line for line in text.splitlines() if re.match(r"# `|# \\`", line)]


def test_latex_holds_no_command_and_no_line_of_a_name(run):
    text = to_latex(table(run))
    assert "\\input" not in text and not HIDDEN.search(text)
    assert all(line.startswith(("%", "\\")) or line.endswith("\\\\") or not line for line in text.splitlines())


def test_no_escape_sequence_reaches_the_terminal(run):
    out = io.StringIO()
    terminal = Terminal(file=out, force_terminal=False, width=200)
    terminal.print(terminal_table(run.path))
    for decision in claims_of(run).decisions:
        terminal.print(claims_table(decision))
    assert not HIDDEN.search(out.getvalue()) and "pwn" in out.getvalue()


def test_the_program_may_still_colour(run):
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard").print("[red]a[/red]\x1b[32m")
    assert out.getvalue().count("\x1b[31m") == 1 and "\x1b[32m" not in out.getvalue()


@pytest.mark.parametrize("script", sorted(p.name for p in STATIC.glob("*.js")))
def test_no_script_of_the_page_makes_html_of_text(script):
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser",
                          (STATIC / script).read_text())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pages"]:
        for page in PAGES:
            written(page, Path(sys.argv[2]) / page, draw=True)
    else:
        record(sys.argv[1:])
