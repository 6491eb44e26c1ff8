"""The emitted source: what it looks like, that it is what runs, and that every operation can be written."""

from __future__ import annotations

import inspect
import traceback

import pytest
import torch

from unit.backends.torch.programs import RECIPE, SOURCES, clip, labelled, tokenwise
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.calls import RULES
from vlmdsl.backends.torch.emit import emit
from vlmdsl.backends.torch.naming import has_line
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.ir import Program
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import CONTEXT
from vlmdsl.ir.operations.scalars import CONSTANT
from vlmdsl.ir.verify import verify

CLIP = """
from vlmdsl.backends.torch import ops


def objective(inputs, parameters, state):
    image = inputs["image"]  # clip.vlo:3
    image_unit = ops.normalize(image)  # clip.vlo:3
    text = inputs["text"]  # clip.vlo:3
    text_unit = ops.normalize(text)  # clip.vlo:3
    learned_log_scale = parameters["log_scale"]  # clip.vlo:2
    logit_scale = ops.exp(learned_log_scale)  # clip.vlo:2
    contrast = ops.contrast(
        image_unit, text_unit,
        rows=ops.Direction(0.5, ops.paired(), scale=logit_scale),
        columns=ops.Direction(0.5, ops.paired(), scale=logit_scale),
    )  # clip.vlo:3
    loss = contrast.loss
    terms = {"contrast": contrast.loss}
    metrics = {"logit_scale": logit_scale, "contrast.accuracy": contrast.accuracy}
    return loss, terms, metrics, {}
"""


def test_the_source_of_clip_reads_like_the_recipe_and_names_its_lines() -> None:
    header, body = emit(clip(), SOURCES).split("\n", 1)
    assert header.startswith("# recipe clip, meaning sha256:")
    assert body == CLIP
    assert SOURCES.get("clip.vlo") is RECIPE


def test_a_traceback_shows_the_emitted_line() -> None:
    objective = Objective(clip(), sources=SOURCES)
    original = ops.normalize
    try:
        ops.normalize = lambda features: 1 / 0
        with pytest.raises(ZeroDivisionError) as caught:
            objective(image=torch.eye(2), text=torch.eye(2))
    finally:
        ops.normalize = original
    lines = [frame.line for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "image_unit = ops.normalize(image)  # clip.vlo:3" in lines


@pytest.mark.parametrize("program", [clip(), labelled(), tokenwise()], ids=lambda program: program.name)
def test_the_hand_made_programs_are_valid_and_every_name_in_their_source_is_used(program: Program) -> None:
    verify(program)
    source = emit(program)
    compile(source, "emitted", "exec")
    for node in program.nodes():
        if has_line(node):
            assert node.operation in RULES or hasattr(ops, node.operation)


def test_every_operation_of_the_graph_can_be_written() -> None:
    """By its row in `RULES`, or by the function of its name; but for what is done before features reach the objective, and
    for numbers, which stand where they are used."""
    for operation in (operation for operation in OPERATIONS.values() if not operation.module):
        before_the_objective = (
            operation.per_sample_view or operation.pairs_fields or operation in (ENCODE, CONSTANT, CONTEXT)
        )
        assert before_the_objective != (operation in RULES or operation.name in ops.__all__), operation


def test_every_operation_of_the_source_is_documented() -> None:
    for name in ops.__all__:
        assert inspect.getdoc(getattr(ops, name)), name
