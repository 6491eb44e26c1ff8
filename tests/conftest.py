"""Settings of every test: hypothesis draws the same examples each time and has no deadline on a busy machine."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("vlmdsl", deadline=None, derandomize=True, database=None)
settings.load_profile("vlmdsl")

# What torch writes about every graph that it compiles, for a folder of traces: pytest would collect megabytes of it.
logging.getLogger("torch.__trace").disabled = True


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """The modules and tests of a session stay to its end: the garbage collector need not look at a million objects again and
    again."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)
    return result
