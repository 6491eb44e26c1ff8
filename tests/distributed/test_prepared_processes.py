"""Processes of a group share nothing but what is imported: no state of an earlier job, hash seed, environment or folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from vlmdsl.testing.distributed import run_processes
from vlmdsl.testing.prepared import prepared

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SEEN: list[int] = []


def state() -> list[str]:
    """The number of jobs that this process has done, and what distinguishes processes."""
    SEEN.append(1)
    return [str(len(SEEN)), str(hash("a text")), str(os.getpid()), os.environ.get("VLMDSL_TEST", "unset"), os.getcwd()]


def killed() -> None:
    """The second process ends, once the first one no longer waits for it."""
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_finds_no_state_of_another_one() -> None:
    runs = [run_processes(state, 2) for _ in range(2)]
    assert [run[0] for each in runs for run in each] == ["1"] * 4
    processes = {run[2] for each in runs for run in each}
    assert len(processes) == 4
    assert str(os.getpid()) not in processes


def test_every_rank_has_a_hash_seed_of_its_own() -> None:
    """Else nothing would show that the order of a set decides what processes exchange."""
    assert "PYTHONHASHSEED" not in os.environ
    first, second = run_processes(state, 2)
    assert first[1] != second[1]


def test_environment_and_folder_are_those_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_processes(state, 2)
    monkeypatch.setenv("VLMDSL_TEST", "set")
    monkeypatch.chdir(tmp_path)
    after = run_processes(state, 2)
    assert [run[3] for run in (*before, *after)] == ["unset", "unset", "set", "set"]
    assert {run[4] for run in after} == {str(tmp_path)}
    monkeypatch.delenv("VLMDSL_TEST")
    assert [run[3] for run in run_processes(state, 2)] == ["unset", "unset"]


def test_the_end_of_a_process_is_reported_and_the_next_job_runs() -> None:
    with pytest.raises(RuntimeError, match="process 1 ended with exit code -9"):
        run_processes(killed, 2)
    assert [run[0] for run in run_processes(state, 2)] == ["1", "1"]


def test_a_process_that_waits_and_is_killed_is_replaced() -> None:
    (waiting,) = prepared(1)
    assert waiting.run("time", os.getcwd).join() == 0
    waiting.process.kill()
    waiting.process.join()
    assert [run[0] for run in run_processes(state, 2)] == ["1", "1"]
