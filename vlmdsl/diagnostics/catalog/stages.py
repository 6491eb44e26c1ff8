"""V0217 to V0221, V0522 and V0523: stages, and the flows of a stage."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "ChooseFlow", "FieldOutsideFlow", "NotAField", "NumbersDiffer", "StageUnused", "StagesNotCallable", "UnknownStart",
]  # fmt: skip

_TWO = "vlo 1\nrecipe mine(image: Image, text: Text)\n"


class UnknownStart(Problem):
    code = "V0217"
    template = "the stage `{name}` cannot start from `{start}`: {reason}"
    summary = "a stage that starts from one that does not come before it"
    explanation = (
        "Stages run in the order of the file. `stage second from first` begins with the weights that `first` ended with, so "
        "that stage has to come before it. A stage without `from` begins with untrained weights."
    )
    bad = "stage first from second {\n  minimize contrast(image, text)\n}\n"
    good = (
        "stage first {\n  minimize contrast(image, text)\n}\n\n"
        "stage second from first {\n  minimize contrast(text, image)\n}\n"
    )


class FieldOutsideFlow(Problem):
    code = "V0218"
    template = "the flow `{flow}` reads the field `{name}`, which is not one of its own"
    summary = "a flow that reads a field which its batches do not have"
    explanation = (
        "A flow names the fields that its batches have: `flow texts(text) share 15% { ... }`. Batches of different flows "
        "are different samples, often of different data, so nothing of another flow can be read. Name the field in the head "
        "of the flow, or leave the list out: then it has the fields that it reads."
    )
    bad = (
        "flow pairs(image, text) share 85% {\n  minimize contrast(image, text)\n}\n\n"
        "flow texts(text) {\n  minimize contrast(image, text)\n}\n"
    )
    good = (
        "flow pairs(image, text) share 85% {\n  minimize contrast(image, text)\n}\n\n"
        "flow texts(text) {\n  minimize mlm(mask(text, random(15%)))\n}\n"
    )


class NotAField(Problem):
    code = "V0219"
    template = "the flow `{flow}` names `{name}`, which is not a field of the recipe"
    summary = "a flow with a field that the signature does not have"
    explanation = (
        "The fields of a flow are some of those that the signature declares with their types, or of `image` and `text` in a "
        "file without a signature."
    )
    bad = _TWO + "flow pairs(image, text, caption) {\n  minimize contrast(image, text)\n}"
    good = _TWO + "flow pairs(image, text) {\n  minimize contrast(image, text)\n}"


class StagesNotCallable(Problem):
    code = "V0220"
    template = "`{name}` has stages or flows, and cannot be called as a function"
    summary = "a used recipe that is more than one objective"
    explanation = (
        "A used recipe is called as a function of its fields and gives one loss. One with stages or flows is a course of "
        "training, not a loss. Move what both need into a file of its own, as a recipe with one `minimize` or as `def`s, "
        "and `use` that."
    )
    provoked_by = 'a recipe with `use "./staged.vlo" as staged`, where that file has stages'


class ChooseFlow(Problem):
    code = "V0221"
    template = "{reason}"
    summary = "one objective is needed, and the recipe has several or another one"
    explanation = (
        "`vlmdsl.compile` gives one objective. Of a recipe with stages or flows, say which: "
        '`vlmdsl.compile("two.vlo", stage="second", flow="texts")`. On the command line, `--stage` and `--flow` choose. '
        "`vlmdsl train` needs neither: it runs all stages, and mixes the flows of each."
    )
    provoked_by = "`vlmdsl.compile` of a recipe with two stages, without saying which"


class NumbersDiffer(Problem):
    code = "V0522"
    template = "two flows of a stage have a learned number or state `{name}`, and they differ"
    summary = "one name for different numbers that are learned in one stage"
    explanation = (
        "Learned parameters and states (queues, running means) with one name are one: the flows of a stage share them, and "
        "a later stage continues with them. So within a stage they must have the same initial value, bounds and size. "
        "Define it once, with `let` before the flows, or give one of them another name."
    )
    bad = (
        _TWO + "flow pairs(image, text) share 85% {\n  let tau = learned(0.07, max_scale=100)\n"
        "  minimize contrast(image, text, temperature=tau)\n}\n"
        "flow backs(image, text) {\n  let tau = learned(0.1, max_scale=100)\n"
        "  minimize contrast(text, image, temperature=tau)\n}"
    )
    good = (
        _TWO + "let tau = learned(0.07, max_scale=100)\n"
        "flow pairs(image, text) share 85% {\n  minimize contrast(image, text, temperature=tau)\n}\n"
        "flow backs(image, text) {\n  minimize contrast(text, image, temperature=tau)\n}"
    )


class StageUnused(Problem):
    code = "V0523"
    template = "nothing starts from the stage `{name}`"
    summary = "a stage whose weights no later stage takes over"
    explanation = (
        "A stage without `from` begins with untrained weights, not with those of the stage before it. What is trained in a "
        "stage from which no later one starts is not part of the final model."
    )
    bad = "stage first {\n  minimize contrast(image, text)\n}\n\nstage second {\n  minimize contrast(text, image)\n}\n"
    good = (
        "stage first {\n  minimize contrast(image, text)\n}\n\n"
        "stage second from first {\n  minimize contrast(text, image)\n}\n"
    )
    severity = "warning"
