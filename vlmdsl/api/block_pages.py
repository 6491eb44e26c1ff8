"""The pages of the statements `stage` and `flow`."""

from __future__ import annotations

from vlmdsl.api.explanation import Explanation

__all__ = ["BLOCKS", "block_page"]

_STAGE = """A stage is a part of a training run with an objective of its own.

Stages run in the order of the file. `from` names an earlier stage: its weights, learned numbers and states are taken over
as far as both stages have them. Without it a stage begins with untrained weights. Teachers begin as copies of what they
follow; the optimiser, the learning rate and the schedules of the recipe begin again.

A stage holds one `minimize`, or flows, and before them `let`s and `encoder`s that only it sees. The settings of a run
hold for all stages; `stages.NAME` sets others for one: `--set stages.second.train.steps=100`.
`vlmdsl train` runs all stages and resumes in the right one. In Python, `vlmdsl.compile(recipe, stage="second")`."""
_FLOW = """A flow is what a share of the steps of a run, or of a stage, minimises, with batches of its own.

Each step runs one flow, drawn by seed and step with the shares as probabilities. One flow may leave out its `share` and
takes the rest; otherwise the shares sum to 100 %. The flows are trained over one set of modules: towers, heads and learned
numbers of one name are one. What a flow does not use gets no gradient in its steps.

The fields in parentheses are those that its batches have; without the list they are those that it reads. `flows.NAME.data`
gives a flow data of its own: `--set 'flows.texts.data.train=[texts.parquet]'`.
`vlmdsl train` mixes the flows. In Python, `vlmdsl.compile(recipe, flow="texts")`."""
_STAGES = """stage warm {
  minimize contrast(image, text)
}

stage main from warm {
  encoder vision = frozen(vision)

  minimize {
    pairs: contrast(image, text)
    words: mlm(mask(text, random(15%)))
  }
}"""
_FLOWS = """flow pairs(image, text) share 85% {
  minimize contrast(image, text)
}

flow texts(text) {
  minimize mlm(mask(text, random(15%)))
}"""
BLOCKS = {
    "stage": ("stage NAME from OTHER { ... }", _STAGE, _STAGES),
    "flow": ("flow NAME(fields) share 15% { ... }", _FLOW, _FLOWS),
}
"""Word -> how it is written, what it means, and an example."""


def block_page(word: str) -> Explanation:
    """The page of a statement of `BLOCKS`.

    >>> block_page("flow").title
    'flow (statement)'
    """
    form, meaning, example = BLOCKS[word]
    sections = (("", meaning), ("Form", form), ("Example", example))
    facts = {"kind": "statement", "name": word, "form": form, "meaning": meaning, "example": example}
    return Explanation(f"{word} (statement)", sections, facts)
