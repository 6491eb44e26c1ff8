"""Settings of every test: hypothesis draws the same examples each time and has no deadline on a busy machine, and nothing
that an earlier run left half-written is read."""

from __future__ import annotations

import gc
import logging
import signal
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("vlmdsl", deadline=None, derandomize=True, database=None)
settings.load_profile("vlmdsl")

# What torch writes about every graph that it compiles, for a folder of traces: pytest would collect megabytes of it.
logging.getLogger("torch.__trace").disabled = True


def pytest_sessionstart(session: pytest.Session) -> None:
    """Undo what surrounds a session: truncated libraries in the machine's compile cache, of which the first test would warn,
    as a run that was killed leaves them, and interrupts that are ignored, as by a job in the background. The controller of
    several workers runs no test itself."""
    if session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput"):
        return
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
