"""Marks that test files share."""

from __future__ import annotations

import pytest

# Ray warns of its own deprecations in the process that calls it.
RAYS_WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
IN_CLUSTER = [pytest.mark.ray, pytest.mark.usefixtures("nothing_held"), *RAYS_WARNINGS]
"""Of tests that are a driver themselves, in the private cluster of tests/runtime/conftest.py."""
