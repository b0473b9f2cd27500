"""What a run's page says where no arm helps on the whole, but some do for a purpose."""

import re

from builders.planted import gaining_run as run
from distillscope.report.context.verdicts import recommended
from distillscope.report.recommendation import advise


def test_all_arms_that_lead_for_a_purpose_are_named_where_none_helps_on_the_whole():
    gain = {"robustness": 0.2, "accuracy": -0.1, "retrieval": -0.2}
    several = recommended(advise([run("one four seven", {"four": gain, "seven": gain})]))
    assert re.search(r"but “(four” and “seven|seven” and “four)” improve accuracy under noise \(no significant difference "
                     r"between them; the first \+", several)
    assert "but “seven” improves accuracy under noise (+" in recommended(advise([run("one seven", {"seven": gain})]))
