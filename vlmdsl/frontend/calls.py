"""Calls: of primitives, `def`s, used recipes and encoders; with sets of views; and without their subjects."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from vlmdsl.diagnostics.catalog.meaning import TooLarge, ViewOfMaskedText
from vlmdsl.diagnostics.catalog.types import EncoderKind, NotCallable
from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.frontend import arithmetic, coerce, decoding
from vlmdsl.frontend.arguments import Bound, GivenArgument, bind, check_parameters, missing
from vlmdsl.frontend.builder import CallBuilder
from vlmdsl.frontend.evaluates import Evaluates
from vlmdsl.frontend.scope import Closure, LocalScope, RecipeFunction
from vlmdsl.ir import Encoder, Module, Node, Use, walk
from vlmdsl.ir.operations.encoding import MIX
from vlmdsl.ir.operations.modules import APPLY
from vlmdsl.ir.operations.views import FIELD, MASK
from vlmdsl.ir.uses import head_uses
from vlmdsl.primitives import Fault, Parameters, Primitive
from vlmdsl.primitives.default_encoders import usual_fusion
from vlmdsl.primitives.values import (
    EncoderValue,
    ErrorValue,
    FunctionValue,
    FusionValue,
    NumberValue,
    TupleValue,
    Value,
    ViewSet,
    ViewValue,
    type_of,
)
from vlmdsl.source import Span
from vlmdsl.source.limits import MAXIMUM_VIEWS
from vlmdsl.syntax.tree import Parameter
from vlmdsl.types import FieldType, LossType, VecType

__all__ = ["Caller"]


class Caller:
    """Evaluates calls for an elaborator."""

    def __init__(self, elaborator: Evaluates) -> None:
        self.elaborator = elaborator
        self.session = elaborator.session

    def call(  # noqa: PLR0911 - one line per kind of callee
        self, callee: Value, arguments: tuple[GivenArgument, ...], span: Span
    ) -> Value:
        """The value of `callee(given)`; Fault if the call is wrong."""
        if isinstance(callee, ErrorValue) or any(isinstance(argument.value, ErrorValue) for argument in arguments):
            return ErrorValue()
        with self.session.entered(span, tuple((argument.value, argument.span) for argument in arguments)):
            match callee:
                case EncoderValue():
                    return self._encode(callee, arguments, span)
                case FusionValue():
                    return self._fuse(callee, arguments, span)
                case ViewValue():
                    return self._view_call(callee, arguments, span)
                case FunctionValue(target=Primitive() as primitive):
                    return self._primitive(primitive, arguments, dict(callee.arguments), span)
                case FunctionValue(target=Closure() as closure):
                    return self._closure(callee, closure, arguments, span)
                case FunctionValue(target=RecipeFunction() as recipe):
                    return self._recipe(callee, recipe, arguments, span)
                case _:
                    raise Fault(NotCallable.at(span, str(type_of(callee)), type=type_of(callee)))

    # --- primitives ---------------------------------------------------------------------------------------------------

    def _primitive(
        self, primitive: Primitive, arguments: tuple[GivenArgument, ...], already: dict[str, Value], span: Span
    ) -> Value:
        positional = [subject.name for subject in primitive.positional] + list(primitive.positional_parameters)
        bound = bind(primitive.name, positional, primitive.argument_names(), arguments, already)
        subject_names = {subject.name for subject in primitive.subjects}
        static = {name: value for name, value in bound.values.items() if name not in subject_names}
        parameters = check_parameters(primitive, static, bound.places, span)
        if primitive.view_of and not any(subject.name in bound.values for subject in primitive.positional):
            return ViewValue(primitive.name, primitive.view_of, primitive, parameters, span, self.session.draw())
        return self._apply(primitive, bound, parameters, span, fixed_draw=None)

    def _apply(
        self, primitive: Primitive, bound: Bound, parameters: Parameters, span: Span, *, fixed_draw: int | None
    ) -> Value:
        subjects = self._subjects(primitive, bound, span)
        builder = CallBuilder(self.session, span, bound.places, self._positional_call, self.apply_view, fixed_draw)

        def once(chosen: dict[str, Value]) -> Value:
            checked = {
                subject.name: chosen[subject.name]
                if chosen[subject.name] is subject.default
                else coerce.fits(
                    chosen[subject.name],
                    subject.accepts,
                    function=primitive.name,
                    argument=subject.name,
                    place=builder.place(subject.name),
                )
                for subject in primitive.subjects
                if subject.name in chosen
            }
            if any(isinstance(value, ErrorValue) for value in checked.values()):
                return ErrorValue()
            if primitive.view_of:
                _check_view(primitive, checked, builder)
            return primitive.meaning(builder, checked, parameters)

        return self._over_sets(subjects, once, span) if primitive.maps_sets else once(subjects)

    def _subjects(self, primitive: Primitive, bound: Bound, span: Span) -> dict[str, Value]:
        subjects: dict[str, Value] = {}
        optional = primitive.family == "similarities" and not any(name in bound.values for name in ("a", "b"))
        for subject in primitive.subjects:
            if subject.name in bound.values:
                value = bound.values[subject.name]
                wants_function = {"Function", "Any", "View"} & set(subject.accepts)
                place = bound.places.get(subject.name, span)
                subjects[subject.name] = value if wants_function else self.settle(value, place)
            elif subject.default is not None:
                subjects[subject.name] = subject.default
            elif not optional:
                raise missing(primitive.name, subject.name, span)
        return subjects

    # --- functions of the language ------------------------------------------------------------------------------------

    def _closure(self, function: FunctionValue, closure: Closure, arguments: tuple[GivenArgument, ...], span: Span) -> Value:
        definition = closure.definition
        names = [parameter.name.name for parameter in definition.parameters]
        required = _required(closure)
        bound = bind(function.name, required, names, arguments, dict(function.arguments))
        if any(name not in bound.values for name in required):
            # A call without its subjects is a value; code that needs its result reports what is missing.
            return FunctionValue(function.name, closure, bound.values, span)
        scope = LocalScope(dict(bound.values), closure.scope)
        for parameter in definition.parameters:
            self._default(parameter, scope)
            self._check_annotation(function.name, parameter, scope.values[parameter.name.name], bound, span)

        def once(chosen: dict[str, Value]) -> Value:
            return self.elaborator.evaluate(definition.body, LocalScope(chosen, closure.scope))

        taken = {parameter.name.name for parameter in definition.parameters if _takes_set(parameter)}
        return self._over_sets(scope.values, once, span, except_for=taken)

    def _default(self, parameter: Parameter, scope: LocalScope) -> None:
        name = parameter.name.name
        if name not in scope.values and parameter.default is not None:
            with self.session.named(name):
                scope.values[name] = self.elaborator.evaluate(parameter.default, scope)

    def _check_annotation(self, function: str, parameter: Parameter, value: Value, bound: Bound, span: Span) -> None:
        if parameter.type is None or isinstance(value, ErrorValue):
            return
        name = parameter.name.name
        element = value.items[0] if isinstance(value, ViewSet) else value
        place = bound.places.get(name, span)
        coerce.fits(element, (parameter.type.name,), function=function, argument=name, place=place)

    def _recipe(
        self, function: FunctionValue, recipe: RecipeFunction, arguments: tuple[GivenArgument, ...], span: Span
    ) -> Value:
        signature = recipe.recipe.parameters
        names = [parameter.name.name for parameter in signature]
        fields = _required(recipe)
        bound = bind(function.name, fields, names, arguments, dict(function.arguments))
        if any(name not in bound.values for name in fields):
            return FunctionValue(function.name, recipe, bound.values, span)
        for parameter in signature:
            if parameter.name.name in bound.values:
                self._check_annotation(function.name, parameter, bound.values[parameter.name.name], bound, span)

        def once(chosen: dict[str, Value]) -> Value:
            return self.elaborator.recipe_loss(recipe, chosen)

        taken = {parameter.name.name for parameter in signature if _takes_set(parameter)}
        return self._over_sets(bound.values, once, span, except_for=taken)

    # --- encoders and views -------------------------------------------------------------------------------------------

    def _encode(self, encoder: EncoderValue, arguments: tuple[GivenArgument, ...], span: Span) -> Value:
        tower = encoder.encoder
        if tower.decoder is not None:
            return self._decode(tower, arguments, span)
        bound = bind(tower.tower, ["stream"], ["stream"], arguments, {})
        if "stream" not in bound.values:
            raise missing(tower.tower, "stream", span)
        place = bound.places["stream"]

        if tower.codebook is not None:
            help = (f"`codes(image, by={tower.tower})`",)
            reason = "a codebook gives codes of patches, and no features"
            raise Fault(BadValue.at(place, argument="stream", function=tower.tower, reason=reason, help=help))

        def once(chosen: dict[str, Value]) -> Value:
            stream = chosen["stream"]
            kind = stream.type.kind if isinstance(stream, Node) and isinstance(stream.type, FieldType) else ""
            if isinstance(stream, Node) and kind in tower.takes and stream.type == FieldType(kind):
                return self.session.add("encode", stream, span=span, encoder=tower)
            actual = type_of(stream)
            raise Fault(EncoderKind.at(place, str(actual), encoder=tower.tower, wanted=tower.kind, found=actual))

        return self._over_sets(bound.values, once, span)

    def _decode(self, tower: Encoder, arguments: tuple[GivenArgument, ...], span: Span) -> Value:
        bound = bind(tower.tower, decoding.POSITIONAL, decoding.ARGUMENTS, arguments, {})
        if "text" not in bound.values:
            raise missing(tower.tower, "text", span)
        settled = {name: self.settle(value, bound.places[name]) for name, value in bound.values.items()}
        return self._over_sets(
            settled, lambda chosen: decoding.decoded(self.session, tower, chosen, bound.places, span), span
        )

    def _fuse(self, fusion: FusionValue, arguments: tuple[GivenArgument, ...], span: Span) -> Value:
        """A text given an image by a fusion module that is called by its name: `fusion(text, image)`; a text alone by one
        that has no attention to images."""
        names = ["text"] if coerce.is_alone(fusion) else ["text", "image"]
        bound = bind(fusion.name, names, names, arguments, {})
        text = bound.values.get("text")
        if len(names) == 2 and "image" not in bound.values and isinstance(text, Node) and text.operation is APPLY:
            raise coerce.fused_fault(text, fusion, bound.places["text"])
        for name in names:
            if name not in bound.values:
                raise missing(fusion.name, name, span)
        return self.fused(dict(zip(_FUSED, (bound.values[name] for name in names), strict=False)), span, fusion)

    def fused(self, values: dict[str, Value], span: Span, fusion: FusionValue | None = None) -> Value:
        """A text given an image, `subject | context`; of sets every combination. `fusion` encodes it, or else that of the
        recipe."""
        settled = {name: self.settle(value, span) for name, value in values.items()}
        if any(isinstance(value, ErrorValue) for value in settled.values()):
            return ErrorValue()

        def once(chosen: dict[str, Value]) -> Value:
            module = fusion or self.session.fusion or usual_fusion()
            states = [
                coerce.states(self.session, value, kind, span)
                if kind == "Image" or not (shares := coerce.shared_tower(module))
                else coerce.embedded(self.session, value, shares, span)
                for kind, value in ((_FUSED[name], value) for name, value in chosen.items())
            ]
            entering = [each for each in states if each is not None]
            if len(entering) < len(states) or coerce.is_alone(module) != (len(entering) == 1):
                raise coerce.context_fault(chosen["subject"], chosen.get("context"), module, span)
            use = Use(
                Module(module.name, "fusion", module.settings), gradient=module.teacher is None, follows=module.teacher
            )
            encoded = self.session.add("apply", *entering, span=span, use=use)
            for head in head_uses(use, module.heads):
                features = encoded if encoded.type == VecType() else self.session.add("pooled", encoded, span=span)
                encoded = self.session.add("apply", features, span=span, use=head)
            return encoded

        return self._over_sets(settled, once, span)

    def _view_call(self, view: ViewValue, arguments: tuple[GivenArgument, ...], span: Span) -> Value:
        assert isinstance(view.target, Primitive)
        subject = view.target.positional[0].name
        bound = bind(view.name, [subject], [subject], arguments, {})
        if subject not in bound.values:
            raise missing(view.name, subject, span)
        return self.apply_view(view, bound.values[subject], bound.places[subject])

    def apply_view(self, view: Value, subject: Value, span: Span) -> Value:
        """A view value applied to a field or to each of a set."""
        assert isinstance(view, ViewValue)
        assert isinstance(view.target, Primitive)
        assert isinstance(view.parameters, Parameters)
        name = view.target.positional[0].name
        bound = Bound({name: subject}, {name: span})
        return self._apply(view.target, bound, view.parameters, view.span or span, fixed_draw=view.draw)

    def _positional_call(self, function: Value, arguments: tuple[Value, ...], span: Span) -> Value:
        return self.call(function, tuple(GivenArgument(None, value, span) for value in arguments), span)

    # --- sets and partial calls ---------------------------------------------------------------------------------------

    def _over_sets(
        self,
        values: dict[str, Value],
        once: Callable[[dict[str, Value]], Value],
        span: Span,
        except_for: AbstractSet[str] = frozenset(),
    ) -> Value:
        """`once` for every combination of the sets among `values`: the mean of losses, else the set of results."""
        sets = {name: value.items for name, value in values.items() if isinstance(value, ViewSet) and name not in except_for}
        if not sets:
            return once(values)
        combinations = list(itertools.islice(itertools.product(*sets.values()), MAXIMUM_VIEWS + 1))
        if len(combinations) > MAXIMUM_VIEWS:
            raise Fault(TooLarge.at(span, reason=f"more than {MAXIMUM_VIEWS} combinations of views"))
        results: list[Value] = []
        for chosen in combinations:
            try:
                results.append(once({**values, **dict(zip(sets, chosen, strict=True))}))
            except Fault as fault:
                raise _of_all_pairs(fault) if results and len(sets) > 1 else fault from None
        if any(isinstance(result, ErrorValue) for result in results):
            return ErrorValue()
        if all(isinstance(type_of(result), LossType) for result in results):
            return self._mean(results, span)
        return ViewSet(tuple(results))

    def _mean(self, losses: list[Value], span: Span) -> Value:
        total = losses[0]
        for loss in losses[1:]:
            total = arithmetic.binary(self.session, "+", total, loss, span)
        return arithmetic.binary(self.session, "*", NumberValue(1.0 / len(losses)), total, span)

    def settle(self, value: Value, span: Span) -> Value:
        """A value where data is expected: a call without subjects gets the default fields that it has no view of."""
        if isinstance(value, TupleValue):
            return TupleValue(tuple(self.settle(item, span) for item in value.items))
        if not isinstance(value, FunctionValue) or value.span is None:
            return value
        assert isinstance(value.target, Closure | RecipeFunction)
        lacking = [name for name in _required(value.target) if name not in value.arguments]
        present = _fields_of(value.arguments.values())
        free = [field for field in self.session.default_fields or () if field not in present]
        if len(lacking) > len(free):
            raise missing(value.name, lacking[0], value.span)
        used = free[: len(lacking)]
        self.session.used_fields.update(node.string("name") for node in used)
        complete = FunctionValue(value.name, value.target, value.arguments)
        return self.call(complete, tuple(GivenArgument(None, node, value.span) for node in used), value.span)


_FUSED = {"subject": "Text", "context": "Image"}
"""The inputs of a fusion module, by the sides of `subject | context`."""


def _of_all_pairs(fault: Fault) -> Fault:
    """The fault of a call over two sets of which only some combinations belong together."""
    help = "a call over two sets is over all their pairs: give both from one set, `def f(x) = ...`, and call `f` with it"
    return Fault(dataclasses.replace(fault.diagnostic, help=(help,)), fault.value)


def _check_view(primitive: Primitive, subjects: dict[str, Value], builder: CallBuilder) -> None:
    """Masks come last: they mask tokens, and the other views of a text change its words. So do mixtures of images."""
    name = primitive.positional[0].name
    subject = subjects[name]
    if isinstance(subject, Node) and subject.operation is MASK:
        raise Fault(ViewOfMaskedText.at(builder.place(name), view=primitive.name), subject)
    if isinstance(subject, Node) and subject.operation is MIX and primitive.name != "mix":
        help = (f"take the view first: `mix({primitive.name}(image), by=...)`",)
        reason = "images are mixed in the step, when their views are made already"
        raise Fault(BadValue.at(builder.place(name), argument=name, function=primitive.name, reason=reason, help=help))


def _required(target: Closure | RecipeFunction) -> list[str]:
    """The names of the arguments without a default."""
    signature = target.definition.parameters if isinstance(target, Closure) else target.recipe.parameters
    return [parameter.name.name for parameter in signature if parameter.default is None]


def _fields_of(values: Iterable[Value]) -> set[Node]:
    """The fields that streams, and sets of them, are views of."""
    streams = [node for value in values for node in (value.items if isinstance(value, ViewSet) else (value,))]
    return {node for node in walk(node for node in streams if isinstance(node, Node)) if node.operation is FIELD}


def _takes_set(parameter: Parameter) -> bool:
    return parameter.type is not None and parameter.type.views is not None
