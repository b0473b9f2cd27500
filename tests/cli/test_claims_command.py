"""`distillscope claims` and `recommend`: files, table, page; several directories; what cannot be judged together."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import distillscope
from builders import refused
from builders.planted import gaining_run, planted_run, write_run
from builders.tiny import finished_run
from distillscope import cli
from distillscope.cli import app
from distillscope.config.load import load_preset, study_from
from distillscope.errors import UserError
from distillscope.report.claims import claims_of, decide_claims, markdown, write_claims
from distillscope.report.context.verdicts import decided, effect_of, shown_claim
from distillscope.report.page import section_html
from distillscope.results.run import read_run
from distillscope.visible import markdown_text

RANKS = {2: 12.0, 5: 18.0}


def section(run_dir: Path) -> str:
    """"Claims" as the page has it."""
    return section_html("study", "claims", **decided(claims_of(read_run(run_dir))))


def call(*arguments: object):
    return CliRunner().invoke(cli.app, ["claims", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """Ten seeds of three arms on disk; read by many tests, written to by none."""
    plant = planted_run(arms="one two seven", log_ranks=RANKS, top_k={"all": 0.6, "16": 0.3, "64": 0.5})
    return write_run(plant, tmp_path_factory.mktemp("planted") / "run")


@pytest.fixture(scope="module")
def small_dir(tmp_path_factory) -> Path:
    """One arm of as many seeds as a verdict takes; read by many tests, written to by none."""
    return write_run(planted_run(arms="one"), tmp_path_factory.mktemp("small") / "run")


def test_a_run_is_decided_and_its_page_shows_every_claim(run_dir, tmp_path):
    run = shutil.copytree(run_dir, tmp_path / "run")
    done = call(run, "--json", tmp_path / "out.json")
    assert done.exit_code == 0, done.output
    for word in ("collapse", "refuted", "supported", "undecided", "Holm over"):
        assert word in done.output
    found = json.loads((run / "claims.json").read_text())
    assert found == json.loads((tmp_path / "out.json").read_text())
    verdicts = {v["id"]: v for v in found["settings"][0]["verdicts"]}
    assert len(verdicts) == 10 and found["sources"] == ["."]
    assert verdicts["collapse"]["verdict"] == "refuted" and verdicts["rank-robustness"]["verdict"] == "supported"
    assert verdicts["expansion"]["verdict"] == "undecided" and verdicts["expansion"]["p"] is None
    assert verdicts["collapse"]["low"] < verdicts["collapse"]["effect"] < verdicts["collapse"]["high"]
    assert len(verdicts["collapse"]["parts"]) == 3 and verdicts["inverse-scaling"]["secondary"]
    page, text = (run / "report.html").read_text(), (run / "claims.md").read_text()
    for name, verdict in verdicts.items():
        assert page.count(f'id="claim-{name}"') == 1
        assert f"### {name}: " in text and markdown_text(verdict["sentence"]) in text
    assert '<section id="claims"' in page and "Secondary endpoints" in page
    assert 'href="#figure-training"' in page and 'id="figure-training"' in page


def test_a_tiny_study_of_two_seeds_is_undecided_and_not_an_error(tmp_path):
    run = shutil.copytree(finished_run(), tmp_path / "run")
    done = call(run)
    assert done.exit_code == 0, done.output
    verdicts = json.loads((run / "claims.json").read_text())["settings"][0]["verdicts"]
    assert {v["verdict"] for v in verdicts} == {"undecided"} and all(v["reason"] for v in verdicts)
    assert "<summary>Not tested, and why (10)</summary>" in (run / "report.html").read_text()


def test_every_report_holds_its_claims(run_dir):
    assert (finished_run() / "claims.json").is_file() and (finished_run() / "claims.md").is_file()
    assert "Not tested" in section(finished_run())


def test_seeds_that_were_run_apart_are_judged_together(tmp_path):
    first = write_run(planted_run(arms="one", seeds=range(1, 6)), tmp_path / "a")
    second = write_run(planted_run(arms="one two", seeds=range(6, 11)), tmp_path / "b")
    alone = decide_claims([first]).decisions[0]["inverse-scaling"]
    assert alone.verdict == "undecided" and "5 paired seeds" in alone.reason
    done = call(first, second)
    assert done.exit_code == 0, done.output
    found = json.loads((first / "claims.json").read_text())
    verdicts = {v["id"]: v for v in found["settings"][0]["verdicts"]}
    assert verdicts["inverse-scaling"]["n"] == 10 and found["sources"] == [".", "../b"]
    assert not (second / "claims.json").exists()
    write_claims(claims_of(read_run(first)), first)  # a report that is written again keeps what it was decided from
    assert json.loads((first / "claims.json").read_text()) == found
    shutil.rmtree(second)
    write_claims(claims_of(read_run(first)), first)
    kept = json.loads((first / "claims.json").read_text())
    assert kept["missing"] == ["../b"] and kept["sources"] == ["."]
    assert "Not found, and left out" in section(first)


def test_a_trial_that_two_runs_hold_counts_once(small_dir, tmp_path):
    other = shutil.copytree(small_dir, tmp_path / "copy")
    one, both = decide_claims([small_dir]).decisions, decide_claims([small_dir, other, small_dir]).decisions
    assert one[0]["inverse-scaling"].n == 10
    assert [v.to_dict() for v in one[0].verdicts] == [v.to_dict() for v in both[0].verdicts]


def changed(run_dir: Path, path: Path, **values) -> Path:
    run = shutil.copytree(run_dir, path)
    study = yaml.safe_load((run / "study.yaml").read_text())
    (run / "study.yaml").write_text(yaml.safe_dump({**study, **values}))
    return run


@pytest.mark.parametrize(("key", "value"), [
    ("data", ["digits"]),
    ("teacher", [{"name": "timm", "model": "resnet18"}]),
    ("limit", 1000),
    ("noise", {"where": "input", "unit": "normalised"}),
])
def test_studies_of_other_data_teacher_or_noise_are_not_judged_together(small_dir, tmp_path, key, value):
    other = changed(small_dir, tmp_path / "other", **{key: value})
    with pytest.raises(UserError) as refused:
        decide_claims([small_dir, other])
    message = str(refused.value)
    assert refused.value.where == f"claims {other.resolve()} {key}" and str(small_dir.resolve()) in refused.value.expected
    assert "\n" not in message


def test_a_student_of_one_name_is_one_network(small_dir, tmp_path):
    study = yaml.safe_load((small_dir / "study.yaml").read_text())
    students = [{**s, "image_size": 64} if s["label"] == "S" else s for s in study["students"]]
    other = changed(small_dir, tmp_path / "other", students=students)
    with refused(where="students.S", expected="32", got="64"):
        decide_claims([small_dir, other])


def test_more_sigmas_or_draws_are_no_other_noise(small_dir, tmp_path):
    study = yaml.safe_load((small_dir / "study.yaml").read_text())
    other = changed(small_dir, tmp_path / "other", noise={**study["noise"], "sigmas": [0.1], "draws": 9})
    assert decide_claims([small_dir, other]).decisions


def test_what_is_no_run_is_one_line(tmp_path):
    with refused(expected="study.yaml", got="no folder"):
        decide_claims([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with refused(expected="study.yaml", got="none there"):
        decide_claims([tmp_path / "empty"])
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "study.yaml").write_text("{name: begun, data: digits, teacher: efficientnet_lite0, students: paper_cnn}\n")
    with refused(got="none finished", advice="--resume"):
        decide_claims([begun])


def test_several_teachers_stand_in_one_table_and_no_id_twice(small_dir, tmp_path):
    run = shutil.copytree(small_dir, tmp_path / "run")
    for folder in [*(run / "trials").iterdir(), *(run / "references").iterdir()]:
        twin = folder.with_name(folder.name.replace("efficientnet_lite0", "test_resnet"))
        shutil.copytree(folder, twin)
        for file in (f for f in twin.iterdir() if f.suffix in (".csv", ".json")):
            file.write_text(file.read_text().replace("efficientnet_lite0", "test_resnet"))
    study = yaml.safe_load((run / "study.yaml").read_text())
    study["teacher"].append({"name": "timm", "model": "test_resnet", "alias": "test_resnet"})
    (run / "study.yaml").write_text(yaml.safe_dump(study))
    done = call(run)
    assert done.exit_code == 0 and "2 teachers together" in done.output
    ids = re.findall(r'id="(claim-[^"]*)"', (run / "report.html").read_text())
    assert len(ids) == 20 and len(set(ids)) == 20
    assert len(json.loads((run / "claims.json").read_text())["together"]) == 10
    assert "| claim | together | efficientnet_lite0 |" in (run / "claims.md").read_text()


def test_an_incomplete_run_is_judged_by_what_it_has(small_dir, tmp_path):
    run = shutil.copytree(small_dir, tmp_path / "run")
    for folder in (run / "trials").glob("*--L--*"):
        (folder / "complete.json").unlink()
    found = decide_claims([run]).decisions[0]
    assert found["inverse-scaling"].endpoint.endswith(", M - S")


def test_names_from_data_are_escaped(tmp_path):
    plant = planted_run(arms="one seven")
    plant.written = {**plant.written, "arms": [{**a, "name": f"<b>{a['name']}"} for a in plant.written["arms"]]}
    plant.results = plant.results.assign(arm=[f"<b>{a}" if a else a for a in plant.results["arm"]])
    run = tmp_path / "run"
    write_run(plant, run)
    html = section(run)
    assert "<b>" not in html and "&lt;b&gt;seven" in html


def test_the_drawing_holds_effect_interval_and_bound(small_dir):
    verdict = decide_claims([small_dir]).decisions[0]["inverse-scaling"]
    drawn = effect_of(verdict)
    assert 0 <= drawn.low < drawn.effect < drawn.high <= 280 and 0 <= drawn.bound <= 280
    assert (drawn.bound > drawn.effect) == (verdict.bound > verdict.effect)
    assert drawn.label.startswith(verdict.endpoint)
    assert [e.figure for e in shown_claim(verdict).evidence if e.figure] == ["noise"]


def test_markdown_of_two_settings_names_both(small_dir, tmp_path):
    run = shutil.copytree(small_dir, tmp_path / "run")
    found = decide_claims([run])
    twice = type(found)((*found.decisions, *found.decisions), found.sources)
    assert markdown(twice).count("## cifar10, teacher efficientnet_lite0") == 2
    write_claims(twice, run)
    assert len(json.loads((run / "claims.json").read_text())["settings"]) == 2


@pytest.fixture(scope="module")
def gaining_dir(tmp_path_factory):
    gains = {"seven": {"robustness": 0.2}, "two": {"accuracy": 0.01}}
    return write_run(gaining_run("one two seven", gains), tmp_path_factory.mktemp("recommend") / "run")


def recommended(*args):
    return CliRunner().invoke(cli.app, ["recommend", *map(str, args)], env={"COLUMNS": "200"})


def test_recommend_prints_the_table_the_sentence_and_the_yaml(gaining_dir, tmp_path):
    found = recommended(gaining_dir, "--yaml", tmp_path / "next.yaml")
    assert found.exit_code == 0, found.output
    assert "train with “seven”" in found.output and "optimistic" in found.output and "--set screen=" in found.output
    study = load_preset(str(tmp_path / "next.yaml"))
    assert [a.name for a in study.arms] == ["one", "seven"]
    found = recommended(gaining_dir, "--for", "robustness", "--yaml", tmp_path / "robust.yaml")
    assert "view_target: clean" in (tmp_path / "robust.yaml").read_text() and "view_target" not in found.output
    assert "--yaml FILE writes it" in recommended(gaining_dir).output
    (tmp_path / "next.yaml").write_text("name: changed since")
    with refused(where="next.yaml", got="which is there"):
        CliRunner().invoke(cli.app, ["recommend", str(gaining_dir), "--yaml", str(tmp_path / "next.yaml")],
                           catch_exceptions=False)
    assert (tmp_path / "next.yaml").read_text() == "name: changed since"


def test_recommend_prints_json(gaining_dir):
    found = json.loads(recommended(gaining_dir, "--json", "--for", "accuracy").output)
    (setting,) = found["settings"]
    assert setting["purpose"] == "accuracy" and study_from(found["next"]).name == "planted-next"
    ranked = {e["arm"]: e for e in setting["students"][0]["ranked"]}
    assert ranked["two"]["gains"]["accuracy"]["mean"] == pytest.approx(1.0, abs=0.5)
    assert ranked["two"]["costs"]["parameters"] == 8e5


@pytest.mark.parametrize(("make", "args", "message"), [
    (None, [], "expected a run directory with study.yaml"),
    ("one two", ["--for", "speed"], "--for: expected a known purpose, got 'speed'"),
    ("one", [], "expected two arms or more that can be compared for balance, got only one arm"),
])
def test_recommend_says_in_one_line_what_it_cannot_rank(make, args, message, tmp_path):
    path = tmp_path / "run" if make is None else write_run(gaining_run(make), tmp_path / "run")
    found = recommended(path, *args)
    assert isinstance(found.exception, UserError) and message in str(found.exception) and "\n" not in str(found.exception)


def test_studies_of_other_data_are_not_ranked_together(gaining_dir, tmp_path):
    other = write_run(gaining_run("one two", study={"limit": 500}), tmp_path / "other")
    said = str(recommended(gaining_dir, other).exception)
    assert "recommend" in said and "limit" in said


ROOT = Path(distillscope.__file__).parent
READS_IMAGES = ("run", "distill", "embed", "audit")
COMMANDS_OF = {"data/": READS_IMAGES, "teachers/": READS_IMAGES, "inputs/": ("audit",), "embedding.py": ("embed",),
               "auditing.py": ("audit",),
               "audit.py": ("audit",), "requirements.py": ("audit",), "measure/": ("audit",), "report/audit": ("audit",)}
"""Where an error is raised -> the commands that may print it; everything else must exist on some command."""
EITHER = {"--teacher", "--student", "--train-teacher", "--train-student", "--require", "--json", "--labels", "--train-labels",
          "--text"}
"""Of an audit alone: inputs/ and teachers/ are read for other commands too, which name no such file."""
OF_STUDIES = {"load_splits": ("run", "distill"), "parted": ("run", "distill"), "_check_apart": ("run",),
              "name_split": READS_IMAGES, "part_of": ("embed",),
              "_of_shard": ("embed",)}
OF_OTHER_PROGRAMS = {"--nproc-per-node", "--num_processes", "--head"}


def options_of_commands():
    group = typer.main.get_command(app)
    found = {}

    def walk(name, command):
        for inner, sub in getattr(command, "commands", {}).items():
            walk(f"{name} {inner}".strip(), sub)
        found[name] = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")} | {"--help"}

    walk("", group)
    return found


def errors(path):
    """(line, function, text) of every error that is built in a file, with "{}" for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def visit(node, function):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.Call) and getattr(node.func, "id",
                                                  getattr(node.func, "attr", "")) in ("UserError", "MissingSplit", "say"):
            words = [str(n.value) for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            yield node.lineno, function, " ".join(words)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return list(visit(tree, ""))


def test_every_option_that_a_message_names_exists_on_the_command_that_prints_it():
    options = options_of_commands()
    everywhere = set().union(*options.values())
    wrong, seen = [], 0
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT).as_posix()
        commands = next((c for start, c in COMMANDS_OF.items() if inside.startswith(start)), None)
        for line, function, text in errors(path):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", re.sub(r"`distillscope [^`]*`", "", text)):
                seen += 1
                here = OF_STUDIES.get(function, commands) if inside.startswith("data/") else commands
                lacking = [c for c in here or () if option not in options[c] and option not in EITHER]
                if option not in everywhere | OF_OTHER_PROGRAMS or lacking:
                    wrong.append(f"{inside}:{line} names {option}{f', which {lacking} lack' if lacking else ''}")
    assert not wrong, "\n".join(wrong)
    assert seen > 50  # the search finds what it looks for


def test_corrupt_images_are_handled_by_every_command_that_reads_images():
    options = options_of_commands()
    assert all({"--corrupt", "--data"} <= options[c] for c in READS_IMAGES)
