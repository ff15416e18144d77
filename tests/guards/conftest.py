"""What the tests of guards share."""

import pytest

from retrykit.core.clock import using
from tests.guards.clock import ManualClock


@pytest.fixture
def clock():
    """A clock that stands still."""
    clock = ManualClock()
    with using(clock):
        yield clock
