"""doctor names each extra of the package, with what it lacks and how to get it."""

from importlib import metadata

from distillscope.cli import doctor


def test_each_extra_is_listed_with_what_it_lacks(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: [
        "numpy>=1", 'onnxruntime>=1.17; extra == "onnx"', "no-such-package[all]>=2 ; extra == 'other'",
        'pytest; extra == "test"'])
    assert doctor.extras() == {"onnx": ["onnxruntime"], "other": ["no-such-package"]}
    assert doctor._extra("other", ["no-such-package"]) == ("extra other", "no-such-package not installed",
                                                           "pip install 'distillscope[other]'")
