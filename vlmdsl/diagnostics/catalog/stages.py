"""V0217 to V0221, V0522 to V0524: stages, and the flows of a stage."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "ChooseFlow", "FieldOutsideFlow", "NoWriter", "NotAField", "NumbersDiffer", "StageUnused", "StagesNotCallable",
    "UnknownStart",
]  # fmt: skip

_TWO = "vlo 1\nrecipe mine(image: Image, text: Text)\n"


class UnknownStart(Problem):
    code = "V0217"
    template = "the stage `{name}` cannot start from `{start}`: {reason}"
    summary = "a stage that starts from a stage that is not before it"
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
    template = "the flow `{flow}` reads the field `{name}`, which is not one of its fields"
    summary = "a flow that reads a field which its batches do not have"
    explanation = (
        "A flow names the fields that its batches have: `flow texts(text) share 15% { ... }`. Batches of different flows "
        "hold different samples, often from different data sets, so a flow cannot read fields of another one. Name the "
        "field in the head of the flow, or omit the list: the flow then has the fields that it reads."
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
        "A flow takes its fields from those that the signature declares, or from `image` and `text` in a file without a "
        "signature."
    )
    bad = _TWO + "flow pairs(image, text, caption) {\n  minimize contrast(image, text)\n}"
    good = _TWO + "flow pairs(image, text) {\n  minimize contrast(image, text)\n}"


class StagesNotCallable(Problem):
    code = "V0220"
    template = "`{name}` has stages or flows, and cannot be called as a function"
    summary = "a used recipe with more than one objective"
    explanation = (
        "A used recipe is called as a function of its fields and returns one loss. A recipe with stages or flows describes "
        "a training run, not a loss. Move the shared part into a separate file, as a recipe with one `minimize` or `def`s, "
        "and `use` that."
    )
    provoked_by = 'a recipe with `use "./staged.vlo" as staged`, where that file has stages'


class ChooseFlow(Problem):
    code = "V0221"
    template = "{reason}"
    summary = "a recipe with several objectives, where one is needed"
    explanation = (
        "`vlmdsl.compile` returns one objective. Select one from a recipe with stages or flows: "
        '`vlmdsl.compile("two.vlo", stage="second", flow="texts")`. On the command line, `--stage` and `--flow` choose. '
        "`vlmdsl train` needs neither: it runs all stages, and mixes the flows of each."
    )
    provoked_by = "`vlmdsl.compile` of a recipe with two stages, without `stage=`"


class NumbersDiffer(Problem):
    code = "V0522"
    template = "two flows of a stage have a learned number or state `{name}`, and they differ"
    summary = "different learned numbers or states with one name in a stage"
    explanation = (
        "Learned parameters and states (queues, running means) are shared by name among the flows of a stage, and a later "
        "stage continues with them. So within a stage they must have the same initial value, bounds and size. "
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
        "A stage without `from` begins with untrained weights, not with those of the stage before it. If no later stage "
        "starts from a stage, the weights trained there are not part of the final model, unless its decoder writes "
        "texts for a later one (`written`)."
    )
    bad = "stage first {\n  minimize contrast(image, text)\n}\n\nstage second {\n  minimize contrast(text, image)\n}\n"
    good = (
        "stage first {\n  minimize contrast(image, text)\n}\n\n"
        "stage second from first {\n  minimize contrast(text, image)\n}\n"
    )
    severity = "warning"


class NoWriter(Problem):
    code = "V0524"
    template = "the decoder `{name}` cannot have written a text: {reason}"
    summary = "a written text without an earlier stage that trains its decoder"
    explanation = (
        "`written(captioner(text, image))` is what the decoder `captioner` writes of each image before the first step of the"
        " stage, with the weights that the latest earlier stage with `next_token(linear(captioner(text, image)), text)`"
        " ended with. In the first stage there is no such decoder. A decoder that was trained with a prompt writes after a"
        " prompt, and one that was trained without a prompt writes without."
    )
    bad = (
        _TWO + "encoder captioner = text_decoder(depth=2)\nstage pairs {\n"
        "  minimize contrast(image, written(captioner(text, image)))\n}\n"
    )
    good = (
        _TWO + "encoder captioner = text_decoder(depth=2)\nstage captions {\n"
        "  minimize next_token(linear(captioner(text, image)), text)\n}\n"
        "stage pairs from captions {\n  minimize contrast(image, written(captioner(text, image)))\n}\n"
    )
