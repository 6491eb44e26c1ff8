"""Tests of the laws of primitives: built-in ones and, through `check_primitive`, those of plug-ins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from vlmdsl.api.check import check
from vlmdsl.api.compile import compile
from vlmdsl.api.driver import build_flows
from vlmdsl.ir import CODES, Node
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl.ir.operations.modules import EMBEDDED, STATES, patches_of
from vlmdsl.primitives import Law, Primitive
from vlmdsl.primitives.similarities import similarity_part
from vlmdsl.testing.gradients import check_gradients
from vlmdsl.testing.modules import FEATURES, PATCH_SIDE, TOKENS, WORDS, example_modules

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput
    from vlmdsl.backends.torch.values import Similarities, TokenFeatures

    Features = Tensor | TokenFeatures

__all__ = ["check_primitive", "example_features", "example_modules", "example_objective", "excluded_entries"]

BATCH, REFERENCES, SAMPLES = 5, 9, 512
TOLERANCE = 1e-9


def example_objective(primitive: Primitive) -> Objective:
    """The objective of a primitive's example, not compiled; where that has several stages, of the last one.

    >>> from vlmdsl.primitives import all_primitives
    >>> list(example_objective(all_primitives()["written"]).inputs)
    ['image', 'text_written']
    """
    return compile(primitive.example, compiled=False, stage=build_flows(primitive.example)[-1].stage.name or None)


def check_primitive(primitive: Primitive) -> None:
    """Check a primitive: its documentation, its example, its laws, its derivatives.

    AssertionError says what fails. This one call is a complete test of a plug-in's similarity.
    """
    assert primitive.summary, f"{primitive.name} has no summary"
    assert primitive.example, f"{primitive.name} has no example"
    errors = [fault for fault in check(primitive.example) if fault.severity == "error"]
    assert not errors, f"the example of {primitive.name} does not check: {errors[0].code} {errors[0].message}"
    objective = example_objective(primitive).double().eval()  # calls must not change state
    if "permutation" in primitive.laws:
        _check_permutation(primitive.name, objective)
    if "non_negative" in primitive.laws:
        loss = _loss(objective, example_modules(objective), **example_features(objective))
        assert loss >= 0, f"{primitive.name} gave a negative loss: {loss.item()}"
    # Where a gradient is cut, it is not a derivative on purpose.
    if not any(word in primitive.example for word in ("stop(", "frozen(", "ema(")):
        features = example_features(objective)
        operation = OPERATIONS.get(primitive.name)
        least = 2 if operation is not None and operation.sums_to_one else 1  # no gradient reaches what a target is made of
        targets = {name for name, spec in objective.inputs.items() if {"H", "E"} & {*spec.axes}}  # pixels and boxes
        varied = {name: value for name, value in features.items() if value.dim() >= least and name not in targets}
        drawn = {name: value for name, value in features.items() if name not in varied}
        check_gradients(partial(_loss, objective, example_modules(objective), **drawn), varied)
    _check_padding(primitive.name, objective)
    if primitive.family == "similarities":
        for law, check_law in _OF_SIMILARITIES.items():
            if law in primitive.laws:
                check_law(primitive)


def example_features(objective: Objective, *, seed: int = 0, batch: int = BATCH, tokens: int = TOKENS) -> dict[str, Tensor]:
    """Random float64 inputs of an objective, by name: what its call takes beside `modules`.

    Features, masks with at least one token, labels, flags, draws; some labels repeat or lack. Texts have `tokens` tokens,
    images one more, or with boxes a square number, and images that are decoded as many patches. No padded token is one to
    predict.
    Sample numbers are those of a data set of 512, each at most once.

    Args:
        objective: its `inputs` are the names, axes and dtypes. Where it retrieves, a small reference set is put into it.
        seed: of the numbers.
        batch: the samples.
        tokens: those of a text.

    Example:
        >>> import vlmdsl
        >>> from vlmdsl.testing import example_features
        >>> objective = vlmdsl.compile("contrast(image, text)", compiled=False)
        >>> objective(**example_features(objective)).terms.keys()
        dict_keys(['contrast'])
    """
    import torch

    from vlmdsl.ir import draws, ramps, ramps_at, sample_index
    from vlmdsl.runtime.draws import sample_draws, step_draws

    generator = torch.Generator().manual_seed(seed)
    drawn = step_draws(draws(objective.program), seed, step=0)
    drawn |= {name: torch.tensor(value) for name, value in ramps_at(ramps(objective.program), 1, 2, 2).items()}
    drawn |= sample_draws(draws(objective.program), seed, 0, [str(sample) for sample in range(batch)])
    _fill_references(objective)
    index = sample_index(objective.program)
    if index is not None:
        drawn[index.string("name")] = torch.randperm(SAMPLES, generator=generator)[:batch]
        objective.state.allocate_samples(SAMPLES)
    boxed = any("E" in spec.axes for spec in objective.inputs.values())
    patches = (math.isqrt(tokens) + 1) ** 2 if boxed else tokens + 1  # boxes are places on a square grid
    sizes = {"B": batch, "L": tokens, "P": patches, "E": 4, "J": 2 * tokens + 1, "D": FEATURES, "V": WORDS, "W": FEATURES}
    pixels = {"B": batch, "C": 3, "H": PATCH_SIDE, "W": PATCH_SIDE * (tokens + 1)}
    features = {}
    for name, spec in objective.inputs.items():
        if name in drawn:
            features[name] = drawn[name].double() if spec.dtype == "float" else drawn[name]
            continue
        if "E" in spec.axes:
            features[name] = _boxes(batch, tokens, generator)
            continue
        shape = [(pixels if "H" in spec.axes else sizes).get(axis, tokens) for axis in spec.axes]
        if spec.dtype == "float":
            features[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
        elif spec.dtype == "int64":
            features[name] = torch.randint(-1, 2, shape, generator=generator)
        else:
            features[name] = torch.rand(shape, generator=generator) < 0.7
            if len(shape) > 1:
                features[name][:, 0] = True
    features |= {name: features[mask] for name, mask in _shared_masks(objective).items() if name in features}
    for name, mask in _masks_of_targets(objective).items():
        features[name] = features[name].where(features[mask], -1)
    return features


def _boxes(batch: int, count: int, generator: Generator) -> Tensor:
    """Boxes in the unit square, [batch, count, 4], the last one of each sample without an area."""
    import torch

    corners = torch.rand(batch, count, 2, 2, generator=generator, dtype=torch.float64).sort(dim=2).values
    corners[:, -1] = 0.0
    return corners.flatten(2)


def excluded_entries(objective: Objective, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which entries of each floating-point input take part in nothing, whatever stands there: bool of its shape, by name.

    Those are features of padded tokens, logits of tokens that are not predicted, and pixels of patches that were not
    dropped.

    Args:
        objective: the compiled objective.
        features: its inputs.
    """
    import torch

    excluded: dict[str, Tensor] = {}
    encoded = {patches_of(output.node) for output in objective.module_outputs if output.logits}
    predicted = {stream.input("states") for stream in objective.streams if stream.encode in encoded}
    for name, value in features.items():
        if not value.is_floating_point() or not value.dim():
            continue
        excluded[name] = torch.zeros(value.shape, dtype=torch.bool)
        stem, _, part = name.rpartition("_")
        decoded = f"{stem}_dropped" in features  # of such an image all states that are there are those of patches
        whole = decoded or f"{stem}_replaced" in features or name in predicted
        if part in ("tokens", STATES, EMBEDDED) and f"{stem}_mask" in features and not whole:
            excluded[name] |= ~features[f"{stem}_mask"][:, :, None]
        elif part in ("vocabulary", "predicted"):
            text = stem.removesuffix("_teacher")  # whose logits are of the same tokens
            ids = next(features[f"{text}_{name}"] for name in CODES.values() if f"{text}_{name}" in features)
            excluded[name] |= (ids < 0)[:, :, None]
        elif part == "pixels" and decoded:
            columns = ~features[f"{stem}_dropped"].repeat_interleave(PATCH_SIDE, dim=1)
            excluded[name] |= columns[:, None, None, :]
    return excluded


def _shared_masks(objective: Objective) -> dict[str, str]:
    """The masks of streams, each with that of the first stream of the same text: it has one length, whatever encodes it."""
    first: dict[Node, str] = {}
    names = [(stream.source, stream.input("mask")) for stream in objective.streams if stream.tokens or stream.entering]
    return {name: first.setdefault(source, name) for source, name in names}


def _masks_of_targets(objective: Objective) -> dict[str, str]:
    """The inputs that say what tokens were of texts that a module was applied to, and those that say which are padding."""
    names = {stream.encode: stream.input("mask") for stream in objective.streams}
    owners = [output for output in objective.module_outputs if output.node.inputs[0].operation in (STATES, EMBEDDED)]
    ids = {output.input(part): output.node.inputs[0].inputs[0] for output in owners for part in CODES.values()}
    return {name: names[text] for name, text in ids.items() if name in objective.inputs}


def _fill_references(objective: Objective) -> None:
    """A small reference set with one sample that is in every batch, where the objective retrieves from one."""
    import torch

    generator = torch.Generator().manual_seed(7)
    names = [column.name for column in objective.references.columns]
    values = {name: torch.randn(REFERENCES, FEATURES, generator=generator, dtype=torch.float64) for name in names}
    if names:
        objective.references.fill(values, torch.arange(REFERENCES) - 1)


def _loss(objective: Objective, modules: Mapping[str, Any], **features: Tensor) -> Tensor:
    output: ObjectiveOutput = objective(modules=modules, **features)
    return output.loss


def _check_permutation(name: str, objective: Objective) -> None:
    """The order of the samples in a batch has no effect."""
    import torch

    features, modules = example_features(objective), example_modules(objective)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(2))
    shuffled = {key: value[order] if value.dim() else value for key, value in features.items()}
    difference = (_loss(objective, modules, **features) - _loss(objective, modules, **shuffled)).abs().item()
    assert difference < TOLERANCE, f"{name} depends on the order of the batch, by {difference:.3g}"


def _check_padding(name: str, objective: Objective) -> None:
    """The values of excluded entries, and what modules return for padding, change no bit of the results."""
    import torch

    features = example_features(objective)
    excluded = excluded_entries(objective, features)
    results = []
    for fill, padding in ((0.5, 0.5), (torch.nan, 1e3)):  # what a module returns for padding is finite and arbitrary
        filled = {
            key: value.masked_fill(excluded[key], fill).requires_grad_() if key in excluded else value
            for key, value in features.items()
        }
        loss = _loss(objective, example_modules(objective, padding=padding), **filled)
        learning = [value for value in filled.values() if value.requires_grad]
        gradients = torch.autograd.grad(loss, learning, allow_unused=True) if loss.requires_grad else ()
        results.append([loss, *(gradient for gradient in gradients if gradient is not None)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other), f"{name} depends on what stands in padding"


def _streams(primitive: Primitive, scale: float = 1.0) -> tuple[Features, Features]:
    """Two random streams of what the similarity compares, the second with padding; `scale` stretches both."""
    import torch

    from vlmdsl.backends.torch.values import TokenFeatures

    generator = torch.Generator().manual_seed(3)
    shape = (BATCH, FEATURES) if similarity_part(primitive).level == "pooled" else (BATCH, TOKENS, FEATURES)
    x, y = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    if len(shape) == 2:
        return x, y
    mask = torch.rand(BATCH, TOKENS, generator=generator) < 0.7
    mask[:, 0] = True
    return TokenFeatures(x, None), TokenFeatures(y, mask)


def _matrix(primitive: Primitive, x: Features, y: Features) -> Similarities:
    from vlmdsl.backends.torch import ops

    part = similarity_part(primitive)
    if part.normalized:
        x, y = ops.normalize(x), ops.normalize(y)  # type: ignore[type-var] # both are of one kind
    return ops.similarity(x, y, by=part.by, **dict(part.arguments))


def _check_swap(primitive: Primitive) -> None:
    """f(y, x) is the transpose of f(x, y), the two directions having changed places."""
    x, y = _streams(primitive)
    one, other = _matrix(primitive, x, y), _matrix(primitive, y, x)
    difference = max(
        (one.rows - other.columns.T).abs().max().item(),
        (one.columns - other.rows.T).abs().max().item(),
    )
    assert difference < TOLERANCE, f"{primitive.name}(y, x) is not the transpose of {primitive.name}(x, y): {difference:.3g}"


def _check_scale(primitive: Primitive) -> None:
    """The length of the vectors has no effect."""
    one, other = _matrix(primitive, *_streams(primitive)), _matrix(primitive, *_streams(primitive, scale=3.0))
    difference = (one.rows - other.rows).abs().max().item()
    assert difference < TOLERANCE, f"{primitive.name} depends on the length of the vectors, by {difference:.3g}"


def _check_bounds(primitive: Primitive) -> None:
    """Every similarity lies in [-1, 1]."""
    matrix = _matrix(primitive, *_streams(primitive))
    largest = max(matrix.rows.abs().max().item(), matrix.columns.abs().max().item())
    assert largest <= 1.0 + TOLERANCE, f"{primitive.name} leaves [-1, 1]: {largest:.3g}"


_OF_SIMILARITIES: dict[Law, Callable[[Primitive], None]] = {
    "swap": _check_swap,
    "scale_invariant": _check_scale,
    "bounded": _check_bounds,
}
