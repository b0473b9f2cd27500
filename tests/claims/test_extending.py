"""docs/extending.md: its code is run, registered and used; then it is taken out again."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from builders.planted import planted
from builders.tiny import tiny_study, tiny_values
from distillscope.claims.decide import ORDER, decide_results, decided
from distillscope.config.load import study_from
from distillscope.errors import UserError
from distillscope.registry import KINDS, objectives, remedies
from distillscope.report.registered import STUDY
from distillscope.report.render import environment

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
CODE = dict(zip(("objective", "remedy", "claim", "section"),
                re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S), strict=True))
SETTINGS = [yaml.safe_load(y) for y in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)]
FILES = {"objective": "distillscope.objectives.log_cosh", "remedy": "distillscope.remedies.rounded",
         "claim": "distillscope.claims.size_pays", "section": "distillscope.report.context.study.durations"}
TEMPLATE = re.search(r"^```html\n(.*?)^```", PAGE.read_text(), re.M | re.S)[1]


@pytest.fixture(autouse=True)
def parts():
    """The namespaces of the page's code; what it registered is forgotten afterwards."""
    before = {kind: dict.fromkeys(registry) for kind, registry in KINDS.items()}
    made = {}
    for kind, code in CODE.items():
        made[kind] = {"__name__": FILES[kind]}
        exec(compile(code, f"extending.md, {kind}", "exec"), made[kind])
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
    with pytest.raises(UserError, match="scale"):
        objectives.check("log_cosh", {"scale": -1})


def test_the_pages_settings_are_accepted():
    study = study_from({**tiny_values(), **SETTINGS[0], **SETTINGS[1]})
    assert study.arms[0].objective_name == "log_cosh" and study.remedies[0].title == "four-bit"


def test_the_remedy_changes_a_copy(tmp_path, monkeypatch):
    from distillscope.data.preprocess import Preprocess
    from distillscope.students.load import build_student

    student = build_student("paper_cnn", {"width": 1}, 8, Preprocess(16), "S", torch.device("cpu"))
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    changed = remedies.call("rounded", {"bits": 4}, student, None, 1)
    assert all(torch.equal(v, before[k]) for k, v in student.module.state_dict().items())
    for weight in changed.module.parameters():
        assert len(weight.unique()) <= 15  # 2^4 - 1 levels
    with pytest.raises(UserError, match="remedies.rounded.bits: expected 2 to 16, got 1"):
        remedies.call("rounded", {"bits": 1}, student, None, 1)


def test_the_remedy_and_the_objective_run_in_a_study(tmp_path):
    from distillscope.study.run import run_study

    study = tiny_study(arms=SETTINGS[0]["arms"], remedies=SETTINGS[1]["remedies"], seeds=[1], noise={"sigmas": []},
                       training={"epochs": 1, "batch_size": 32}, limit=100, limit_test=40)
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    assert set(run.results["arm"]) == {"", "robust", "robust+four-bit"}  # the teacher is of no arm


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
