"""What the tests of stresses share."""

import pytest
from blobs import make_source, make_subject


@pytest.fixture(scope="session")
def subject():
    return make_subject()


@pytest.fixture(scope="session")
def test_items():
    return make_source()
