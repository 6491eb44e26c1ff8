"""V0836: what an evaluation needs of its data."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["ClassesWithoutNames"]


class ClassesWithoutNames(Problem):
    code = "V0836"
    template = "the classes of {source} are numbers, and nothing says what they are called"
    summary = "Data that a trained run is to be evaluated on has labels without names."
    explanation = (
        "Zero-shot classification asks the text tower for the name of each class, and takes the names from the data that it "
        "is given: from the names of folders, from labels that are words, or from a column `class_name` beside labels that "
        "are numbers. The numbers of other data than the run's own mean other classes than the run's, so its names are not "
        "used for them. Name the column with `--map class_name=COLUMN`, or measure the rest without zero-shot "
        "classification: `--set evaluation.zero_shot=false`."
    )
    provoked_by = "`vlmdsl eval RUN --data table.csv` where the column `label` of the table holds numbers"
