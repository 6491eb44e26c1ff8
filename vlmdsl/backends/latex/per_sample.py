"""Numbers per sample of the data set, as mathematics: a letter with an index, and how it changes."""

from __future__ import annotations

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import Math, negated, number, product, total, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.per_sample import MIXTURE

__all__ = ["looked_up", "running_means"]


def looked_up(writer: Writer, node: Node) -> Math:
    """The number of sample i before the step."""
    return _kept(writer, node.inputs[0])


def running_means(writer: Writer, node: Node) -> Math:
    """The mean of the scores of sample i."""
    return _kept(writer, node.inputs[0].inputs[0])


def _kept(writer: Writer, table: Node) -> Math:
    """The letter of a table; its update is a statement of its own."""
    if table not in writer.tables:
        update = writer.names.updated(table)
        kind = "probabilities" if update.operation is MIXTURE else "kept"
        letter = writer.tables[table] = writer.names.indexed(writer.names.next(kind), "i")
        statement = _fitted(writer, letter, update) if update.operation is MIXTURE else _moved(writer, letter, update)
        writer.names.state("values", statement)
    return writer.tables[table]


def _moved(writer: Writer, letter: Math, written: Node) -> Math:
    """The update of a sample's mean, in a step with this sample."""
    table, _, after = written.inputs
    score, *momentum = after.inputs[1:]
    share = writer.expression(momentum[0]) if momentum else number(after.number("momentum"))
    rest = total(number(1.0), negated(share)) if momentum else number(1.0 - after.number("momentum"))
    entering = writer.expression(score)
    latest = after.attribute("momentum") == 0.0
    moved = entering if latest else total(product(share, letter), product(rest, entering))
    start = table.attribute("initial")
    when = f"{'before' if writer.names.readers(after) > 1 else 'after'} use, in each step with sample i, initially"
    first = entering if start is None else number(table.number("initial"))
    latex = rf"{letter.latex} \leftarrow {moved.latex}\ {words(when).latex}\ {first.latex}"
    return Math(latex, f"{letter.text} ← {moved.text} {when} {first.text}")


def _fitted(writer: Writer, letter: Math, mixture: Node) -> Math:
    """What the probability is, and when it is computed."""
    values = _kept(writer, mixture.inputs[0])
    which = f"is of the component with the {mixture.string('component')} mean of a mixture of two normal distributions"
    when = "fitted to all samples after every epoch, before that"
    parts = (
        words("the probability that"),
        values,
        words(f"{which},"),
        words(when),
        number(mixture.inputs[1].number("initial")),
    )
    latex, text = r"\ ".join(part.latex for part in parts), " ".join(part.text for part in parts)
    return Math(rf"{letter.latex}:\ {latex}", f"{letter.text}: {text}")
