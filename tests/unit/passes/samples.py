"""Random programs for properties: losses drawn from all operations that the passes know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from unit.passes.programs import Build
from vlmdsl.ir import Node, Program
from vlmdsl.ir.text import program_text
from vlmdsl.types import ScalarType, ScoreType


class Expressions:
    """Random losses over a few fields, drawn from all operations that the passes know."""

    def __init__(self, draw: Callable) -> None:
        self.draw, self.build = draw, Build()
        build = self.build
        self.features = [build.pooled("image", "Image"), build.pooled("text"), build.pooled("caption", unit=False)]
        self.features.append(build.normalize(build.mix(build.pooled("summary", unit=False), build.constant(0.3), block=4)))
        gated = build.gate(build.pooled("image", "Image"), build.field("number", "Number"))
        self.features.append(gated)
        self.features.append(build("subtract", build("add", build.pooled("image", "Image"), gated), build.pooled("text")))
        self.memory = build.memory("earlier", self.features[1])
        self.scalars = [build.constant(value) for value in (0.0, 1.0, -1.0, 0.5, 3.0)]
        self.scalars += [build.samples(), build.samples(build.field("flag", "Flag"))]
        self.scalars += [build.temperature("temperature", 0.3), build.parameter("direct", 0.7)]
        self.scalars.append(build.add("scalar", type=ScalarType(), name="outside"))
        self.positive = [node for node in self.scalars if node not in self.scalars[:3]]

    def one_of(self, *choices: Callable[[], Node]) -> Node:
        return self.draw(st.sampled_from(choices))()

    def scalar(self) -> Node:
        first = self.draw(st.sampled_from(self.scalars))
        if self.draw(st.booleans()):
            return first
        return self.build(
            self.draw(st.sampled_from(("multiply", "add", "subtract"))), first, self.draw(st.sampled_from(self.scalars))
        )

    def score(self) -> Node:
        x, y = (self.draw(st.sampled_from(self.features)) for _ in range(2))
        plain = self.build.score(x, y)
        image, text = self.build.tokens("image", "Image"), self.build.tokens("text")
        return self.one_of(
            lambda: plain,
            lambda: self.build.stop(plain),
            lambda: self.build("exp", plain),
            lambda: self.build.entropy(x, y),
            lambda: self.build.add(self.draw(st.sampled_from(("row_sum", "row_mean"))), self.matrix(2), type=ScoreType()),
            lambda: self.build(
                "subtract", self.build.score(image, text, "tokenmax"), self.build.score(text, image, "tokenmax")
            ),
        )

    def condition(self) -> Node:
        return self.one_of(lambda: self.build.field("flag", "Flag"), lambda: self.build("less", self.score(), 0.1))

    def matrix(self, depth: int = 3) -> Node:
        build = self.build
        x, y = (self.draw(st.sampled_from(self.features)) for _ in range(2))
        base = build.similarity(x, y, self.draw(st.sampled_from(("dot", "dot", "euclidean"))))
        if depth == 0:
            return base
        return self.one_of(
            lambda: base,
            lambda: build.transpose(self.matrix(depth - 1)),
            lambda: build(
                self.draw(st.sampled_from(("multiply", "divide", "add", "subtract"))), self.matrix(depth - 1), self.scalar()
            ),
            lambda: build("multiply", self.scalar(), self.matrix(depth - 1)),
            lambda: build("negate", self.matrix(depth - 1)),
            lambda: build("multiply", self.matrix(depth - 1), self.matrix(1)),
            lambda: build.exclude(self.matrix(depth - 1), self.condition()),
            lambda: build.exclude_pairs(self.matrix(depth - 1)),
            lambda: build.reuse(self.matrix(depth - 1), self.draw(st.sampled_from(("rows", "columns")))),
            lambda: build("add", self.matrix(depth - 1), build("multiply", self.matrix(1), self.scalar())),
            lambda: build.similarity(build.tokens("image", "Image"), build.tokens("text"), "tokenmax"),
            lambda: build.similarity(build.tokens("text"), build.tokens("image", "Image"), "tokenmax"),
        )

    def united(self) -> Node:
        """Columns side by side, and what may be done to them."""
        build = self.build
        earlier = build.to_memory(self.draw(st.sampled_from(self.features)), self.memory)
        united = self.side_by_side()
        three = build.unite(self.matrix(0), build.unite(self.matrix(0), build("multiply", 0.5, earlier)))
        return self.one_of(
            lambda: three,
            lambda: build.unite(self.matrix(1), earlier),
            lambda: build.exclude(three, self.condition()),
            lambda: build("subtract", three, build.unite(build.unite(self.matrix(0), self.matrix(1)), earlier)),
            lambda: build.unite(self.matrix(0), build("add", earlier, build("multiply", 0.0, earlier))),
            lambda: united,
            lambda: build("multiply", self.scalar(), united),
            lambda: build("add", build("multiply", united, self.scalar()), build.unite(self.matrix(0), self.matrix(0))),
            lambda: build.exclude(united, self.condition()),
        )

    def softly(self, logits: Node, denominator: str) -> Node:
        """Columns side by side, the target of which is a softmax of others like them."""
        affinity = self.build("multiply", 0.3, logits)
        return self.build.cross_entropy(logits, self.build.softmax(self.build.stop(affinity)), "rows", denominator)

    def side_by_side(self) -> Node:
        return self.build.unite(self.matrix(1), self.matrix(1))

    def target(self, depth: int = 2) -> Node:
        build = self.build
        if depth == 0:
            return self.one_of(build.paired, lambda: build.flipped(**self.block()), build.same, lambda: self.soft_target())
        inner = self.target(depth - 1)
        return self.one_of(
            lambda: inner,
            lambda: build.smooth(inner, 0.2, self.draw(st.sampled_from(("all", "others")))),
            lambda: build.smooth(inner, build("exp", build("negate", build("exp", self.score()))), "others"),
            lambda: build("add", inner, build("multiply", 0.5, self.target(depth - 1))),
            lambda: build("multiply", inner, self.draw(st.sampled_from(self.positive))),
        )

    def block(self) -> dict[str, int]:
        """All of the batch, or blocks that divide it or leave a shorter one."""
        return self.draw(st.sampled_from(({}, {"block": 2}, {"block": 4}, {"block": 7})))

    def soft_target(self) -> Node:
        build = self.build
        affinity = build.stop(build("multiply", 0.3, self.matrix(1)))
        return self.one_of(lambda: build.softmax(affinity), lambda: build.transport(affinity, 0.5, 2))

    def loss_scores(self, depth: int = 2) -> Node:
        build = self.build
        along, denominator = (
            self.draw(st.sampled_from(pair)) for pair in (("rows", "columns"), ("all", "all", "negatives"))
        )
        plain = self.one_of(
            lambda: build.cross_entropy(self.matrix(), self.target(), along, denominator),
            lambda: build.cross_entropy(self.united(), self.target(), "rows", denominator),
            lambda: build.kl(self.matrix(), self.target(), along),
            lambda: build("minimum", build.log_sum_exp(self.united()), 5.0),
            lambda: build.hinge(self.united(), "rows", "mean"),
            lambda: build.hinge(self.matrix(), along, self.draw(st.sampled_from(("mean", "hardest")))),
            lambda: self.softly(self.united(), denominator),
            lambda: build.cross_entropy(self.side_by_side(), build.unite(self.target(), self.target()), "rows", denominator),
        )
        if depth == 0:
            return plain
        return self.one_of(
            lambda: plain,
            lambda: build("multiply", self.score(), self.loss_scores(depth - 1)),
            lambda: build("multiply", self.loss_scores(depth - 1), self.scalar()),
            lambda: build("add", self.loss_scores(depth - 1), self.loss_scores(0)),
            lambda: build("subtract", self.score(), self.loss_scores(0)),
            lambda: build("add", plain, 1.0),
        )

    def loss(self, depth: int = 3) -> Node:
        build = self.build
        over = self.condition() if self.draw(st.integers(0, 3)) == 0 else None
        plain = build.mean(self.loss_scores(), over)
        if depth == 0:
            return plain
        return self.one_of(
            lambda: plain,
            lambda: build("add", self.loss(depth - 1), self.loss(depth - 1)),
            lambda: build("subtract", self.loss(depth - 1), self.loss(0)),
            lambda: build("divide", self.loss(depth - 1), 2.0),
            lambda: build("multiply", self.scalar(), self.loss(depth - 1)),
            lambda: build.stop(self.loss(depth - 1)),
            lambda: build("minimum", self.loss(depth - 1), self.scalar()),
        )


class Sample:
    """A program that shows itself readably when a test fails; no data class, of which hypothesis prints every field."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __repr__(self) -> str:
        return "\n" + program_text(self.program)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))


@st.composite
def samples(draw: Callable) -> Sample:
    expressions = Expressions(draw)
    return Sample(expressions.build.program("random", first=expressions.loss(), second=expressions.loss(1)))
