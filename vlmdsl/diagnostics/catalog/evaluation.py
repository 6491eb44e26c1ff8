"""V0836, V0838 and V0867: the classes of an evaluation."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["ClassNamesUnusable", "ClassesDoNotFit", "ClassesWithoutNames"]


class ClassesWithoutNames(Problem):
    code = "V0836"
    template = "the classes of {source} are numbers without names"
    summary = "The data of an evaluation has numeric labels without class names."
    explanation = (
        "Zero-shot classification encodes the name of each class with the text tower. The names come from the evaluated "
        "data: from the names of folders, from labels that are words, or from a column `class_name` beside labels that "
        "are numbers. In other data than the run's own, the same number may mean another class, so the run's class names "
        "are not used. Name the column with `--map class_name=COLUMN`, name the classes in the order of their numbers with "
        "`--set evaluation.classes=[dog,cat]`, or leave out zero-shot classification: `--set "
        "evaluation.zero_shot=false`."
    )
    provoked_by = "`vlmdsl eval RUN --data table.csv` where the column `label` of the table holds numbers"


class ClassesDoNotFit(Problem):
    code = "V0838"
    template = "`evaluation.classes` does not fit {source}: {reason}"
    summary = "The classes that an evaluation names are not those of its data."
    explanation = (
        "`evaluation.classes` names the classes among which zero-shot classification chooses. Labels that are numbers are "
        "places in this list, counted from 0, so that none is as large as its length. Classes that have names in "
        "the data, from folders, words or a column `class_name`, are found in the list by name, so that each must be in it, "
        "spelt alike; the list may have others. Without the setting the classes are those of the data."
    )
    provoked_by = "`vlmdsl eval RUN --data table.csv --set evaluation.classes=[dog,cat]` where a label of the table is 2"


class ClassNamesUnusable(Problem):
    code = "V0867"
    template = "`{classes}` does not name classes: {reason}"
    summary = "A list of class names, or the file that it is in, cannot be used."
    explanation = (
        "`vlmdsl classify --classes` and the setting `evaluation.classes` take names with commas between, `dog,cat`. A text "
        "without a comma is the path of a file: a text in UTF-8 of at most 512 KiB with one name per line, where `#` begins "
        "a comment, or a JSON list of names, which may hold commas and `#`. A run keeps the names, not the path. A single "
        "name is possible in brackets: `--set evaluation.classes=[dog]`."
    )
    provoked_by = "`--set evaluation.classes=nowhere.txt`"
