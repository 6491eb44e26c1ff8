"""Truncated libraries in torch's compile cache, and libraries that only look truncated because they are being written."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest
import torch

from vlmdsl.backends.torch import compile_cache
from vlmdsl.backends.torch.compile_cache import remove_half_libraries

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only libraries in Linux's format are looked into"),
    pytest.mark.filterwarnings("default:torch's compile cache held:RuntimeWarning"),
]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of which only the first bytes are written."""
    path = tmp_path / "ab" / "abc.main.so"
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "abc.lock").touch()
    return path


def test_a_truncated_library_is_removed_and_named(library: Path, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="abc.main.so: removed"):
        remove_half_libraries(str(tmp_path))
    assert not library.exists()


def test_a_library_that_is_being_written_is_kept(library: Path, tmp_path: Path) -> None:
    with (tmp_path / "locks" / "abc.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_half_libraries(str(tmp_path))
    assert library.exists()


def test_a_library_that_is_completed_meanwhile_is_kept(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(torch._C.__file__).read_bytes()

    def completed(_lock: Path) -> bool:
        library.write_bytes(whole)
        return False

    monkeypatch.setattr(compile_cache, "_is_held", completed)
    remove_half_libraries(str(tmp_path))
    assert library.exists()
