"""What one process skipped is reported by the first one."""

from __future__ import annotations

import pytest

from vlmdsl.backends.torch.collectives import process_index
from vlmdsl.runtime.data.report import Skipped, SkipReport
from vlmdsl.runtime.training.processes import join_reports
from vlmdsl.testing.distributed import run_processes


def joined() -> list[str]:
    """The keys in a process's report after joining: each process met a sample of its own and one that all met."""
    report = SkipReport()
    report.add([Skipped("all", "damaged image"), Skipped(f"own {process_index()}", "missing text")], {"rewrite: draws": 1})
    join_reports(report)
    assert report.counts["damaged image"] == 1
    return [*sorted(report.samples), str(report.views["rewrite: draws"])]


def test_one_process_keeps_its_own() -> None:
    assert joined() == ["all", "own 0", "1"]


@pytest.mark.distributed
@pytest.mark.slow
def test_every_process_knows_all() -> None:
    assert run_processes(joined, 2) == [["all", "own 0", "own 1", "2"]] * 2
