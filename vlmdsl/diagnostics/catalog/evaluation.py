"""V0836: what an evaluation needs of its data."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["ClassesWithoutNames"]


class ClassesWithoutNames(Problem):
    code = "V0836"
    template = "the classes of {source} are numbers without names"
    summary = "The data of an evaluation has numeric labels without class names."
    explanation = (
        "Zero-shot classification encodes the name of each class with the text tower. The names come from the evaluated "
        "data: from the names of folders, from labels that are words, or from a column `class_name` beside labels that "
        "are numbers. In other data than the run's own, the same number may mean another class, so the run's class names "
        "are not used. Name the column with `--map class_name=COLUMN`, or leave out zero-shot classification: `--set "
        "evaluation.zero_shot=false`."
    )
    provoked_by = "`vlmdsl eval RUN --data table.csv` where the column `label` of the table holds numbers"
