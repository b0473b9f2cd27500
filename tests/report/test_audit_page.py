"""The page of an audit: its values are the audit's, nothing in it can run or load, and a browser draws it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from builders.browser import Elements, data_of, undrawn
from builders.tiny import FEW, labelled, of_two_dimensions, pixels
from distillscope.measure.audit import audit, audit_one
from distillscope.measure.results import Audit
from distillscope.report.audit_page import Audited, audit_page, write_audit
from distillscope.report.figures.figure import Figure
from distillscope.report.page import AUDIT_FIGURES, script_hash
from distillscope.report.sentences.audit import advice

PROVENANCE = {"distillscope": "0.1.0", "versions": {"numpy": "2.2.0"}, "hardware": "2 cores", "commit": None, "threads": 0,
              "seconds": 61.5, "command": "not this one", "normalize": "l2"}
COMMAND = "distillscope audit --teacher t.npy --student 's s.npy' --out audit"


def written(found: Audit, folder, teacher="t.npy", student="s.npy"):
    return write_audit(found, folder, teacher=teacher, student=student, command=COMMAND, provenance=PROVENANCE)


def text_of(found: Audit, tmp_path) -> str:
    """The page without its static figures, which take most of the time."""
    return audit_page(Audited(found, tmp_path, "t.npy", "s.npy", COMMAND, PROVENANCE))


def figures_of(found: Audit) -> list[Figure]:
    return list(AUDIT_FIGURES.drawn(Audited(found, Path("nowhere"), "t.npy", "s.npy", COMMAND, PROVENANCE)).values())


def visible(page: str) -> str:
    """The page before its scripts, as text."""
    body = page[page.index("<body"): page.index('<script type="application/json"')]
    return html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "new" / "out"
    with undrawn(laid=True):
        assert written(labelled(), folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_folder_holds_the_same_numbers_three_times(folder, page):
    found = labelled()
    read = json.loads((folder / "audit.json").read_text())
    frame = pd.read_csv(folder / "measures.csv").set_index("measure")
    shown = data_of(page)["measures"]
    assert list(shown) == list(frame.index) == list(read["measures"]) == list(found.measured)
    for key, value in found.measured.items():
        assert shown[key]["value"] == read["measures"][key]["value"] == frame.loc[key, "value"] == value.value
        assert shown[key]["low"] == value.low and shown[key]["n"] == value.n
    assert set(frame["teacher"]) == {"t.npy"} and set(frame["student"]) == {"s.npy"}
    figures = {f.key for f in figures_of(found)}
    assert {p.name for p in (folder / "figures").iterdir()} == {f"{k}.{s}" for k in figures for s in ("svg", "png")}
    assert not list(folder.glob("**/.*")), "no temporary file is left"


def test_every_measure_is_in_the_table_with_its_definition(page):
    found, cells = labelled(), visible(page)
    keys = " ".join(a["data-keys"] for t, a in Elements(page).found if "data-keys" in a).split()
    assert set(found.measured) <= set(keys)
    shown = [line.student or line.teacher for line in found.lines()]  # both sides are defined alike
    assert not [v.definition for v in shown if " ".join(v.definition.split()) not in " ".join(cells.split())]


def test_the_page_says_verdict_merits_reasons_and_the_command(page):
    said = " ".join(visible(page).split())
    assert "Most was lost, above all in distinguishing individual items: 42 % of the student's queries" in said
    assert "on these labels it matters, since a linear probe keeps 94.2 % of the teacher's accuracy" in said
    assert "(91.0 % against 96.6 %)." in said
    for title in ("Effective rank", "R² of the teacher", "Accuracy", "Recall at 1", "Shared neighbours", "What was lost",
                  "Does it matter?", "All measures", "What was left out, and why", "Provenance", "McNemar p < 0.001"):
        assert title in said, title
    assert "It needs embeddings of the class names, and none were given" in said and "zero_shot.retention" in said
    assert COMMAND in said and "not this one" not in said and "numpy 2.2.0" in said and "1 min 2 s" in said
    assert "threads" not in said and "commit" not in said, "what is not known is not shown"


def test_nothing_loads_and_only_our_scripts_run(page):
    parsed = Elements(page)
    policy = next(a["content"] for t, a in parsed.found if a.get("http-equiv") == "Content-Security-Policy")
    scripts = [text for a, text in parsed.scripts if a.get("type") != "application/json"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert len(scripts) == 2 and all(script_hash(s) in policy for s in scripts), "Plotly once, ours once"
    for tag, attributes in parsed.found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes[name][:60])
    assert len(page.encode()) < 6_000_000


def test_hostile_names_are_text(tmp_path):
    names = {"teacher": "</title><script>alert(1)</script>.npy", "student": "<img src=x onerror=alert(2)>$a ${data} \"q\" 'p'"}
    classes = np.array(["<b onclick=alert(3)>", "</script>", "&amp;"])[np.arange(60) % 3]
    z = np.random.default_rng(0).normal(size=(60, 5))
    found = audit(z, z, classes, settings=FEW, groups={"spectrum", "knn"}, intervals=False)
    found.notes.append("<script>alert(4)</script> dropped 3 items")
    found.left_out["<i>"] = "<script>alert(5)</script>"
    page = written(found, tmp_path / "<out>", **names).read_text(encoding="utf-8")
    parsed = Elements(page)
    assert len(parsed.scripts) == 3 and not re.search(r"<script>alert", page)
    assert not any(a.get("src") == "x" or "onerror" in a or "onclick" in a for _, a in parsed.found)
    for text in (*names.values(), "<script>alert(4)</script> dropped 3 items", "<script>alert(5)</script>"):
        assert " ".join(text.split()) in " ".join(html.unescape(page[: page.index("<main>") if "dropped" in text
                                                                     else -1]).split()), text
    assert data_of(page)["study"].startswith(names["student"])


def test_an_audit_that_replaces_another_leaves_none_of_its_figures(tmp_path):
    written(audit(z(), z(seed=1), settings=FEW, groups={"spectrum", "similarity"}, intervals=False), tmp_path)
    written(audit(z(), z(seed=1), settings=FEW, groups={"similarity"}, intervals=False), tmp_path)
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"similarity.svg", "similarity.png"}


def z(n=40, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


EDGES = {
    "no labels, two dimensions": of_two_dimensions,
    "the teacher as its own student": lambda: audit(z(), z(), np.arange(40) % 2, settings=FEW),
    "one group": lambda: audit(z(), z(seed=1), settings=FEW, groups={"retrieval"}),
    "two groups without intervals": lambda: audit(z(), z(seed=1), settings=FEW, groups={"spectrum", "similarity"},
                                                  intervals=False),
    "one side": lambda: audit_one(z()),
    "the student's side": lambda: audit_one(z(), side="student", intervals=False),
    "two dimensions, ten rows": lambda: audit(z(10, 2), z(10, 2, 1), settings=FEW),
    "a constant student": lambda: audit(z(), np.ones((40, 6)), np.arange(40) % 2, settings=FEW),
    "fewer items than dimensions": lambda: audit(z(20, 30), z(20, 30, 1), settings=FEW),
    "nothing at all": Audit,
}


@pytest.mark.parametrize("case", EDGES)
def test_any_audit_has_a_page(case, tmp_path):
    found = EDGES[case]()
    page = text_of(found, tmp_path)
    keys = " ".join(a["data-keys"] for t, a in Elements(page).found if "data-keys" in a).split()
    assert set(found.measured) <= set(keys)
    assert "nan" not in re.findall(r"\b\w+\b", visible(page).lower()) and "none" not in re.findall(r"\bNone\b", visible(page))
    for figure in figures_of(found):
        assert figure.panels or figure.absent
        for series in (s for p in figure.panels for s in p.series):
            assert len(series.x) == len(series.y) > 0 and np.isfinite(series.y).all()


def test_a_perfect_student_has_lost_nothing(tmp_path):
    said = visible(text_of(EDGES["the teacher as its own student"](), tmp_path))
    assert "No loss was found" in said and "it matters" not in said


def test_without_labels_the_verdict_speaks_of_search(tmp_path):
    said = " ".join(visible(text_of(of_two_dimensions(), tmp_path)).split())
    assert "after one fitted matrix" in said
    assert "no accuracy was measured, so we cannot tell what that costs a classifier" in said
    assert "it compares coordinates, and the teacher has 64 dimensions, the student 20" in said


def test_large_curves_are_thinned_on_the_page_alone(tmp_path):
    found = audit(z(700, 600), z(700, 600, 1), groups={"spectrum"}, intervals=False, settings=FEW)
    figures = {f["key"]: f for f in data_of(text_of(found, tmp_path))["figures"]}
    drawn = figures["spectrum"]["panels"][1]["data"][0]
    assert len(drawn["x"]) <= 400 and drawn["x"][0] == 1 and drawn["x"][-1] == 600
    known = dict(zip(found.curves["teacher.cumulative_variance"].x, found.curves["teacher.cumulative_variance"].y, strict=True))
    assert drawn["y"] == pytest.approx([known[x] for x in drawn["x"]], rel=5e-5)  # five digits
    assert len(found.curves["teacher.cumulative_variance"].x) == 600


def test_every_figure_has_alternative_text(page):
    plots = [a for t, a in Elements(page).found if a.get("class") == "plot"]
    assert len(plots) == 19 and all(a["role"] == "figure" and len(a["aria-label"]) > 20 for a in plots)


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1600])
def test_a_browser_draws_it_without_an_error(folder, browser, width):
    with browser.opened((folder / "report.html").as_uri(), width) as tab:
        seen = tab.sizes()
        assert seen["width"] == width and len(seen["plots"]) == 19 and all(100 < w <= seen["width"] for w in seen["plots"])


@pytest.mark.slow
def test_search_sort_highlight_and_csv_work_in_a_browser(folder, browser):
    with browser.opened((folder / "report.html").as_uri(), 1200) as tab:
        seen = tab.ask("""
      const box = document.querySelector("[data-search]"), shown = () => [...document.querySelectorAll("#measures tbody tr")]
        .filter((r) => !r.hidden).map((r) => r.dataset.keys.split(" ")[0]);
      const all = shown().length;
      box.value = "recall_at mapped retrieval"; box.dispatchEvent(new Event("input"));
      const found = shown(), said = document.getElementById("measures-count").textContent;
      box.value = "student.dims_90"; box.dispatchEvent(new Event("input"));
      const byKey = shown();
      box.value = ""; box.dispatchEvent(new Event("input"));
      const heads = [...document.querySelectorAll("#measures thead button")];
      heads[3].click(); heads[3].click();
      const rows = [...document.querySelectorAll("#measures tbody tr")];
      const retained = rows.map((r) => r.cells[3].dataset.sort).filter(Boolean).map(Number);
      document.querySelector('.chip[data-highlight="student"]').click();
      let csv = null; URL.createObjectURL = (b) => { csv = b.text(); return "blob:x"; };
      HTMLAnchorElement.prototype.click = function () {};
      document.querySelector('#figure-accuracy [data-do="csv"]').click();
      const spectrum = document.querySelector("#figure-spectrum .plot");
      return { all, found, said, byKey, retained, csv: await csv,
        sorted: heads[3].parentElement.getAttribute("aria-sort"), axis: spectrum.layout.yaxis.type,
        faded: spectrum.data.filter((t) => t.opacity < 0.2).map((t) => t.meta.highlight) };""")
    assert seen["all"] == len(labelled().lines()) and seen["byKey"] == ["teacher.dims_90"]
    assert seen["found"] == [f"retrieval.mapped_recall_at_{k}" for k in (1, 5, 10)]
    assert seen["said"] == f"3 of {seen['all']}"
    assert seen["sorted"] == "descending" and seen["retained"] == sorted(seen["retained"], reverse=True)
    assert seen["axis"] == "log" and seen["faded"] == ["teacher"]
    assert seen["csv"].startswith("panel,model,kind,x,y,low,high,n\nAccuracy,teacher,points,-0.1,0.966,")


def test_the_drawn_points_are_the_audits(page):
    found = labelled()
    figures = {f["key"]: f["panels"] for f in data_of(page)["figures"]}
    teacher, student = figures["accuracy"][0]["data"]
    heads = ("probe", "paper.probe", "knn")
    assert teacher["y"] == pytest.approx([found[f"{h}.teacher.accuracy"] for h in heads], rel=1e-6)
    assert student["customdata"][2] == pytest.approx([found.measured["knn.student.accuracy"].low,
                                                      found.measured["knn.student.accuracy"].high], rel=1e-6)
    assert student["text"][0] == f"probe, tuned, n = {len(pixels()[0]):,}"
    kept = figures["contrastive"][0]["data"][1]
    assert kept["y"][-1] == pytest.approx(np.log(500) - found["contrastive.infonce"], rel=1e-6)
    shuffled = figures["similarity"][0]["data"][1]
    assert shuffled["meta"]["highlight"] == "null"
    assert shuffled["y"][0] == pytest.approx(found["similarity.linear_cka_debiased_null"], rel=1e-6)


def test_what_to_try_has_a_number_behind_it():
    said = " ".join(advice(labelled()))
    assert "of the teacher's energy" in said and "recommend" in said and "nothing" not in said.lower()
    teacher, _, _ = pixels()
    centred = teacher - teacher.mean(axis=0)
    assert advice(audit(centred, centred, settings=FEW)) == ["Nothing that was measured calls for a change."]
