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


class UnknownLowering(Problem):
    code = "V0604"
    template = "no lowering is called `{name}`"
    summary = "a lowering that does not exist"
    explanation = (
        "A lowering is how an operation runs. `dense` makes the matrix of similarities of all pairs. `chunked` makes a "
        "block of its rows at a time, keeps what each row and column sums up to, and makes the blocks again in the backward "
        "pass: a little more time, and memory that grows with the batch instead of its square. `auto` takes `dense` as "
        "long as the matrices fit a budget. `vlmdsl plan RECIPE` shows what is taken and why."
    )
    provoked_by = "`vlmdsl plan clip --lowering tiled`; no recipe alone can"


class NoSuchLowering(Problem):
    code = "V0605"
    template = "the term `{term}` cannot run `{lowering}`: {reason}"
    summary = "a term that has no other form, or a term that the recipe does not have"
    explanation = (
        "Contrastive losses over a product of features, sigmoid losses over such a product, and similarities by "
        "`tokenmax` have a `chunked` form beside the `dense` one. What reads a matrix that something else needs as well "
        "has the `dense` form only. `--lowering chunked`, without a term, takes the chunked form where there is one."
    )
    provoked_by = "`vlmdsl plan clip --lowering wrong=chunked`; no recipe alone can"


class PassNeeds(Problem):
    code = "V0606"
    template = "the pass `{name}` needs the pass `{needed}`, which is left out"
    summary = "a choice of passes without one that another reads the results of"
    explanation = (
        "`--passes` chooses the passes of the compiler: `all`, `off`, or some by name, to see what each of them gains. "
        "`contrast` recognises contrastive losses in what `fold` and `share` have brought to one form, and `fuse` gives "
        "the regions that `contrast` makes their matrix product. The loss is the same whatever is chosen."
    )
    provoked_by = "`vlmdsl plan clip --passes contrast`; no recipe alone can"
