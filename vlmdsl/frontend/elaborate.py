"""Elaboration: evaluates the expressions of a recipe over values, building the objective graph as it goes.

Names are already resolved (`frontend.names`): an unknown name was reported there, and evaluates to the error value.
"""

from __future__ import annotations

from contextlib import nullcontext

from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.diagnostics.catalog.names import Recursion, UnknownMember
from vlmdsl.diagnostics.catalog.types import NotALoss, NotIndexable, SetWhereOneIsWanted
from vlmdsl.frontend import arithmetic, coerce
from vlmdsl.frontend.arguments import GivenArgument
from vlmdsl.frontend.calls import Caller
from vlmdsl.frontend.names import chain_text
from vlmdsl.frontend.scope import Closure, FileScope, LocalScope, RecipeFunction, Scope
from vlmdsl.frontend.session import Session
from vlmdsl.frontend.signature import bind_signature
from vlmdsl.ir import Node
from vlmdsl.ir.operations.scalars import SCALAR
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.primitives import Fault, Primitive, registered
from vlmdsl.primitives.default_encoders import DEFAULT_ENCODERS, FUSION
from vlmdsl.primitives.values import (
    AllSamples,
    EncoderValue,
    ErrorValue,
    FunctionValue,
    FusionValue,
    NumberValue,
    StringValue,
    TupleValue,
    Value,
    ViewSet,
    type_of,
)
from vlmdsl.source import Span
from vlmdsl.source.limits import MAXIMUM_ITEMS, MAXIMUM_VIEWS
from vlmdsl.syntax.tree import (
    Binary,
    Call,
    Expression,
    Given,
    Index,
    LetIn,
    Member,
    Minimize,
    Name,
    Number,
    String,
    Term,
    Tuple,
    Unary,
)
from vlmdsl.types import LossType

__all__ = ["Elaborator"]


class Elaborator:
    """Evaluates expressions in scopes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.caller = Caller(self)
        self.primitives = registered()

    def evaluate(self, expression: Expression, scope: Scope) -> Value:
        """The value of an expression; an error in it is reported once and becomes the error value."""
        try:
            self.session.step(expression.span)
            return self._evaluate(expression, scope)
        except Fault as fault:
            self.session.report(self.session.blamed(fault))
            return ErrorValue()

    def _evaluate(self, expression: Expression, scope: Scope) -> Value:  # noqa: PLR0911 - one return a construct
        match expression:
            case Number(value=value, unit=unit, is_integer=whole, span=span):
                return NumberValue(value, unit, whole, span)
            case String(value=text, span=span):
                return StringValue(text, span)
            case Name():
                return self._settled_name(self._lookup(expression, scope), expression.span)
            case Call():
                return self._call(expression, scope)
            case Binary(operator=symbol, left=left, right=right, span=span):
                return self._binary(symbol, left, right, scope, span)
            case Unary(operand=operand, span=span):
                return arithmetic.negate(self.session, self._operand(operand, scope), span)
            case LetIn(name=name, value=value, body=body):
                with self.session.named(name.name):
                    bound = self.evaluate(value, scope)
                return self.evaluate(body, LocalScope({name.name: bound}, scope))
            case Tuple(items=items, span=span):
                return _tuple(tuple(self.evaluate(item, scope) for item in items), span)
            case Member() | Index() | Given():
                return self._access(expression, scope)

    # --- names --------------------------------------------------------------------------------------------------------

    def _lookup(self, name: Name, scope: Scope) -> Value:  # noqa: PLR0911 - one return a kind of binding
        word = name.name
        while isinstance(scope, LocalScope):
            if word in scope.values:
                return scope.values[word]
            scope = scope.outer
        for file in (scope, scope.library):
            if file is None:
                continue
            if word in file.values:
                self._note_use(file.values[word])
                return file.values[word]
            # In `encoder vision = frozen(vision)` the inner name is the default tower.
            inside_itself = word in file.encoders and word in file.pending and word in DEFAULT_ENCODERS
            if (word in file.lets or word in file.encoders) and not inside_itself:
                return self._file_value(word, file, name.span)
            if word in file.definitions:
                return FunctionValue(word, Closure(file.definitions[word], file))
            if word in file.recipes:
                return FunctionValue(word, file.recipes[word])
        if word == "all":
            return AllSamples()
        if word in DEFAULT_ENCODERS:
            kind = DEFAULT_ENCODERS[word].kind
            return EncoderValue(self.session.encoders.get(kind, DEFAULT_ENCODERS[word]))
        if word in self.primitives:
            return FunctionValue(word, self.primitives[word])
        return ErrorValue()

    def _note_use(self, value: Value) -> None:
        if isinstance(value, Node) and value.operation in (FIELD, SCALAR):
            self.session.used_fields.add(value.string("name"))

    def _file_value(self, word: str, file: FileScope, span: Span) -> Value:
        """A `let` or `encoder` of a file, evaluated on first use."""
        if word in file.pending:
            chain = chain_text([*file.pending[file.pending.index(word) :], word])
            raise Fault(Recursion.at(span, name=word, chain=chain))
        file.pending.append(word)
        try:
            with self.session.named(word):
                declaration = file.lets.get(word) or file.encoders[word]
                file.values[word] = self.evaluate(declaration.value, file)
        finally:
            file.pending.pop()
        return file.values[word]

    def _settled_name(self, value: Value, span: Span) -> Value:
        """The name of a similarity, or of a primitive without required arguments (`paired`, `samples`), is its value, not a
        function."""
        if isinstance(value, FunctionValue) and isinstance(value.target, Primitive):
            primitive = value.target
            needs = any(info.is_required() for info in primitive.parameters.model_fields.values())
            if not needs and (primitive.family == "similarities" or not any(s.default is None for s in primitive.subjects)):
                return self.caller.call(value, (), span)
        return value

    # --- compound expressions -----------------------------------------------------------------------------------------

    def _call(self, call: Call, scope: Scope) -> Value:
        where = call.callee
        callee = self._lookup(where, scope) if isinstance(where, Name) else self.evaluate(where, scope)
        arguments = []
        for argument in call.arguments:
            with self.session.named(argument.name.name) if argument.name else nullcontext():
                value = self.evaluate(argument.value, scope)
            name_span = argument.name.span if argument.name else None
            arguments.append(
                GivenArgument(argument.name.name if argument.name else None, value, argument.value.span, name_span)
            )
        return self.caller.call(callee, tuple(arguments), call.span)

    def _operand(self, expression: Expression, scope: Scope) -> Value:
        return self.caller.settle(self.evaluate(expression, scope), expression.span)

    def _binary(self, symbol: str, left: Expression, right: Expression, scope: Scope, span: Span) -> Value:
        a, b = self._operand(left, scope), self._operand(right, scope)
        if isinstance(a, ViewSet) or isinstance(b, ViewSet):
            return self._binary_over_sets(symbol, a, b, span)
        return arithmetic.binary(self.session, symbol, a, b, span)

    def _binary_over_sets(self, symbol: str, a: Value, b: Value, span: Span) -> Value:
        lefts = a.items if isinstance(a, ViewSet) else (a,)
        rights = b.items if isinstance(b, ViewSet) else (b,)
        if len(lefts) * len(rights) > MAXIMUM_VIEWS:
            raise Fault(TooLarge.at(span, reason=f"more than {MAXIMUM_VIEWS} combinations of views"))
        results = tuple(arithmetic.binary(self.session, symbol, left, right, span) for left in lefts for right in rights)
        return ViewSet(results)

    def _access(self, expression: Member | Index | Given, scope: Scope) -> Value:
        subject = self.evaluate(expression.subject, scope)
        if isinstance(subject, ErrorValue):
            return subject
        match expression:
            case Member(name=name, span=span):
                before = expression.subject.span
                if before.start == span.start:  # the span of a subject in brackets starts inside them
                    self.session.members[span] = Span(span.file, before.end, span.end)
                return self._member(subject, name, span)
            case Index(index=index):
                return self._index(subject, self.evaluate(index, scope), expression.span)
            case Given(context=context):
                values = {"subject": subject, "context": self.evaluate(context, scope)}
                return self.caller.fused(values, expression.span)

    def _member(self, subject: Value, name: Name, span: Span) -> Value:
        if isinstance(subject, ViewSet):
            return ViewSet(tuple(self._member(item, name, span) for item in subject.items))
        if coerce.kind_of(subject)[:1] in (("Image",), ("Text",), ("Encoded",)):
            stream = coerce.encode(self.session, subject, span)
            if name.name == "pooled":
                return coerce.pooled(self.session, stream, span, "pooled")
            if name.name == "tokens":
                return coerce.tokens(self.session, stream, span, "tokens")
            help: tuple[str, ...] = ("possible: .pooled, .tokens",)
        else:
            help = ()
        raise Fault(UnknownMember.at(name.span, help=help, type=type_of(subject), name=name.name))

    def _index(self, subject: Value, index: Value, span: Span) -> Value:
        if not isinstance(subject, ViewSet | TupleValue):
            raise Fault(NotIndexable.at(span, str(type_of(subject)), type=type_of(subject), reason=""))
        if not isinstance(index, NumberValue) or index.value != int(index.value):
            raise Fault(NotIndexable.at(span, type=type_of(subject), reason=": the index must be an integer"))
        position = int(index.value)
        if not 0 <= position < len(subject.items):
            reason = f": it has {len(subject.items)} items, counted from 0"
            raise Fault(NotIndexable.at(span, type=type_of(subject), reason=reason))
        return subject.items[position]

    # --- objectives ---------------------------------------------------------------------------------------------------

    def terms(self, minimize: Minimize, scope: FileScope) -> list[tuple[str, Node]]:
        """The named terms of an objective, each a Loss node; those with errors are reported and left out."""
        nodes = []
        for term in minimize.terms:
            try:
                node = self._loss(term, scope)
            except Fault as fault:
                self.session.report(self.session.blamed(fault))
                continue
            if node is not None:
                nodes.append((_term_name(term), node))
        return nodes

    def _loss(self, term: Term, scope: FileScope) -> Node | None:
        value = self.caller.settle(self.evaluate(term.value, scope), term.value.span)
        if isinstance(value, ErrorValue):
            return None
        if isinstance(value, ViewSet):
            raise Fault(SetWhereOneIsWanted.at(term.value.span, found=type_of(value)))
        if not isinstance(value, Node) or not isinstance(value.type, LossType):
            help = ("reduce it to one number: `mean(...)`",) if "Score" in coerce.kind_of(value) else ()
            actual = type_of(value)
            raise Fault(NotALoss.at(term.value.span, str(actual), help=help, type=actual))
        return value

    def recipe_loss(self, recipe: RecipeFunction, arguments: dict[str, Value]) -> Value:
        """The sum of the terms of a used recipe, elaborated again: each use has its own learned parameters."""
        scope = recipe.scope.fresh()
        bind_signature(self, recipe.recipe, scope, arguments)
        outer = dict(self.session.encoders)
        try:
            self.install_encoders(scope)
            minimize = next(item for item in recipe.module.items if isinstance(item, Minimize))
            terms = self.terms(minimize, scope)
        finally:
            self.session.encoders = outer
        if len(terms) < len(minimize.terms):
            return ErrorValue()
        total: Value = terms[0][1]
        for _, node in terms[1:]:
            total = arithmetic.binary(self.session, "+", total, node, minimize.span)
        return total

    def install_encoders(self, scope: FileScope) -> None:
        """A file's `encoder vision = ...` becomes the default encoder of its field type."""
        for name, declaration in scope.encoders.items():
            value = self._file_value(name, scope, declaration.name.span)
            if isinstance(value, FusionValue) and name == FUSION:
                self.session.fusion = value
            if isinstance(value, EncoderValue) and name in DEFAULT_ENCODERS:
                self.session.encoders.update(dict.fromkeys(value.encoder.takes, value.encoder))


def _tuple(items: tuple[Value, ...], span: Span) -> TupleValue:
    """A tuple; Fault V0504 if it is too large: nested tuples can double with every name."""
    nested = TupleValue(items)
    if _size(nested) > MAXIMUM_ITEMS:
        raise Fault(TooLarge.at(span, reason=f"a tuple of more than {MAXIMUM_ITEMS} items"))
    return nested


def _size(value: Value) -> int:
    return sum(map(_size, value.items)) if isinstance(value, TupleValue) else 1


def _term_name(term: Term) -> str:
    if term.name is not None:
        return term.name.name
    if isinstance(term.value, Call) and isinstance(term.value.callee, Name):
        return term.value.callee.name
    return "loss"
