"""How the prediction of tokens is written."""

from __future__ import annotations

from collections.abc import Callable

from vlmdsl.backends.latex.entries import settings_of
from vlmdsl.backends.latex.fusion import fused, module_of
from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, call, number, words
from vlmdsl.backends.latex.samples import mean_of_parts, stated_parts
from vlmdsl.ir import Node, encoder_of, masked_text, parts_of
from vlmdsl.ir.operations.encoding import ENCODE, context_of, source_of
from vlmdsl.ir.operations.modules import APPLY, CODES_AT, patches_of, use_of
from vlmdsl.ir.operations.prediction import TOKEN_IDS
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.types import MaskType

__all__ = ["distill", "token_criterion", "token_loss"]


def token_loss(writer: Writer, node: Node) -> Math:
    """The mean over the tokens or patches that are predicted; which they are is stated."""
    targets = _targets(node)
    if targets.operation is not TOKEN_IDS:
        return _over_patches(writer, node)
    following = targets.string("which") == "next"
    surprise = _next_surprise if following else _surprise
    return _over_tokens(
        writer, node, lambda encode, token: _of_token(node, token, lambda entry: surprise(writer, encode, entry))
    )


def token_criterion(writer: Writer, node: Node) -> Math:
    """The same of the function of a plug-in, which is given the logits z of a token and what the token is."""
    writer.names.state("values", words("z: the logits of a token"))
    logits = Math(r"z_{ik}", "z_ik")
    return _over_tokens(writer, node, lambda encode, token: call(node.operation, logits, token, *settings_of(node)))


def distill(writer: Writer, node: Node) -> Math:
    """The mean over the tokens that are predicted of the cross-entropy with a teacher's distribution, over the entries v."""
    entry = Math("v", "v")
    temperatures = [node.number(name) for name in ("temperature", "teacher_temperature")]
    if set(temperatures) != {1.0}:
        writer.names.state("values", words("logits are divided by {:g}, those of the teacher by {:g}".format(*temperatures)))

    def surprise(own: Math, teacher: Math) -> Math:
        return Math(rf"-\sum_v {teacher.latex} \log {own.latex}", f"-Σ_v {teacher.text} log {own.text}", PRODUCT)

    if isinstance(node.inputs[2].type, MaskType):
        seen, which = node.inputs[2].inputs[0].inputs[0], f"that were {node.inputs[2].operation}"
        parts = stated_parts(writer, node, seen, "patches", which, "images")
        loss = surprise(*(_of_patch(writer, logits, entry) for logits in node.inputs[:2]))
        return mean_of_parts(writer, node, loss, "p", parts)
    teacher = _probability(writer, node.inputs[1].inputs[0], entry)
    return _over_tokens(writer, node, lambda encode, token: surprise(_probability(writer, encode, entry), teacher))


def _over_tokens(writer: Writer, node: Node, of_token: Callable[[Node, Math], Math]) -> Math:
    """The mean of what is said of each token of an encoded text."""
    ids = _targets(node)
    encode = ids.inputs[0]
    source = parts_of(source_of(encode))[-1]
    masked = masked_text(source)
    text = writer.names.source(source if masked is None else masked.inputs[0])
    parts = stated_parts(writer, node, source, "tokens", _which(encode, ids.string("which")))
    loss = of_token(encode, Math(f"{text.latex}[k]", f"{text.text}[k]"))
    return mean_of_parts(writer, node, loss, "k", parts, _reduction(node))


def _targets(node: Node) -> Node:
    """What is predicted, of all samples."""
    return of_samples(node).inputs[-1]


def _reduction(node: Node) -> str:
    return str(dict(node.attributes).get("reduction", "token"))


def _which(encode: Node, which: str) -> str:
    """Which tokens are predicted, in words; nothing for all."""
    if which != "next":
        return "that the mask selected" if which == "selected" else ""
    own = {"none": "", "drawn": " and its prefix", "prompt": " and the prompt"}
    return f"after the first one{own[encode.string('prefix')]}"


def _over_patches(writer: Writer, node: Node) -> Math:
    """The mean over the patches whose codes are predicted."""
    logits, codes = node.inputs[0], _targets(node)
    selected = codes.operation is CODES_AT
    tokenized = (codes.inputs[0] if selected else codes).inputs[0]
    which = "that the mask selected" if selected else ""
    parts = stated_parts(writer, node, patches_of(logits).inputs[0], "patches", which, "images")
    code = call(encoder_of(tokenized).tower, writer.names.source(tokenized.inputs[0]))

    def surprise(entry: Math) -> Math:
        own = _of_patch(writer, logits, entry)
        return Math(rf"-\log {own.latex}", f"-log {own.text}")

    loss = _of_token(node, Math(f"{code.latex}[p]", f"{code.text}[p]"), surprise)
    return mean_of_parts(writer, node, loss, "p", parts, _reduction(node))


def _of_patch(writer: Writer, logits: Node, entry: Math) -> Math:
    """The probability that a patch is this entry, by a linear map: of an image, given a text or not, or decoded."""
    below, use = logits.inputs[0], use_of(logits)
    decoder = use_of(below).module.name if below.operation is APPLY else None
    encoded = below.inputs[0].inputs[0] if decoder else below.inputs[0]
    context = fused(writer, encoded) if encoded.operation is APPLY else writer.names.source(encoded.inputs[0])
    if decoder:
        context = call(decoder, context)
    head = writer.names.taught(words(use.module.name), use.follows)
    return Math(rf"p_{{{head.latex}}}({entry.latex} \mid {context.latex})", f"p_{head.text}({entry.text} | {context.text})")


def _of_token(node: Node, token: Math, surprise: Callable[[Math], Math]) -> Math:
    """The loss of one token: of what it is, and where targets are smoothed of other entries v."""
    own, share = surprise(token), node.number("smoothing")
    if not share:
        return own
    others, other = node.attribute("over") == "others", surprise(Math("v", "v"))
    among = Math(rf"v \neq {token.latex}", f"v≠{token.text}") if others else Math("v", "v")
    entries, rest, moved = "V - 1" if others else "V", number(1.0 - share), number(share)
    latex = rf"{rest.latex} ({own.latex}) + \frac{{{moved.latex}}}{{{entries}}} \sum_{{{among.latex}}} {other.latex}"
    return Math(
        rf"\left({latex}\right)", f"({rest.text} ({own.text}) + {moved.text}/({entries}) Σ_{among.text} {other.text})"
    )


def _surprise(writer: Writer, encode: Node, entry: Math) -> Math:
    """The negative logarithm of the probability that the token is this entry, given what it is predicted from."""
    own = _probability(writer, encode, entry)
    return Math(rf"-\log {own.latex}", f"-log {own.text}")


def _probability(writer: Writer, encode: Node, entry: Math) -> Math:
    """The probability that the token is this entry, given what it is predicted from."""
    if encode.operation is APPLY:
        tower, context = module_of(writer, encode), fused(writer, encode)
    else:
        encoder = encoder_of(encode)
        tower = writer.names.taught(words(encoder.tower), encoder.teacher)
        context = writer.names.source(encode.inputs[0])
    latex = rf"p_{{{tower.latex}}}({entry.latex} \mid {context.latex})"
    return Math(latex, f"p_{tower.text}({entry.text} | {context.text})")


def _next_surprise(writer: Writer, encode: Node, entry: Math) -> Math:
    """The same of a token that is predicted from those before it, its prompt and its context."""
    encoder = encoder_of(encode)
    *prompt, text = (writer.names.source(part) for part in parts_of(encode.inputs[0]))
    before = Math(f"{text.latex}[{{<}}k]", f"{text.text}[<k]")
    conditions = [*prompt, before, *_context(writer, encode)]
    tower = words(encoder.tower)
    if encoder.decoder is not None and encode.number("parallel"):
        share = f"{100 * encode.number('parallel'):g} %"
        said = f"of {share} of the samples, drawn in each epoch, all tokens are hidden and predicted at once, without"
        latex = rf"{words(said).latex}\ {before.latex}"
        writer.names.state("values", Math(latex, f"{said} {before.text}"))
    latex = ", ".join(part.latex for part in conditions)
    text_form = ", ".join(part.text for part in conditions)
    return Math(
        rf"-\log p_{{{tower.latex}}}({entry.latex} \mid {latex})", f"-log p_{tower.text}({entry.text} | {text_form})"
    )


def _context(writer: Writer, encode: Node) -> list[Math]:
    """What a text decoder attends to beside the text: an image, or what poolers give of it."""
    context = None if encoder_of(encode).decoder is None else context_of(encode)
    if context is None:
        return []
    modules = []
    below = context.inputs[0]
    while below.operation is not ENCODE:
        modules += [use_of(below).module.name] if below.operation is APPLY else []
        below = below.inputs[0]
    context_form = writer.names.source(below.inputs[0])
    for name in reversed(modules):
        context_form = call(name, context_form)
    return [context_form]
