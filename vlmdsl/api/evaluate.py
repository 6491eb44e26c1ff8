"""`evaluate`: the quality of the model of a run folder on held-out data. Torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import course, load_settings, parts_of
from vlmdsl.schema import DataSources, listed

__all__ = ["EvaluationResult", "evaluate"]


@dataclass(frozen=True)
class EvaluationResult:
    """The measures, as in `evaluation.json`, and as a table."""

    evaluation: dict[str, Any]
    table: str

    def to_json(self) -> dict[str, Any]:
        """The measures as fractions, for a machine."""
        return self.evaluation

    def to_text(self) -> str:
        """The measures as a table in percent, for people."""
        return self.table


def evaluate(
    run: str | Path,
    *,
    data: DataSources = (),
    map: Mapping[str, str] | None = None,
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
) -> EvaluationResult:
    """Measure the model of a run's newest checkpoint, next to chance and the untrained model.

    On the run's own held-out data the result is written to its `evaluation.json`; the untrained model is measured only if
    that file does not have it yet, under the same conditions. Raises `DiagnosticError` if there is no complete checkpoint,
    or if the data lacks a compared field. Classes and their names come from the evaluated data: names of folders, labels
    that are words, or a column `class_name`; or from the setting `evaluation.classes`, which numbers are places in.

    Args:
        run: the run folder.
        data: other sources to evaluate on, in the formats of `train`.
        map: field of the recipe -> column of these sources.
        overrides: `section.setting=value` texts, such as `evaluation.limit=1000`.
        out: a file to write the results to as JSON; V0903 or V0870, before anything is measured, where none can be
            there.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> result = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> again = vlmdsl.evaluate(result.folder)
    >>> again.evaluation == result.evaluation
    True
    """
    specs, overrides = listed(data), [str(override) for override in listed(overrides)]
    files = import_module("vlmdsl.runtime.files")
    folder = import_module("vlmdsl.runtime.training.run_folder").RunFolder.existing(str(run))
    if out is not None:
        files.check_place(Path(out))
        places = import_module("vlmdsl.runtime.data.read_places")
        places.check_apart(out, [one for one in specs if isinstance(one, str)], "`--out`")
        places.check_apart_from(out, folder.path, "`--out`")
    built = build_flows(folder.recipe, knobs=folder.read_facts().recipe.given_knobs, kept=folder.kept_uses())
    named = {"data.val": specs, "data.map": map}
    load_settings(folder.config, overrides, {name: value for name, value in named.items() if value})  # V0812, V0848
    config = load_settings(folder.config, overrides, {}, parts_of(built))
    measuring = import_module("vlmdsl.runtime.training.measuring")
    stages = course(built, config, compiled=False)
    results, table = measuring.evaluate_run(stages, config, folder, specs, map)
    if out is not None:
        files.write_json(Path(out), results)
    return EvaluationResult(results, table)
