"""write_report as a whole: every file is there, none of the awkward runs stops it; what stresses cost beside the teacher.

A new section is a function and a template, a new figure a function; pages are made by templates and by nothing else.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from jinja2 import UndefinedError

from builders import refused
from distillscope.errors import UserError
from distillscope.report.context.study import beside_teacher, corruption_table
from distillscope.report.figures.figure import Figure
from distillscope.report.page import STUDY, STUDY_FIGURES, Figures, Sections, environment, render
from distillscope.report.study_page import write_report
from distillscope.report.tables import terminal_table
from distillscope.results.models import settings_of
from distillscope.results.robustness import against_teacher, mean_corruption_error
from distillscope.results.run import read_run
from distillscope.results.summary import Summary, suite_over_seeds

FIGURES = ["noise", "cumulative_variance", "effective_rank", "cosine_rank", "alignment", "information", "training"]


@pytest.fixture
def make(make):
    """Runs of few and small trials, but for what a test asks for."""
    small = {"students": ("S", "L"), "seeds": (42, 123), "dim": 24, "epochs": 2}
    return lambda path, **more: make(path, **{**small, **more})


def shown(run: Path) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(run))
    return console.export_text()


def test_a_narrow_terminal_gets_the_columns_whose_words_fit(make, tmp_path):
    from rich.console import Console

    run = make(tmp_path / "run", arms=("cosine", "noise"))
    lines = []
    for width in (200, 80, 60):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(terminal_table(run, width))
        lines.append(console.export_text().splitlines())
    wide, narrow, narrowest = ({w for line in found if line[:1] in "│┃" for w in line.split()} for found in lines)
    assert all(max(map(len, found)) <= width for found, width in zip(lines, (200, 80, 60), strict=True))
    assert narrowest < narrow <= wide, "no word is cut"
    assert {"teacher", "clean", "cosine", "0.2"} <= narrow and {"teacher", "clean", "0.2"} <= narrowest
    said = " ".join(" ".join(lines[1]).split())
    assert "InfoNCE" in wide - narrow
    assert re.search(r"This terminal is too narrow for dims 90 %.*: the run's tables/table.md has them", said)


def test_everything_is_written(reported):
    names = ["results.csv", "summary.json", "report.html", "tables/table.md", "tables/table.tex", "tables/table.csv",
             *(f"figures/{key}.{suffix}" for key in FIGURES for suffix in ("svg", "png"))]
    for name in names:
        assert (reported / name).stat().st_size > 100, name
    assert (reported / "report.html").stat().st_size < 8e6


def test_results_are_the_trials_results_to_the_last_digit(reported):
    whole = pd.read_csv(reported / "results.csv", dtype=str, keep_default_na=False)
    parts = pd.concat([pd.read_csv(p, dtype=str, keep_default_na=False) for p in
                       sorted(reported.glob("references/*/results.csv")) + sorted(reported.glob("trials/*/results.csv"))])
    assert len(whole) == len(parts)
    assert whole["value"].map(float).tolist() == parts["value"].map(float).tolist()
    assert whole["seed"].tolist() == parts["seed"].tolist()


def test_reporting_twice_gives_the_same_files(make, tmp_path):
    run = make(tmp_path / "run")
    write_report(run)
    first = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    write_report(run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == first


AWKWARD = {
    "partial": ({"incomplete": [("cosine", "S", 42), ("cosine", "L", 123)]}, "2 of 4 trials are complete"),
    "one seed": ({"seeds": (42,)}, "n = 1 seed, no interval"),
    "no labels": ({"labels": False}, "No accuracy: this run has no labels"),
    "no provenance": ({"provenance": False}, "</html>"),
    "crossed": ({"datasets": ("cifar10", "cifar100"), "teachers": ("clip", "dinov2"), "students": ("S",)}, "</html>"),
    "one student": ({"students": ("only",)}, "</html>"),
    "no log": ({"epochs": 0}, "</html>"),
    "teacher alone": ({"incomplete": [("cosine", s, n) for s in "SL" for n in (42, 123)]}, "</html>"),
    "at the input": ({"where": "model input"}, "</html>"),
}
"""What `make` is asked for, and what the page then holds."""


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_runs_are_reported(make, tmp_path, case, laid):
    how, said = AWKWARD[case]
    run = make(tmp_path / "run", **how)
    assert said in write_report(run).read_text(encoding="utf-8") and shown(run)
    summary = json.loads((run / "summary.json").read_text())
    if case == "partial":
        assert summary["missing"] == [f"cifar10--clip-vit-b32--cosine--{name}" for name in ("S--seed42", "L--seed123")]
        assert pd.read_csv(run / "results.csv").query("student == 'S'")["seed"].tolist().count(42) == 0
    if case == "one seed":
        assert all(q["low"] is None and q["std"] is None for q in summary["quantities"])
    assert (run / "figures" / "noise.svg").exists() == (case != "no labels")


def test_a_run_in_which_nothing_has_finished(make, tmp_path):
    run = make(tmp_path / "run")
    shutil.rmtree(run / "trials")
    shutil.rmtree(run / "references")
    page = write_report(run).read_text(encoding="utf-8")
    assert "No trial of this study has finished yet." in page
    assert len(pd.read_csv(run / "results.csv")) == 0


def test_a_damaged_trial_is_named_and_the_rest_is_shown(make, tmp_path):
    run = make(tmp_path / "run")
    damaged = next(iter(sorted((run / "trials").iterdir())))
    (damaged / "results.csv").write_text("measure,value\nx,1\n")
    page = write_report(run).read_text(encoding="utf-8")
    assert f"trials/{damaged.name}: says that it is complete, but cannot be read" in page
    assert json.loads((run / "summary.json").read_text())["complete"] == 3


def test_a_value_that_is_not_finite_is_left_out_and_counted(make, tmp_path):
    run = make(tmp_path / "run", students=("S",))
    path = next(iter(sorted((run / "trials").glob("*seed42")))) / "results.csv"
    frame = pd.read_csv(path)
    frame.loc[frame["measure"] == "student.effective_rank", "value"] = float("nan")
    frame.to_csv(path, index=False)
    page = write_report(run).read_text(encoding="utf-8")
    quantities = json.loads((run / "summary.json").read_text())["quantities"]
    rank = next(q for q in quantities if q["measure"] == "student.effective_rank")
    assert rank["n_seeds"] == 1 and rank["seeds"] == [123]
    assert "1 values are not finite" in page


@pytest.mark.parametrize(("name", "content", "said"), [("study.yaml", "- a list", "expected a mapping, got list"),
                                                       ("study.yaml", "a: [", "study.yaml line 1, column 5: expected YAML")])
def test_a_broken_record_is_one_line(make, tmp_path, name, content, said):
    run = make(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(UserError, match=said):
        write_report(run)


def test_a_broken_provenance_costs_no_report(make, tmp_path):
    run = make(tmp_path / "run")
    (run / "provenance.json").write_text("{")
    assert "provenance.json" in write_report(run).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run(tmp_path):
    with refused(expected="study.yaml"):
        write_report(tmp_path)


SUITE = {"corruption=none": (0.9, 0.7), "corruption=fog/1": (0.8, 0.6), "corruption=fog/5": (0.5, 0.4),
         "corruption=snow/1": (0.7, 0.3)}
NOISE = {("accuracy", "noise_probe=0"): 0.7, ("clean_fit_accuracy", "noise_probe=0.2"): 0.3,
         ("accuracy", "noise_probe=0.2"): 0.5}


def stressed(folder, make, **more):
    """A run with corruptions and a noise probe of known accuracies; a seed's own luck is a hundredth of its rank."""
    run = make(folder, **{"students": ("S",), "seeds": (42, 123, 456), "epochs": 1, **more})
    for path in [*run.glob("references/*/results.csv"), *run.glob("trials/*/results.csv")]:
        frame = pd.read_csv(path)
        head = frame.iloc[0].to_dict()
        teacher = head["student"] == "teacher"
        side, luck = ("teacher", 0.0) if teacher else ("student", 0.01 * [42, 123, 456].index(head["seed"]))
        rows = [{**head, "condition": c, "measure": f"paper.probe.{side}.accuracy", "value": v[not teacher] + luck, "n": 500}
                for c, v in SUITE.items()]
        rows += [{**head, "condition": c, "measure": f"noise_probe.paper.{side}.{what}", "value": v + luck, "n": 500}
                 for (what, c), v in NOISE.items()]
        pd.concat([frame, pd.DataFrame(rows)]).to_csv(path, index=False)
    return run


def parts(folder):
    run = read_run(folder)
    return run, settings_of(run), Summary.of(run)


def test_the_numbers_are_those_of_the_measures(tmp_path, make):
    run, (setting,), _ = parts(stressed(tmp_path / "run", make))
    found = suite_over_seeds(setting.students[0], corruption_table(run, "paper.probe"))
    assert found["accuracy"].mean == pytest.approx((0.6 + 0.4 + 0.3) / 3 + 0.01) and found["accuracy"].n_seeds == 3
    assert found["accuracy"].n == 500
    teacher = [[0.8, 0.5], [0.7]]
    errors = [sum((1 - s).sum() / (1 - t).sum() for s, t in ((pd.Series([0.6, 0.4]) + k, pd.Series([0.8, 0.5])),
                                                             (pd.Series([0.3]) + k, pd.Series([0.7])))) / 2
              for k in (0.0, 0.01, 0.02)]
    assert found["error"].mean == pytest.approx(sum(errors) / 3)
    assert errors[0] == pytest.approx((mean_corruption_error([[0.6, 0.4]],
                                                             teacher[:1]) + mean_corruption_error([[0.3]], teacher[1:])) / 2)
    table = against_teacher(run.results)
    own = table[table["condition"].str.contains("/")].groupby("seed")["relative_retention"].mean()
    assert found["relative_retention"].mean == pytest.approx(own.mean())


def test_the_page_has_both_tables(tmp_path, make):
    page = write_report(stressed(tmp_path / "run", make, arms=("cosine", "<b>bold"))).read_text()
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page.partition('<script type="application/json"')[0]
    assert "Common corruptions beside the teacher" in page
    assert "Means over 3 corruptions and severities, on 500 test images" in page
    start = page.index("What noise moves")
    section = re.sub(r"<small>.*?</small>|<[^>]+>", " ", page[start:start + 4000])
    assert re.search(r"teacher\s+0\.2\s+70\.0\s+30\.0\s+20\.0\s+20\.0\s+1", section)
    assert re.search(r"S\s+0\.2\s+71\.0\s+31\.0\s+20\.0\s+20\.0\s+3", section)


def test_a_run_without_them_has_neither(tmp_path, make):
    assert not beside_teacher(*parts(make(tmp_path / "run", students=("S",), dim=24, epochs=1)))
    assert not beside_teacher(*parts(make(tmp_path / "bare", students=("S",), labels=False, dim=24, epochs=1)))


TOY = """{% from "_parts.html" import findings %}
{{ findings(said) }}<p>of {{ name }}</p>
"""


@pytest.fixture
def toys(tmp_path):
    """A page of two sections, one of which has nothing to show; the template of the other stands in a folder of its own."""
    (tmp_path / "toy.html").write_text(TOY)
    sections = Sections("study", "distillscope.report.context")

    @sections.register("toy", "A toy", order=2, question="Why?", folder=tmp_path)
    def toy(name: str) -> dict[str, object]:
        return {"said": ["<one>", "two"], "name": name}

    @sections.register("nothing", "Nothing to show", order=1)
    def nothing() -> None:
        return None

    return sections


def test_a_section_is_a_function_and_a_template(toys):
    (shown,) = toys.shown(SimpleNamespace(name="S & M", other=1))
    assert list(toys) == ["nothing", "toy"] and shown.name == "toy"
    assert "<li>&lt;one&gt;</li><li>two</li>" in shown.html and "<p>of S &amp; M</p>" in shown.html
    assert '<section id="toy" aria-labelledby="toy-title"><h2 id="toy-title">Why? A toy</h2>' in environment().get_template(
        "_parts.html").module.section(shown)


def test_a_value_that_the_template_lacks_raises(toys, tmp_path):
    (tmp_path / "toy.html").write_text("{{ unheard }}")
    with pytest.raises(UndefinedError, match="unheard"):
        toys.shown(SimpleNamespace(name="S"))


def test_the_studys_page_takes_a_section_up_where_it_says():
    @STUDY.register("toy", "A toy", order=25)
    def toy() -> None:
        return None

    try:
        names = list(STUDY)
        assert names[names.index("matter") : names.index("geometry") + 1] == ["matter", "toy", "geometry"]
        with pytest.raises(ValueError, match="'toy' of the page 'study' is registered twice"):
            STUDY.register("toy", "Again", order=26)(toy)
    finally:
        STUDY.remove("toy")
    assert "toy" not in list(STUDY)


def test_a_figure_is_made_from_what_its_signature_names():
    figures = Figures("toy", "distillscope.report.figures")

    @figures.register("second", order=2)
    def second(name: str) -> Figure:
        return Figure("second", name, "")

    @figures.register("first", order=1)
    def first(settings: list[str]) -> Figure | None:
        return Figure("first", settings[0], "") if settings else None

    assert [f.title for f in figures.drawn(SimpleNamespace(name="two", settings=["one"])).values()] == ["one", "two"]
    assert list(figures.drawn(SimpleNamespace(name="two", settings=[]))) == ["second"]
    assert list(figures.drawn(SimpleNamespace(name="two"), only=["second"])) == ["second"]


def test_every_figure_is_registered_under_its_own_key(reported):
    from distillscope.report.study_page import Findings
    from distillscope.results.run import read_run

    found = Findings.of(read_run(reported))
    assert all(key == figure.key for key, figure in found.figures.items())
    assert list(found.figures) == [k for k in STUDY_FIGURES if k in found.figures]


REPORT = Path(__file__).parents[2] / "src" / "distillscope" / "report"
TEMPLATES = sorted(p.relative_to(REPORT / "templates").as_posix() for p in (REPORT / "templates").rglob("*") if p.is_file())
PLOTLYS_OWN = {"draw/with_plotly.py"}
"""Plotly writes its labels in a little markup of its own, which is no part of the page."""


def html_in(source: str) -> list[str]:
    """The strings of a module that hold a tag, docstrings aside."""
    tree = ast.parse(source)
    documented = {id(node.body[0].value) for node in ast.walk(tree)
                  if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
                  and isinstance(node.body[0], ast.Expr)}
    documented |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in documented and re.search(r"<[a-z/!]", node.value)]


@pytest.mark.parametrize("module", sorted(p.relative_to(REPORT).as_posix() for p in REPORT.rglob("*.py")))
def test_no_module_holds_html(module):
    if module in PLOTLYS_OWN:
        pytest.skip("markup of Plotly's own")
    assert not html_in((REPORT / module).read_text(encoding="utf-8"))


def test_html_in_a_string_is_found():
    assert html_in("def f():\n    'A docstring may say <b>.'\n    return f'<b>{f}</b>'") == ["<b>", "</b>"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_compiles_and_lets_nothing_through(name):
    environment().get_template(name)
    unsafe = (r"\|\s*safe|autoescape|Markup|<script(?! type=\"application/json\" id=\"distillscope-data\")[^>]+>"
              r"|\son\w+=")
    assert not re.search(unsafe, (REPORT / "templates" / name).read_text(encoding="utf-8"))


def test_a_name_that_nobody_gave_raises(tmp_path):
    (tmp_path / "toy.html").write_text("{{ missing }}")
    with pytest.raises(UndefinedError, match="missing"):
        render("toy.html", tmp_path)


def test_what_is_put_in_is_text(tmp_path):
    (tmp_path / "toy.html").write_text('<p title="{{ name }}">{{ name }}</p>')
    assert render("toy.html", tmp_path, name='<b>"&') == '<p title="&lt;b&gt;&#34;&amp;">&lt;b&gt;&#34;&amp;</p>'
