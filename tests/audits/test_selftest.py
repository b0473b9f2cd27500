"""The selftest passes here, covers every group, and fails where a measure is wrong."""

import inspect

import pytest

from distillscope.audits.selftest import selftest
from distillscope.measure import contrastive, similarity, spectrum
from distillscope.measure.quantity import GROUPS
from distillscope.registry import measures


def test_every_known_answer_comes_out():
    checks = selftest()
    assert not [str(check) for check in checks if not check.passed]
    covered = {measures.facts(m.removeprefix("teacher.").split(" at ")[0]).group
               for m in (c.measure for c in checks) if m.removeprefix("teacher.") in measures}
    assert covered == set(GROUPS)


@pytest.mark.parametrize(("module", "name"), [(spectrum, "effective_rank"), (similarity, "linear_cka_debiased"),
                                              (contrastive, "infonce")])
def test_a_wrong_measure_is_found(monkeypatch, module, name):
    right = getattr(module, name)
    key = next(k for k in measures if measures[k] is right)

    def wrong(*args):
        return right(*args) * 1.05 + 0.05

    wrong.__signature__, wrong.__doc__ = inspect.signature(right), right.__doc__
    monkeypatch.setitem(measures._parts, key, wrong)
    failed = [check for check in selftest() if not check.passed]
    assert failed and all(check.measure.endswith(name) for check in failed) and str(failed[0]).startswith("FAIL")
