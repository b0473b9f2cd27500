"""One teacher and one student for the tests that need no special data."""

import numpy as np
import pytest

from builders.clouds import cloud, student_of


@pytest.fixture
def teacher() -> np.ndarray:
    return cloud(0)


@pytest.fixture
def student(teacher) -> np.ndarray:
    return student_of(teacher, 1)
