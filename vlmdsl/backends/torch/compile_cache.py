"""torch's compile cache on disk: used where possible, and bypassed if a file of it is damaged.

A process that is killed while it compiles leaves a truncated library behind, and torch loads any file with the right name.
"""

from __future__ import annotations

import fcntl
import gc
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TypeVar

__all__ = ["compile_first", "remove_half_libraries"]

T = TypeVar("T")
_HEADER = 64
"""Length of the header of a library in the ELF format, which Linux has."""
_LINUX = sys.platform == "linux"


def compile_first(call: Callable[[], T]) -> T:
    """Run `call`, the first one of a compiled function, from the cache if possible.

    If a damaged file of the cache makes it fail, it is compiled again without that folder, with a RuntimeWarning.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder = cache_dir()
    remove_half_libraries(folder)
    with _settings():
        try:
            return call()
        except Exception as fault:
            if not _is_of_cache(fault, folder):
                raise
            reason = _reason(fault)
        from torch._inductor.utils import fresh_cache

        warnings.warn(
            f"a file of torch's compile cache is damaged ({reason}): compiling again without it; "
            f"if this comes again, remove the folder {folder}",
            RuntimeWarning,
            stacklevel=2,
        )
        with fresh_cache():
            return call()


def _reason(fault: BaseException) -> str:
    inner = getattr(fault, "inner_exception", fault)
    return f"{type(inner).__name__}: {(str(inner).strip() or 'no message').splitlines()[0]}"


@contextmanager
def _settings() -> Iterator[None]:
    """Settings of torch during a compilation.

    The backward pass is compiled with the forward one: so that errors are raised by the call, not by a later `backward`.
    Graphs with `autograd.Function`s may be cached; both of their passes are part of the cache key. The backward pass
    computes the exponentials of a similarity matrix again, however long ago it was read: the compiler's rule against that
    would keep two more matrices for most regions.
    """
    import torch._functorch.config as settings

    patched = {
        "force_non_lazy_backward_lowering": True,
        "autograd_cache_allow_custom_autograd_functions": True,
        "ban_recompute_used_far_apart": False,
    }
    with ExitStack() as stack:
        stack.enter_context(settings.patch({name: value for name, value in patched.items() if hasattr(settings, name)}))
        stack.enter_context(warnings.catch_warnings())
        if gc.isenabled():  # saves a sixth of the time: the garbage collector would scan all that was imported and traced
            gc.disable()
            stack.callback(gc.enable)
        # The compiler looks whether features have a gradient already.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        yield


def _is_of_cache(fault: BaseException, folder: str) -> bool:
    """Whether the code generator failed, or code that lies in the cache."""
    from torch._dynamo.exc import BackendCompilerFailed

    if isinstance(fault, BackendCompilerFailed):
        return True
    return any(name.startswith(folder) for name in _files(fault.__traceback__)) or (
        fault.__cause__ is not None and _is_of_cache(fault.__cause__, folder)
    )


def _files(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next


@cache
def remove_half_libraries(folder: str) -> None:
    """Remove truncated libraries from a compile cache, with a RuntimeWarning: loading one can crash the process.

    Done once per process and folder. A library whose lock is held is being written.
    """
    removed = []
    for library in Path(folder).glob("??/*.so"):
        lock = Path(folder) / "locks" / f"{library.name.split('.')[0]}.lock"
        # The second look is for a library that was completed, and its lock released, after the first.
        if not (_is_whole(library) or _is_held(lock) or _is_whole(library)):
            library.unlink(missing_ok=True)
            removed.append(library)
    if removed:
        count = f"{len(removed)} libraries" if len(removed) > 1 else "a library"
        warnings.warn(
            f"torch's compile cache held {count} written in part only, such as {removed[0]}: removed, and compiled again",
            RuntimeWarning,
            stacklevel=3,
        )


def _is_whole(library: Path) -> bool:
    """Whether a library is as long as its header says. The table of sections is the last thing in it."""
    try:
        with library.open("rb") as file:
            header = file.read(_HEADER)
            size = file.seek(0, 2)
    except OSError:
        return True  # removed meanwhile, or unreadable
    if len(header) < _HEADER or header[:4] != b"\x7fELF":
        return not _LINUX
    if header[4] != 2:
        return True  # of 32 bits: another header
    order = "<" if header[5] == 1 else ">"
    start, length, count = struct.unpack(order + "Q", header[40:48]) + struct.unpack(order + "HH", header[58:62])
    return bool(size >= start + length * count)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
