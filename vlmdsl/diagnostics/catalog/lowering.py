"""V06: lowering to what runs."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class UnknownStage(Problem):
    code = "V0601"
    template = "no pass is called `{name}`"
    summary = "the graph is requested after a pass that does not exist"
    explanation = (
        "`vlmdsl plan RECIPE --dump PASS` prints the graph after one pass of the compiler. `ir` is the graph as the "
        "recipe was written; the passes run in the order in which the message lists them. `fold` does the algebra, "
        "`share` computes each similarity in one orientation only, `contrast` recognises contrastive losses, `dead` drops "
        "what has no effect, and `fuse` lets a contrastive region own its matrix product."
    )
    provoked_by = "`vlmdsl plan clip --dump fold_twice`; no recipe alone can"


class ImpossiblePlan(Problem):
    code = "V0602"
    template = "no plan for {batch} samples on {world} processes: {reason}"
    summary = "a batch that cannot be split evenly, or is empty"
    explanation = (
        "Every process holds the same number of samples of the global batch: a similarity matrix has the rows of one "
        "process and the columns of all, and gathering needs equal parts. `--batch` is the size of the global batch, over "
        "all processes together; it must be a positive multiple of `--world`. The same holds for training."
    )
    provoked_by = "`vlmdsl plan clip --batch 100 --world 3`; no recipe alone can"


class UnknownDtype(Problem):
    code = "V0603"
    template = "features cannot have the data type `{dtype}`"
    summary = "a data type that features cannot have"
    explanation = (
        "Costs in bytes depend on the data type of the features, which is the one that the similarity is computed in. "
        "Statistics and losses are at least float32, whatever the features are. A recipe never names a data type: that is "
        "part of the run configuration."
    )
    provoked_by = '`make_plan(program, dtype="int8")`; no recipe alone can'
