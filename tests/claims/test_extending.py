"""docs/extending.md and docs/claims.md: their code is run and taken out again; presets run what claims ask for."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from builders import refused
from builders.planted import planted, planted_run
from builders.tiny import tiny_study, tiny_values
from distillscope.claims.results import results_of
from distillscope.claims.verdict import ORDER, decide_results, decided
from distillscope.config.load import load_preset, study_from
from distillscope.errors import UserError
from distillscope.measure.audit import audit
from distillscope.registry import KINDS, claims, objectives, remedies
from distillscope.report.registered import STUDY
from distillscope.report.render import environment
from distillscope.targets.transforms import check_target, fit_target

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks(language: str) -> dict[str, str]:
    """The first block of a language under each heading, by the heading's kind of part."""
    sections = re.findall(r"^## An? ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    kinds = {title.split(" of ")[0].replace(" ", "_"): text for title, text in sections}
    found = {kind: re.search(rf"^```{language}\n(.*?)^```", text, re.M | re.S) for kind, text in kinds.items()}
    return {kind: block[1] for kind, block in found.items() if block}


CODE = blocks("python")
SETTINGS = {kind: yaml.safe_load(text) for kind, text in blocks("yaml").items()}
TEMPLATE = blocks("html")["section"]
FILES = {"measure": "distillscope.measure.median_cosine", "objective": "distillscope.objectives.log_cosh",
         "projector": "distillscope.objectives.normed", "target": "distillscope.targets.rescaled",
         "view": "distillscope.data.grey",
         "corruption": "distillscope.data.darkness", "stress": "distillscope.stress.mirror",
         "remedy": "distillscope.remedies.rounded", "teacher": "distillscope.teachers.thumbnails",
         "student": "distillscope.students.two_layers", "data_set": "distillscope.data.stripes",
         "claim": "distillscope.claims.size_pays", "section": "distillscope.report.context.durations"}


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """The namespaces of the page's code; what it registered is forgotten afterwards."""
    before = {kind: dict.fromkeys(registry) for kind, registry in KINDS.items()}
    made = {}
    for kind, code in CODE.items():
        module = ModuleType(FILES[kind])
        monkeypatch.setitem(sys.modules, FILES[kind], module)  # where a part's types are looked up
        exec(compile(code, f"extending.md, {kind}", "exec"), vars(module))
        made[kind] = vars(module)
    yield made
    for kind, registry in KINDS.items():
        for name in set(registry._parts) - set(before[kind]):
            del registry._parts[name]
    STUDY.remove("durations")


def test_the_files_are_where_the_page_says():
    for path in FILES.values():
        assert f"src/{path.replace('.', '/')}.py" in PAGE.read_text()


def test_the_objective_is_what_it_says_and_takes_settings():
    s, t = (torch.randn(6, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))
    found = objectives.call("log_cosh", {"scale": 0.5}, s, t)
    assert float(found) == pytest.approx(float(np.log(np.cosh((s - t).numpy() / 0.5)).mean()), rel=1e-5)
    assert "log cosh" in objectives.summary("log_cosh")
    with refused(where="scale"):
        objectives.check("log_cosh", {"scale": -1})


def test_the_remedy_changes_a_copy(tmp_path, monkeypatch):
    from distillscope.data.preprocess import Preprocess
    from distillscope.students.load import build_student

    student = build_student("paper_cnn", {"width": 1}, 8, Preprocess(16), "S", torch.device("cpu"))
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    changed = remedies.call("rounded", {"bits": 4}, student, None, 1)
    assert all(torch.equal(v, before[k]) for k, v in student.module.state_dict().items())
    for weight in changed.module.parameters():
        assert len(weight.unique()) <= 15  # 2^4 - 1 levels
    with refused(where="remedies.rounded.bits", expected=("2", "16"), got="1"):
        remedies.call("rounded", {"bits": 1}, student, None, 1)


def test_every_kind_of_part_is_there():
    """A part of the page's own for each kind; curves are told with the measures, a section with its figures."""
    assert set(CODE) == set(FILES)
    registered = {kind for kind, parts in KINDS.items() if any(parts[name].__module__ in FILES.values() for name in parts)}
    assert registered == set(KINDS) - {"curves"}


def test_the_pages_parts_run_together_in_one_study(tmp_path, monkeypatch):
    """Every setting of the page: its objective, projector, target and view in arms of its data set, teacher and student."""
    from distillscope.study.run import run_study

    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    arms = [arm for kind in ("objective", "projector", "view") for arm in SETTINGS[kind]["arms"]]
    stresses = [stress for kind in ("corruption", "stress") for stress in SETTINGS[kind]["stresses"]]
    others = ("target", "teacher", "student", "data_set", "remedy")
    one = {key: value for kind in others for key, value in SETTINGS[kind].items()}
    study = study_from({"name": "own", **one, "arms": arms, "stresses": stresses, "seeds": [1], "noise": {"sigmas": []},
                        "training": {"epochs": 1, "batch_size": 16}, "validation": 15})
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    assert set(run.results["arm"]) == {"", *(f"{arm['name']}{more}" for arm in arms for more in ("", "+four-bit"))}
    assert {"mirror=flipped", "mirror=none", "corruption=darkness/3"} <= set(run.results["condition"])
    assert set(run.results["teacher"]) == {"thumbnails"} and set(run.results["student"]) == {"teacher", "flat"}


def test_the_measure_is_in_an_audit():
    z = np.random.default_rng(0).normal(size=(40, 3))
    found = audit(z, -z, groups=["alignment"], intervals=False)
    assert found["alignment.median_cosine"] == pytest.approx(-1) and found.values["alignment.median_cosine"].unit == "cosine"


def test_what_the_target_cannot_fit_is_said_before_any_work():
    with pytest.raises(UserError, match="2 train images or more"):
        check_target("rescaled", {}, 27, 1)
    z = np.random.default_rng(0).normal(size=(40, 3))
    assert fit_target("rescaled", {"variance": 2.0}, z)(z).var(axis=0).mean() == pytest.approx(2.0, rel=1e-5)


def test_the_claim_is_decided_beside_the_ten():
    accuracy = "paper.probe.student.accuracy"
    paid = planted({("one", "L", accuracy, "clean"): 0.75})
    assert decided("size-pays", paid).verdict == "supported"
    assert decided("size-pays", planted()).verdict == "refuted"
    few = decided("size-pays", planted(seeds=range(1, 4)))
    assert few.verdict == "undecided" and "3 paired seeds, and this claim needs 5" in few.reason
    decision = decide_results(paid)
    assert [v.id for v in decision.verdicts] == [*ORDER, "size-pays"]
    alone = [v for v in decision.verdicts if v.id != "size-pays" and v.p is not None]
    assert decision.tested == len(alone) + 1


def test_every_objective_has_a_family():
    """A new objective has to say what it is, or `objective` and `expansion` leave its arms out."""
    assert [name for name in objectives if objectives.facts(name).family == "other"] == []


def test_the_section_stands_where_it_says_and_escapes(parts):
    names = list(STUDY)
    assert names[-3:] == ["table", "durations", "provenance"]
    run = SimpleNamespace(trials=[SimpleNamespace(folder="<b>a", seconds=61.5), SimpleNamespace(folder="b", seconds=None)])
    shown = environment().from_string(TEMPLATE).render(**parts["section"]["durations"](run))
    assert "<li>&lt;b&gt;a: 62 s</li>" in shown and shown.count("<li>") == 1
    assert parts["section"]["durations"](SimpleNamespace(trials=[])) is None


CLAIMS_PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text()


def test_both_tables_hold_the_ten_in_order_with_their_seeds():
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in CLAIMS_PAGE.splitlines() if line.startswith("| `")]
    ids = [r[0].strip("`") for r in rows]
    assert ids == [*ORDER, *ORDER]
    for row in rows[:10]:
        assert int(row[-1].split()[0]) == claims.facts(row[0].strip("`")).seeds


def test_the_controls_of_the_page_are_a_study():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", CLAIMS_PAGE, re.M | re.S)
    study = tiny_study(**{**tiny_values(), **yaml.safe_load(text)})
    assert {a.name for a in study.arms} == {"plain", "longer", "regression", "contrast", "white", "noisy"}


@pytest.mark.parametrize("name", ["claims-quick", "claims"])
def test_presets_run_what_every_claim_asks_for(name):
    """Judged by the config alone: on results for all its arms no claim misses a control."""
    study = load_preset(name).dump()
    titles = {a["name"]: f"{a['target']['name']}{a['target'].get('dim', '')}" for a in study["arms"] if a.get("target")}
    run = planted_run(study=study, top_k={"all": 0.6, "16": 0.3}, titles=titles, log_ranks={2: 20.0, 4: 20.0})
    (results,) = results_of([run])
    for claim in ORDER:
        found = decided(claim, results)
        assert "was not run" not in found.reason and "was not measured" not in found.reason, (claim, found.reason)
        assert found.p is not None or "largest" in found.reason, (claim, found.reason)


def test_presets_say_their_time_and_their_limits():
    quick, full = load_preset("claims-quick"), load_preset("claims")
    assert "minutes on two cores" in quick.description and "cannot decide" in quick.description
    assert "hours on two" in full.description.replace("two idle", "two") and len(full.seeds) >= 10
    assert all(len(a.seeds or full.seeds) >= 5 for s in (quick, full) for a in s.arms)
