"""Settings of every test: hypothesis draws the same examples each time and has no deadline on a busy machine, and nothing
that an earlier run left half-written is read."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("vlmdsl", deadline=None, derandomize=True, database=None)
settings.load_profile("vlmdsl")

# What torch writes about every graph that it compiles, for a folder of traces: pytest would collect megabytes of it.
logging.getLogger("torch.__trace").disabled = True


def pytest_sessionstart(session: pytest.Session) -> None:
    """An earlier run that was killed leaves truncated libraries in the machine's compile cache. They are removed before the
    first test, which would be the one that warns of them. The controller of several workers runs no test itself."""
    if session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput"):
        return
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    from vlmdsl.backends.torch.compile_cache import remove_half_libraries

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        remove_half_libraries(cache_dir())


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
