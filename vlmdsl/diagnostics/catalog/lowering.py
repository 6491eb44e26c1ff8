"""V06: lowering to what runs."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class UnknownStage(Problem):
    code = "V0601"
    template = "no pass is called `{name}`"
    summary = "the graph was asked for after a pass that does not exist"
    explanation = (
        "`vlmdsl plan RECIPE --dump PASS` prints the graph after one pass of the compiler. `ir` is the graph as the "
        "recipe was written; the passes run in the order in which the message lists them. `fold` does the algebra, "
        "`share` gives each similarity one orientation, `contrast` recognises contrastive losses, `dead` drops what "
        "has no effect, and `fuse` lets a contrastive region own its matrix product."
    )
    provoked_by = "`vlmdsl plan clip --dump fold_twice`; no recipe alone can"


class ImpossiblePlan(Problem):
    code = "V0602"
    template = "no plan for {batch} samples on {world} processes: {reason}"
    summary = "a batch that cannot be shared out equally, or is empty"
    explanation = (
        "Every process holds the same number of samples of the global batch: matrices of similarities have this "
        "process's rows against everybody's columns, and their exchange needs equal parts. `--batch` is the size of "
        "the global batch, over all processes together; it must be a positive multiple of `--world`. Training has the "
        "same rule."
    )
    provoked_by = "`vlmdsl plan clip --batch 100 --world 3`; no recipe alone can"


class UnknownDtype(Problem):
    code = "V0603"
    template = "features cannot be of the data type `{dtype}`"
    summary = "a data type that features cannot have"
    explanation = (
        "Costs in bytes depend on the data type of the features, which is the one that the similarity is computed in. "
        "Statistics and losses are float32 at least, whatever the features are. A recipe never names a data type: it "
        "is a matter of the run."
    )
    provoked_by = '`make_plan(program, dtype="int8")`; no recipe alone can'
