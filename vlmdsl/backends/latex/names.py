"""Letters: the symbols of streams and of values that are used more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vlmdsl.backends.latex.boxes import around_patches
from vlmdsl.backends.latex.draws import mixture, partner_of, picked
from vlmdsl.backends.latex.learned import LearnedNumbers
from vlmdsl.backends.latex.notation import (
    Math,
    call,
    equation,
    fraction,
    infix,
    negated,
    number,
    product,
    symbol,
    total,
    words,
)
from vlmdsl.backends.latex.retrieval import attended
from vlmdsl.ir import Encoder, Node, Program, Ramp, Teacher, encoder_of, head_words, parts_of
from vlmdsl.ir.operations.detection import AROUND_PATCHES
from vlmdsl.ir.operations.encoding import ENCODE, GATE, MIX, NORMALIZE, POOLED, REDUCE_TOKENS, TOKENS
from vlmdsl.ir.operations.grounding import REGIONS
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.modules import APPLY, use_of
from vlmdsl.ir.operations.reference import ATTEND
from vlmdsl.ir.operations.scalars import ADD, STOP, SUBTRACT
from vlmdsl.ir.operations.state import NEAREST
from vlmdsl.ir.operations.views import (
    ALTERNATIVE,
    BLEND,
    FIELD,
    JOIN,
    MASK,
    RENDER,
    REPLACE,
    REWRITE,
    SUMMARIZE,
    SWAP,
    WRITTEN,
)
from vlmdsl.types import EncodedType, MemoryType, TokensType, VectorType

__all__ = ["Names"]

_LETTERS = {
    "Image": ("x", "u"),
    "Text": ("y", "z", "v"),
    "scores": ("g", "h", "f", "c"),
    "weights": ("w",),
    "matrices": ("s", "r", "d"),
    "targets": ("T",),
    "sets": ("Q", "K", "S"),
    "parts": ("M",),
    "masses": ("N",),
    "functions": ("ℓ",),
    "means": ("μ",),
    "kept": ("m",),
    "probabilities": ("ε",),
    "memories": ("a",),
    "attention": ("α",),
    "found": ("ρ",),
    "picks": ("π",),
}
"""Letters by their meaning, without repetition; further ones of a kind get a number."""
_COMMANDS = {"ℓ": r"\ell", "ε": r"\varepsilon", "μ": r"\mu", "α": r"\alpha", "ρ": r"\rho", "π": r"\pi"}
"""Letters that LaTeX writes as commands."""


class Names:
    """The symbols of one formula, with the statements that define them in the order of first use."""

    def __init__(self, program: Program, expression: Callable[[Node], Math]) -> None:
        self._expression = expression
        nodes = program.nodes()
        self._readers: dict[Node, list[Node]] = {}
        for node in nodes:
            for parent in node.inputs:
                self._readers.setdefault(parent, []).append(node)
        self._features: dict[Node, tuple[str, str]] = {}
        self._memories: dict[Node, Math] = {}
        self._lettered: dict[tuple[str, object], Math] = {}
        self._updates = program.updates
        self._drawn: dict[Node, Math] = {}
        self._shares: dict[Node, Math] = {}
        self.placeholders: dict[Node, str] = {}
        """Letters that stand for features while a function is defined."""
        self._used: Counter[str] = Counter()
        self.statements: dict[str, list[Math]] = {"functions": [], "values": [], "features": [], "parameters": []}
        self.learned = LearnedNumbers(nodes, self._readers, self.state)

    def readers(self, node: Node) -> int:
        return len(self._readers.get(node, ()))

    @staticmethod
    def indexed(letter: Math, index: str) -> Math:
        return Math(f"{letter.latex}_{{{index}}}", f"{letter.text}_{index}")

    def state(self, group: str, statement: Math) -> None:
        """Add a line to the definitions of symbols, once."""
        if statement not in self.statements[group]:
            self.statements[group].append(statement)

    def feature(self, node: Node, index: str) -> Math:
        """A feature vector of sample `index` (`ik`: its k-th token)."""
        if node in self.placeholders:
            letter = self.placeholders[node]
            return Math(f"{letter}_{{{index}}}", f"{letter}_{index}")
        if node.operation is STOP:
            return call("sg", self.feature(node.inputs[0], index))
        if isinstance(node.type, VectorType):
            return self._expression(node)
        if isinstance(node.type, MemoryType):
            return self.indexed(self._memory(node), index)
        if node.operation in (NEAREST, FETCH):
            return (self._nearest if node.operation is NEAREST else self._fetched)(node, index)
        if node not in self._features:
            self._features[node] = self._letter(node)
            self._define_feature(node)
        latex, text = self._features[node]
        return Math(f"{latex}_{{{index}}}", f"{text}_{index}")

    def updated(self, state: Node) -> Node:
        """The update of a state."""
        return next(update.node for update in self._updates if update.state is state)

    def _memory(self, node: Node) -> Math:
        """The letter of a queue; states its contents."""
        if node not in self._memories:
            letter = self._memories[node] = self.next("memories")
            entering = self.updated(node).inputs[1:]
            size = number(node.number("size"))
            first = ", initially random directions" if node.string("start") == "random" else ""
            streams = [self.feature(value.inputs[0] if value.operation is STOP else value, "i") for value in entering]
            for stream in streams:
                said = f"the latest {size.text} of earlier steps{first}:"
                what = words(said).latex
                latex = rf"{letter.latex}_{{1}}, {letter.latex}_{{2}}, \ldots\ {what}\ {stream.latex}"
                text = f"{letter.text}_1, {letter.text}_2, … {said} {stream.text}"
                self.state("features", Math(latex, text))
        return self._memories[node]

    def _nearest(self, node: Node, index: str) -> Math:
        """The entry of a queue next to a feature vector."""
        memory, own = self._memory(node.inputs[1]), self.feature(node.inputs[2], index)
        return call("nearest", memory, own)

    def _fetched(self, node: Node, index: str) -> Math:
        """A feature vector of the sample that is picked; a picked one of several is a token."""
        features, picks = node.inputs
        self.feature(features, "ik" if isinstance(features.type, TokensType) else "i")
        (latex, text), pick = self._features[features], self._expression(picks)
        token = index[1:] if isinstance(features.type, TokensType) else ""
        return Math(f"{latex}_{{{' '.join([pick.latex, *token])}}}", f"{text}_{pick.text}{token}")

    def _letter(self, node: Node) -> tuple[str, str]:
        encode = _encode_of(node)
        kind = encode.type.kind if encode is not None and isinstance(encode.type, EncodedType) else "Image"
        letter = self.next(kind if kind in _LETTERS else "Image")
        return letter.latex, letter.text

    def lettered(self, kind: str, key: object) -> Math:
        """The letter of a thing of this kind, a new one at first use."""
        if (kind, key) not in self._lettered:
            self._lettered[kind, key] = self.next(kind)
        return self._lettered[kind, key]

    def next(self, kind: str) -> Math:
        """The next letter for something of this kind."""
        letters, position = _LETTERS[kind], self._used[kind]
        self._used[kind] += 1
        if position < len(letters):
            return symbol(_COMMANDS.get(letters[position], letters[position]), letters[position])
        letter = symbol(_COMMANDS.get(letters[0], letters[0]), letters[0])
        return Math(f"{letter.latex}^{{({position + 1})}}", f"{letter.text}({position + 1})")

    def _define_feature(self, node: Node) -> None:
        index = "ik" if isinstance(node.type, TokensType) else "i"
        self.state("features", equation(self.feature(node, index), self.written_out(node, index)))

    def written_out(self, node: Node, index: str) -> Math:
        """A feature vector of sample `index`, written out."""
        rule = _MADE.get(node.operation, Names._encoded)
        return rule(self, node, index)

    def _normalized(self, node: Node, index: str) -> Math:
        inner = self.written_out(node.inputs[0], index)
        length = Math(rf"\| {inner.latex} \|", f"‖{inner.text}‖")
        smallest = dict(node.attributes).get("smallest")
        if isinstance(smallest, float):
            length = call("max", length, number(smallest), latex=r"\max")
        epsilon = node.number("epsilon")
        return fraction(inner, total(length, number(epsilon)) if epsilon else length)

    def _mixed(self, node: Node, index: str) -> Math:
        own, place = self.feature(node.inputs[0], index), partner_of(self.state, node, index)
        partner = Math(self.feature(node.inputs[0], place.latex).latex, self.feature(node.inputs[0], place.text).text)
        return mixture(self._share(node.inputs[1]), own, partner)

    def _gated(self, node: Node, index: str) -> Math:
        return product(self._expression(node.inputs[1]), self.written_out(node.inputs[0], index))

    def _reduced(self, node: Node, index: str) -> Math:
        """The maximum, or the mean, over the tokens of sample `index`."""
        token = self.feature(node.inputs[0], f"{index}k")
        over = Math(r"\max_{k}", "max_k") if node.string("by") == "max" else Math(r"\mathrm{mean}_{k}", "mean_k")
        return Math(rf"{over.latex}\, {token.latex}", f"{over.text} {token.text}")

    def _combined(self, node: Node, index: str) -> Math:
        left, right = (self._operand(parent, index) for parent in node.inputs)
        return total(left, right if node.operation is ADD else negated(right))

    def _operand(self, node: Node, index: str) -> Math:
        """A summand: outputs of encoders, and sums of them, are written out."""
        if (node.operation is POOLED or node.operation.signs) and node not in self._features:
            return self.written_out(node, index)
        return self.feature(node, index)

    def _regions(self, node: Node, index: str) -> Math:
        """The mean of patch features over a box."""
        patches, boxes = self.written_out(node.inputs[0], index), self._expression(node.inputs[1])
        patches = Math(patches.latex.removesuffix("_{k}"), patches.text.removesuffix("_k"))
        return call("mean", patches, Math(rf"{boxes.latex[:-2]}_{{{index}}}", f"{boxes.text[:-2]}_{index}"))

    def _stopped(self, node: Node, index: str) -> Math:
        return call("sg", self.written_out(node.inputs[0], index))

    def _encoded(self, node: Node, index: str) -> Math:
        encode = _encode_of(node)
        if encode is None and node.operation in (POOLED, TOKENS):  # of a module on features
            return call(
                use_of(node.inputs[0]).module.name, *(self.written_out(parent, index) for parent in node.inputs[0].inputs)
            )
        if node.operation is APPLY:  # a head on features
            return call(use_of(node).module.name, self.feature(node.inputs[0], index))
        if encode is None:
            return call(node.operation, *(self.written_out(parent, index) for parent in node.inputs))
        encoder = encoder_of(encode)
        formula = self._applied(_tower(encoder), encoder, self.source(encode.inputs[0]))
        for head in encoder.heads:
            formula = self._applied(words(head.name), encoder, formula)
            self.state("parameters", words(f"{head.name}: {head_words(head)}"))
        if isinstance(node.type, TokensType):
            formula = Math(f"{formula.latex}_{{k}}", f"{formula.text}_k")
        for part in [encoder.tower] * encoder.frozen + [head.name for head in encoder.heads if head.frozen]:
            self.state("parameters", words(f"{part} frozen"))
        return formula

    def _applied(self, name: Math, encoder: Encoder, inner: Math) -> Math:
        """A tower or a head, or its teacher's copy, of something."""
        name = self.taught(name, encoder.teacher)
        return call(name.text, inner, latex=name.latex)

    def taught(self, tower: Math, teacher: Teacher | None) -> Math:
        """A module, or its teacher, whose weights are stated."""
        if teacher is None:
            return tower
        name = Math(rf"\overline{{{tower.latex}}}", f"teacher of {tower.text}")
        when = "before the forward pass" if teacher.order == "before" else "after the optimiser step"
        if isinstance(teacher.momentum, Ramp):
            said = f"momentum {teacher.momentum}, {when}"
        else:
            said = f"{teacher.schedule.replace('_', '-')} momentum {teacher.momentum:g}, {when}"
        latex = rf"{name.latex}\ {words(f'the moving average of its weights, {said}').latex}"
        self.state("parameters", Math(latex, f"{name.text}: the moving average of its weights, {said}"))
        return name

    def source(self, node: Node) -> Math:
        """Sample i of a field, or of a view of one."""
        if node.operation is FIELD:
            name = words(node.string("name"))
            return Math(f"{name.latex}_i", f"{name.text}_i")
        if node.operation.pairs_fields:
            return self._pair(node)
        inner = self.source(node.inputs[0])
        if node.operation is ALTERNATIVE:
            view = int(node.number("view"))
            return inner if view == 0 else Math(f"{inner.latex}^{{({view})}}", f"{inner.text}^({view})")
        if node.operation in (SUMMARIZE, RENDER):
            return call(node.operation, inner)
        if node not in self._drawn:
            self._drawn[node] = self._drawn_name(inner)
            self.state("features", self._draw(node, self._drawn[node], inner))
        return self._drawn[node]

    def _pair(self, node: Node) -> Math:
        """Sample i of two fields in one sequence, or one over the other."""
        parts = [self.source(part) for part in parts_of(node)]
        if node.operation is BLEND:
            return mixture(self._share(node.inputs[2]), *parts)
        return infix(r"\oplus", "⊕", *parts) if node.operation is JOIN else infix(r"\,", " ", *parts)

    def _drawn_name(self, inner: Math) -> Math:
        """A name of a drawn view; further views of the same field are numbered."""
        latex, text = inner.latex.removesuffix("_i"), inner.text.removesuffix("_i")
        self._used[text] += 1
        copy = self._used[text]
        if copy == 1:
            return Math(rf"\widetilde{{{latex}}}_i", f"{text}'_i")
        return Math(rf"\widetilde{{{latex}}}^{{({copy})}}_i", f"{text}'({copy})_i")

    def _draw(self, node: Node, drawn: Math, inner: Math) -> Math:
        """The distribution, or the parts, of a drawn view."""
        if node.operation is MIX:
            place = partner_of(self.state, node, "i")
            partner = Math(
                f"{inner.latex.removesuffix('_i')}_{{{place.latex}}}", f"{inner.text.removesuffix('_i')}_{place.text}"
            )
            return equation(drawn, mixture(self._share(node.inputs[1]), inner, partner))
        if node.operation is FETCH:
            return picked(drawn, inner, self._expression(node.inputs[1]), node)
        if node.operation is REWRITE:
            count = int(node.number("count"))
            others = rf"{inner.latex}^{{(1)}}, \ldots, {inner.latex}^{{({count})}}"
            choices = rf"\{{ {inner.latex}, {others} \}}"
            plain = f"{{{inner.text}, {inner.text}^(1), …, {inner.text}^({count})}}"
            return Math(rf"{drawn.latex} \sim \mathcal{{U}} {choices}", f"{drawn.text} ~ U{plain}")
        if node.operation in (MASK, REPLACE, SWAP, WRITTEN):
            said = _changed(node)
            latex = rf"{drawn.latex}\ {words('is').latex}\ {inner.latex},\ {words(said).latex}"
            return Math(latex, f"{drawn.text} is {inner.text}, {said}")
        view = call(node.operation, inner, *_how(node))
        return Math(rf"{drawn.latex} \sim {view.latex}", f"{drawn.text} ~ {view.text}")

    def _share(self, node: Node) -> Math:
        """The share of the sample itself in a mixture; one that is computed has a letter."""
        if not node.inputs:
            return self._expression(node)
        if node not in self._shares:
            self._shares[node] = self.next("weights")
            self.state("values", equation(self._shares[node], self._expression(node)))
        return self._shares[node]


def _changed(node: Node) -> str:
    """What becomes of the tokens or the patches of a sample, or of its text, in words."""
    if node.operation is SWAP:
        return f"or with a probability of {node.number('share') * 100:g} % the text of another sample"
    if node.operation is WRITTEN:
        share = node.number("share")
        chance = "" if share == 1 else f"or with a probability of {share * 100:g} % "
        _, image, *prompt = (field.string("name") for field in node.inputs)
        after = f" after its {prompt[0]}" if prompt else ""
        return f"{chance}what {node.string('by')} of an earlier stage has written of its {image}{after}"
    rule = f", selected by {node.string('by')}" if node.string("by") else ""
    if node.operation is REPLACE:
        return f"with {'at most ' if rule else ''}{node.number('share') * 100:.3g} % of its patches replaced{rule}"
    shares = (f"{node.number(name) * 100:g} %" for name in ("share", "hidden", "replaced"))
    return "with {} of its tokens selected, of these {} masked and {} replaced".format(*shares) + rule


_MADE: dict[str, Callable[[Names, Node, str], Math]] = {
    NORMALIZE: Names._normalized,
    NEAREST: Names._nearest,
    FETCH: Names._fetched,
    MIX: Names._mixed,
    ATTEND: lambda names, node, index: attended(names.written_out, names.state, names.lettered, node, index),
    GATE: Names._gated,
    REDUCE_TOKENS: Names._reduced,
    REGIONS: Names._regions,
    AROUND_PATCHES: lambda names, node, index: around_patches(names.written_out, names.state, node, index),
    ADD: Names._combined,
    SUBTRACT: Names._combined,
    STOP: Names._stopped,
}
"""How feature vectors are written, by operation; others are outputs of encoders."""


def _tower(encoder: Encoder) -> Math:
    """The name of the tower, with the share of blocks after which it is entered."""
    name = words(encoder.tower)
    if encoder.enters is None:
        return name
    share = f"{100 * encoder.enters:g}"
    return Math(rf"{name.latex}_{{>{share}\%}}", f"{name.text}>{share}%")


def _encode_of(node: Node) -> Node | None:
    while node.operation.passes_features or node.operation.reads_encoder_output or node.operation is FETCH:
        node = node.inputs[0]
    return node if node.operation is ENCODE else None


def _how(node: Node) -> list[Math]:
    """The parameters of a drawn view of an image: pipeline, share of dropped patches, bounds of the crop's area."""
    attributes = dict(node.attributes)
    if "pipeline" in attributes:
        return [words(str(attributes["pipeline"]))]
    return [number(node.number(name)) for name in ("share", "smallest", "largest") if name in attributes]
