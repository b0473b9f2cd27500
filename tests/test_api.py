"""What a caller of Python meets: every public name is typed, as mypy --strict sees a user's script, and documented."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import distillscope
from distillscope.registry import KINDS

ROOT = Path(__file__).parents[1]

SCRIPT = """
import numpy as np

import distillscope

rows = np.zeros((60, 12), np.float32)
found = distillscope.audit(rows, rows)
reveal_type(found["student.effective_rank"])
reveal_type(found.to_frame())
reveal_type(distillscope.list_measures())
study: distillscope.Study = distillscope.load_preset("quickstart")
run: distillscope.Run = distillscope.run_study(study, "runs/quickstart", resume=True)
reveal_type(run.results)
reveal_type(run.student("S"))
reveal_type(distillscope.load_study("runs/quickstart").name)
student: distillscope.StudentEncoder = distillscope.load_student("student")
reveal_type(student.encode(["photo.jpg"]))
reveal_type(distillscope.distill(rows, "paper_cnn", "photos", epochs=2).embed("photos"))
reveal_type(distillscope.export_student("student", "student.onnx"))
reveal_type(distillscope.load_artefact("student.onnx"))

distillscope.adit(rows, rows)
student.encodee(["photo.jpg"])
distillscope.load_preset(3)
distillscope.distill(rows, "paper_cnn", "photos", epochs="two")
run.student("S").embedd("photos")
"""
REVEALED = ["float", "pandas.core.frame.DataFrame", "list[str]", "pandas.core.frame.DataFrame",
            "distillscope.students.load.StudentEncoder", "str", "dtype[numpy.float", "dtype[numpy.float",
            "list[distillscope.students.export.write.Exported]", "distillscope.teachers.artefacts.Artefact"]
WRONG = ['Module has no attribute "adit"', '"StudentEncoder" has no attribute "encodee"',
         'Argument 1 to "load_preset" has incompatible type "int"',
         'Argument "epochs" to "distill" has incompatible type "str"',
         '"StudentEncoder" has no attribute "embedd"']


@pytest.mark.slow
def test_mypy_strict_knows_the_types_of_a_users_script_and_finds_what_is_wrong_in_it(tmp_path):
    """Torch is not followed, which halves the time; its own types are Any then."""
    mypy = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'src'}\n[mypy-distillscope.*]\nfollow_imports = silent\n"
        "[mypy-torch.*,timm.*,torchvision.*]\nfollow_imports = skip\n")
    said, failed, _ = mypy.run(["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(ROOT / ".mypy_cache" / "user"),
                                str(tmp_path / "user.py")])
    assert not failed, failed
    notes = [line for line in said.splitlines() if "Revealed type" in line]
    assert len(notes) == len(REVEALED) and all(t in line for t, line in zip(REVEALED, notes, strict=True)), said
    errors = [line for line in said.splitlines() if "error:" in line]
    assert len(errors) == len(WRONG) and all(text in line for text, line in zip(WRONG, errors, strict=True)), said


def public() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every public function, class and method, by its name; of a class what this package wrote."""
    for name in distillscope._PUBLIC:
        thing = getattr(distillscope, name)
        yield name, thing
        for member, found in inspect.getmembers(thing) if inspect.isclass(thing) else ():
            found = found.fget if isinstance(found, property) else getattr(found, "func", found)
            if not member.startswith(("_", "model_")) and getattr(found, "__module__", "").startswith("distillscope."):
                yield f"{name}.{member}", found


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_says_its_types_and_what_it_is(name):
    thing = PUBLIC[name]
    assert len((inspect.getdoc(thing) or "").split("\n")[0]) > 20
    if not inspect.isclass(thing):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty or parameter.name in ("self", "cls"), parameter


FUNCTIONS = [name for name, thing in PUBLIC.items() if inspect.isfunction(thing) and "." not in name]
SHOWN = {"run_study", "load_study", "export_student", "load_artefact"}
"""Those whose examples need files that take minutes to make; the commands of README run them in the tests."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_each_argument_is_what_it_refuses_and_shows_a_call(name):
    text = inspect.getdoc(PUBLIC[name])
    for parameter in inspect.signature(PUBLIC[name]).parameters:
        assert re.search(rf"\b{parameter}\b", text.split(">>>")[0]), parameter
    assert "UserError" in text
    calls = [line for line in text.splitlines() if line.startswith(">>>") and f"{name}(" in line]
    assert calls and (name in SHOWN or not any("SKIP" in line for line in calls))


def test_every_kind_has_a_list_that_type_checkers_see_and_a_misspelt_name_is_guessed():
    source = Path(distillscope.__file__).read_text()
    assert all(f"    list_{kind}: _Names\n" in source and f"list_{kind}" in dir(distillscope) for kind in KINDS)
    assert source.count(": _Names\n") == len(KINDS) and distillscope.list_projectors() == ["linear", "mlp"]
    with pytest.raises(AttributeError, match="no attribute 'adit'") as raised:
        functools.reduce(getattr, ["adit"], distillscope)
    assert raised.value.name == "adit" and raised.value.obj is distillscope, "from which Python guesses what was meant"
