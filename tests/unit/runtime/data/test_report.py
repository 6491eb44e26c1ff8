"""The report at the end of a run."""

from __future__ import annotations

from vlmdsl.runtime.data.report import Skipped, SkipReport


def test_nothing_to_tell() -> None:
    report = SkipReport()
    report.add([], {"rewrite: draws": 5, "rewrite: fewer than 4 rewrites": 0})
    assert report.table() == ""


def test_each_sample_counts_once_and_reasons_are_sorted_by_number() -> None:
    report = SkipReport()
    report.add([Skipped("s/0", "missing text")])
    for _ in range(2):
        report.add([Skipped(f"s/{number}", "damaged image") for number in range(1, 13)], {"rewrite: draws": 40})
    report.add([], {"rewrite: fewer than 4 rewrites": 7})
    assert report.counts == {"damaged image": 12, "missing text": 1}
    assert report.table().splitlines() == [
        "skipped 13 samples",
        "  damaged image  12  s/1, s/2, s/3, ...",
        "  missing text    1  s/0",
        "rewrite: fewer than 4 rewrites in 7 of 80 draws",
    ]
    assert report.as_dict()["examples"] == {"damaged image": ["s/1", "s/2", "s/3"], "missing text": ["s/0"]}
