"""Hand-built programs for the tests of passes and of back ends that need no front end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vlmdsl.ir import Encoder, Graph, Metric, Node, Program, Term, Update
from vlmdsl.types import (
    FieldType,
    MemoryType,
    Type,
    memory_axis,
)


@dataclass
class Build:
    """A graph with short words for the operations that recipes are made of."""

    graph: Graph = field(default_factory=Graph)
    updates: dict[Node, Node] = field(default_factory=dict)

    def add(self, operation: str, *inputs: Node, type: Type | None = None, **attributes: object) -> Node:
        return self.graph.add(operation, *inputs, type=type, **attributes)

    def __call__(self, operation: str, *inputs: Node | float) -> Node:
        """Arithmetic; numbers become constants."""
        nodes = tuple(node if isinstance(node, Node) else self.constant(node) for node in inputs)
        return self.add(operation, *nodes)

    def constant(self, value: float) -> Node:
        return self.add("constant", value=float(value))

    def parameter(self, name: str, initial: float = 0.0, lower: float | None = None, upper: float | None = None) -> Node:
        return self.add("parameter", name=name, initial=initial, lower=lower, upper=upper)

    def field(self, name: str, kind: str) -> Node:
        return self.add("field", type=FieldType(kind), name=name)

    def encoded(self, name: str, kind: str, *, frozen: bool = False) -> Node:
        encoder = Encoder("vision" if kind == "Image" else "language", kind, frozen)
        return self.add("encode", self.field(name, kind), encoder=encoder)

    def pooled(self, name: str, kind: str = "Text", *, frozen: bool = False, unit: bool = True) -> Node:
        features = self.add("pooled", self.encoded(name, kind, frozen=frozen))
        return self.normalize(features) if unit else features

    def tokens(self, name: str, kind: str = "Text") -> Node:
        return self.normalize(self.add("tokens", self.encoded(name, kind)))

    def normalize(self, features: Node) -> Node:
        return self.add("normalize", features, epsilon=0.0)

    def similarity(self, x: Node, y: Node, by: str = "dot") -> Node:
        return self.add("similarity", x, y, by=by, arguments=())

    def memory(self, name: str, entering: Node, size: int = 5) -> Node:
        """A queue that a stream enters after the step."""
        memory = self.add("memory", type=MemoryType(memory_axis(size)), name=name, size=size, start="empty")
        self.updates[memory] = self.add("enqueue", memory, self.stop(entering))
        return memory

    def to_memory(self, x: Node, memory: Node) -> Node:
        return self.add("similarity", x, memory, by="dot", arguments=())

    def score(self, x: Node, y: Node, by: str = "dot") -> Node:
        return self.add("score", x, y, by=by, arguments=())

    def paired(self) -> Node:
        return self.add("paired")

    def flipped(self, **block: int) -> Node:
        return self.add("flipped", **block)

    def mix(self, features: Node, share: Node, **block: int) -> Node:
        return self.add("mix", features, share, **block)

    def entropy(self, x: Node, y: Node) -> Node:
        p, q = (self.add("distribution", features, temperature=0.5) for features in (x, y))
        return self.add("entropy", p, q)

    def mlm(self, *chosen: Node, share: float = 0.15) -> Node:
        """Of a masked text through the language tower; `chosen` are a condition and a weight of each sample."""
        view = {"share": share, "hidden": 0.8, "replaced": 0.1, "draw": 0}
        masked = self.add("mask", self.field("text", "Text"), **view)
        encoded = self.add("encode", masked, encoder=Encoder("language", "Text"))
        ids = self.add("token_ids", encoded, which="selected")
        return self.add("token_loss", self.add("vocabulary", encoded), ids, *chosen)

    def same(self, label: str = "label", missing: int = -1) -> Node:
        return self.add("same", self.field(label, "Label"), missing=missing)

    def smooth(self, target: Node, epsilon: float | Node, over: str = "all") -> Node:
        if isinstance(epsilon, Node):
            return self.add("smooth", target, epsilon, over=over)
        return self.add("smooth", target, epsilon=epsilon, over=over)

    def transpose(self, matrix: Node) -> Node:
        return self.add("transpose", matrix)

    def negation(self, condition: Node) -> Node:
        return self.add("not", condition)

    def reuse(self, matrix: Node, which: str) -> Node:
        return self.add("reuse", matrix, matrix=which)

    def exclude(self, matrix: Node, condition: Node) -> Node:
        return self.add("exclude", matrix, condition)

    def exclude_pairs(self, matrix: Node) -> Node:
        return self.add("exclude_pairs", matrix)

    def softmax(self, affinity: Node) -> Node:
        return self.add("softmax", affinity)

    def transport(self, affinity: Node, epsilon: float, iterations: int) -> Node:
        return self.add("transport", affinity, epsilon=epsilon, iterations=iterations)

    def kl(self, logits: Node, target: Node, along: str) -> Node:
        entropy = self.add("target_entropy", self.stop(logits), target, along=along)
        return self("subtract", self.cross_entropy(logits, target, along), entropy)

    def unite(self, x: Node, y: Node) -> Node:
        return self.add("unite", x, y, type=type(x.type)("B", f"{x.type.columns}+{y.type.columns}"))

    def cross_entropy(self, logits: Node, target: Node, along: str = "rows", denominator: str = "all") -> Node:
        return self.add("cross_entropy", logits, target, along=along, denominator=denominator)

    def log_sum_exp(self, logits: Node) -> Node:
        return self.add("log_sum_exp", logits)

    def hinge(self, matrix: Node, along: str, negatives: str) -> Node:
        return self.add("hinge", matrix, along=along, margin=0.3, negatives=negatives)

    def gate(self, features: Node, score: Node) -> Node:
        return self.add("gate", features, score)

    def where(self, condition: Node, x: Node | float, y: Node | float) -> Node:
        nodes = [node if isinstance(node, Node) else self.constant(node) for node in (x, y)]
        return self.add("where", condition, *nodes)

    def stop(self, node: Node) -> Node:
        return self.add("stop", node)

    def mean(self, score: Node, over: Node | None = None) -> Node:
        return self.add("mean", score, *(() if over is None else (over,)))

    def samples(self, over: Node | None = None) -> Node:
        return self.add("samples", *(() if over is None else (over,)))

    def both_ways(self, logits: Node, target: Node, weight: Node | None = None, denominator: str = "all") -> Node:
        """Half the mean of the rows' losses plus half that of the columns'."""
        losses = [self.cross_entropy(logits, target, along, denominator) for along in ("rows", "columns")]
        weighted = [loss if weight is None else self("multiply", weight, loss) for loss in losses]
        return self("divide", self("add", self.mean(weighted[0]), self.mean(weighted[1])), 2.0)

    def temperature(self, name: str = "temperature", start: float = 0.07) -> Node:
        """As the front end writes a temperature that is learned on a log scale, at most 100 as a scale."""
        log_scale = self.parameter(name, math.log(1 / start), None, math.log(100.0))
        return self("exp", self("negate", log_scale))

    def program(self, name: str, metrics: dict[str, Node] | None = None, **terms: Node) -> Program:
        fields = [node for node in self.graph.nodes if node.operation == "field"]
        signature = tuple((node.string("name"), node.type) for node in fields if isinstance(node.type, FieldType))
        return Program(
            name,
            self.graph,
            tuple(Term(term, node) for term, node in terms.items()),
            tuple(Metric(metric, node) for metric, node in (metrics or {}).items()),
            updates=tuple(Update(state, node) for state, node in self.updates.items()),
            fields=signature,
        )


def clip() -> Program:
    build = Build()
    temperature = build.temperature()
    similarity = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    loss = build.both_ways(build("divide", similarity, temperature), build.paired())
    return build.program("clip", {"temperature": temperature}, contrast=loss)


def align() -> Program:
    """Smoothed targets, a directly learned temperature, the sum of both directions."""
    build = Build()
    temperature = build.parameter("temperature", 1.0)
    similarity = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    logits, target = build("divide", similarity, temperature), build.smooth(build.paired(), 0.1)
    losses = [build.mean(build.cross_entropy(logits, target, along)) for along in ("rows", "columns")]
    return build.program("align", {"temperature": temperature}, contrast=build("add", *losses))


def filip() -> Program:
    build = Build()
    temperature = build.temperature()
    similarity = build.similarity(build.tokens("image", "Image"), build.tokens("text"), "tokenmax")
    loss = build.both_ways(build("divide", similarity, temperature), build.paired())
    return build.program("filip", {"temperature": temperature}, contrast=loss)


def unicl() -> Program:
    build = Build()
    similarity = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    loss = build.both_ways(build("divide", similarity, build.temperature()), build.same(missing=0))
    return build.program("unicl", contrast=loss)


def siglip() -> Program:
    build = Build()
    similarity = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    scaled = build("divide", similarity, build.temperature("temperature", 0.1))
    logits = build("add", scaled, build.parameter("bias", -10.0))
    score = build.add("sigmoid_loss", logits, build.paired())
    return build.program("siglip", sigmoid=build.mean(score))


def alip() -> Program:
    """Two gated contrasts with one temperature."""
    build = Build()
    image, text, caption = build.pooled("image", "Image"), build.pooled("text"), build.pooled("caption")

    def agreement(a: Node, b: Node) -> Node:
        return build.stop(build("exp", build("multiply", 2.0, build("subtract", build.score(a, b), 0.3))))

    language = agreement(text, caption)
    temperature = build.temperature()

    def path(other: Node) -> Node:
        gate = build.where(build("less", language, 1.0), agreement(image, other), 1.0)
        weight = build("multiply", build("minimum", language, 1.0), gate)
        return build.both_ways(build("divide", build.similarity(image, other), temperature), build.paired(), weight)

    return build.program("alip", raw=path(text), clean=path(caption))


def shared() -> Program:
    """Two terms over one matrix, the second from the texts' side and at half weight."""
    build = Build()
    image, text = build.pooled("image", "Image"), build.pooled("text")
    first = build.both_ways(build("divide", build.similarity(image, text), build.temperature()), build.paired())
    second = build.both_ways(build("multiply", build.similarity(text, image), 10.0), build.same())
    return build.program("shared", pairs=first, classes=build("multiply", 0.5, second))


def weightless() -> Program:
    """A term of weight zero whose parameter and encoder nothing else uses."""
    build = Build()
    image, text = build.pooled("image", "Image"), build.pooled("text")
    unused = build.temperature("unused")
    kept = build.both_ways(build("divide", build.similarity(image, text), build.temperature()), build.paired())
    other = build.both_ways(build("divide", build.similarity(image, build.pooled("caption")), unused), build.paired())
    return build.program("weightless", {"unused": unused}, kept=kept, gone=build("multiply", 0.0, other))


def decoupled() -> Program:
    """A masked, decoupled contrast with a bias, means over some samples and a combined similarity."""
    build = Build()
    image, text = build.pooled("image", "Image"), build.pooled("text")
    tokens = build.similarity(build.tokens("image", "Image"), build.tokens("text"), "tokenmax")
    mixed = build("add", build("multiply", 0.5, build.similarity(image, text)), build("multiply", 0.5, tokens))
    keep = build.field("keep", "Flag")
    drop = build("less", build.where(keep, 1.0, 0.0), 0.5)
    logits = build.exclude(build("add", build("divide", mixed, build.temperature()), build.parameter("bias", 0.2)), drop)
    rows = build.cross_entropy(logits, build.paired(), "rows", "negatives")
    columns = build.cross_entropy(logits, build.paired(), "columns")
    return build.program("decoupled", contrast=build("add", build.mean(rows, keep), build.mean(columns, keep)))


def weighed() -> Program:
    """Masked words of some samples, each as much as its image and its caption agree."""
    build = Build()
    agreement = build.score(build.pooled("image", "Image"), build.pooled("caption"))
    keep, weight = build.field("keep", "Flag"), build("exp", build("multiply", 2.0, agreement))
    return build.program("weighed", some=build.mlm(keep, weight), all=build.mlm(weight), kept=build.mlm(keep))


PROGRAMS = (clip, align, filip, unicl, siglip, alip, shared, weightless, decoupled, weighed)
