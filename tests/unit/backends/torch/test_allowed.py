"""Emitted source is held to what the emitter writes before it runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vlmdsl
from bundled.objectives import OBJECTIVES
from vlmdsl.backends.torch import allowed, calls
from vlmdsl.backends.torch.allowed import allowed_tree
from vlmdsl.ir.verify import InternalError

SOURCE = """# a comment

from vlmdsl.backends.torch import ops


def objective(inputs, parameters, state):
    image = inputs["image"].detach()
    mask = inputs.get("image_mask")
    scale = ops.exp(parameters["scale"])
    found = ops.contrast(
        image, ops.normalize(image, epsilon=1e-08),
        rows=ops.Direction(0.5, ops.paired(), scale=scale),
    )
    queue = state["queue"]
    loss = found.loss * 2.0 - -scale + 1 / scale
    terms = {"a": loss}
    return loss, terms, {"accuracy": found.accuracy}, {"queue": (queue, None, True, "x")}


def before_2(inputs, parameters, state):
    share = inputs["share"]
    return {"image": ((share, 0),)}
"""


def test_what_the_emitter_writes_is_allowed() -> None:
    for source in (SOURCE, *(vlmdsl.emit(recipe) for recipe in OBJECTIVES.values())):
        assert ast.unparse(allowed_tree(source)) == ast.unparse(ast.parse(source))


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("from vlmdsl.backends.torch import ops", "import os"),
        ("from vlmdsl.backends.torch import ops", "from vlmdsl.backends.torch import ops as inputs"),
        ("# a comment\n\nfrom", "# a comment\n\nimport os\nfrom"),
        ("    mask =", "    import os\n    mask ="),
        ('inputs["image"].detach()', '__import__("os").system("true")'),
        ('inputs["image"].detach()', 'eval("1")'),
        ('inputs["image"].detach()', 'inputs["image"].numpy()'),
        ('inputs["image"].detach()', 'inputs["image"].detach().__class__'),
        ('inputs["image"].detach()', "inputs[os]"),
        ('inputs["image"].detach()', 'inputs["a" if 1 else "b"]'),
        ('inputs.get("image_mask")', 'inputs.pop("image_mask")'),
        ('inputs.get("image_mask")', 'inputs.get("image_mask", print())'),
        ("ops.exp(", "ops.sys("),
        ("ops.exp(", "ops.exp.__globals__("),
        ("ops.exp(", "open("),
        ('ops.exp(parameters["scale"])', 'ops.exp(*parameters["scale"])'),
        ('ops.exp(parameters["scale"])', 'ops.exp(**parameters["scale"])'),
        ("found.loss", "found.__class__"),
        ("found.loss", "ops.loss"),
        ("found.loss", "later"),
        ("1 / scale", "1 ** scale"),
        ("1 / scale", "(lambda: 1)()"),
        ("1 / scale", "[1 for scale in scale][0]"),
        ("1 / scale", "(1 if scale else 2)"),
        ("1 / scale", "inf"),
        ('"x")', 'f"{print()}")'),
        ('"x")', 'b"x")'),
        ("queue = state", "ops = state"),
        ("queue = state", "queue.x = state"),
        ("def before_2(inputs, ", "def forward(inputs, "),
        ("def before_2(inputs, ", "def before_2(inputs=print(), "),
        ("def before_2(inputs, ", "@print\ndef before_2(inputs, "),
        ("def before_2(inputs, ", "class A:\n  pass\n\ndef before_2(inputs, "),
        ("queue = state", "before_1 = state"),
        ("    share =", "    while True: pass\n    share ="),
        ("    share =", "    print()\n    share ="),
        ("    share =", "  share ="),
        ("# a comment", "# a\x00comment"),
    ],
)
def test_anything_else_is_a_fault_of_the_compiler(written: str, instead: str) -> None:
    assert written in SOURCE
    with pytest.raises(InternalError, match="the emitter"):
        allowed_tree(SOURCE.replace(written, instead, 1))


def test_source_that_is_not_allowed_never_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f'inputs["image"] if __import__("pathlib").Path({str(trace)!r}).touch() else inputs["image"]'
    monkeypatch.setitem(calls.RULES, "pooled", lambda values, node: code)
    with pytest.raises(InternalError, match="an expression that the emitter does not write"):
        vlmdsl.compile("contrast(image, text)", compiled=False)
    assert not trace.exists()


@pytest.mark.parametrize("text", ["plain", 'a"b', "a'b", "a\\", "a\nb", "\u202e", "\ud800", "\x00", "漢", '"' + "x" * 9])
def test_a_string_is_written_as_one(text: str) -> None:
    written = calls.literal(text)
    assert written.isascii()
    assert "\n" not in written
    assert allowed.ast.literal_eval(written) == text
