"""The pages of the statements `stage` and `flow`."""

from __future__ import annotations

from vlmdsl.api.explanation import Explanation

__all__ = ["BLOCKS", "block_page"]

_STAGE = """A stage is a part of a training run with its own objective.

Stages run in the order of the file. `from` names an earlier stage: the stage takes over its weights, learned numbers and
states, as far as both stages have them. Without `from` a stage begins with untrained weights. Teachers begin as copies of
what they follow; the optimiser, the learning rate and the schedules of the recipe restart.

A stage contains one `minimize` or several flows, preceded by `let`s and `encoder`s that are local to it. The settings of a
run apply to all stages; `stages.NAME` overrides them for one stage: `--set stages.second.train.steps=100`.
`vlmdsl train` runs all stages and resumes in the stage that was interrupted. In Python, `vlmdsl.compile(recipe,
stage="second")`."""
_FLOW = """A flow is the objective of a share of the steps of a run or stage, with its own batches.

Each step runs one flow, drawn with the shares as probabilities; the draw depends only on seed and step. One flow may omit
its `share` and takes the rest; otherwise the shares sum to 100 %. All flows train one set of modules: they share towers,
heads and learned numbers by name. Modules that a flow does not use get no gradient in its steps.

The parentheses list the fields of its batches; without the list these are the fields that the flow reads.
`flows.NAME.data` sets separate data for a flow: `--set 'flows.texts.data.train=[texts.parquet]'`; `flows.NAME.share` states
another share, and other flows divide the rest as in the recipe.
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
