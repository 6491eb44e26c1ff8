"""One process works in a folder at a time, and what a dead one left behind is not a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.training.lock import LOCK, locked

PROGRAM = """
import sys
from pathlib import Path
from vlmdsl.runtime.training.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def refused(folder: Path) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught, locked(folder):
        pass
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def test_another_process_is_refused_by_name_until_it_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        diagnostic = refused(tmp_path)
        assert (diagnostic.code, str(tmp_path) in diagnostic.message) == ("V0851", True)
        assert f"process {other.pid} on " in diagnostic.notes[0]
        other.kill()
        other.wait()
        assert (tmp_path / LOCK).is_file()
        with locked(tmp_path):  # what the killed process left is taken over
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert list(tmp_path.iterdir()) == []


def test_this_process_is_refused_too(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert ", this one" in refused(tmp_path).notes[0]
        assert ", this one" in refused(tmp_path).notes[0]
    with locked(tmp_path):
        pass


def test_what_a_lock_says_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_bytes(b"\xff[[[" * 1000)
    with locked(tmp_path):
        pass
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    assert refused(tmp_path).code == "V0850"
    assert not (tmp_path / "elsewhere").exists()
