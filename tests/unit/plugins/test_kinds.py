"""A plug-in of each kind: recipes that use it check, compile, run, and are explained and planned like any other."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import vlmdsl
from unit.plugins import kinds
from vlmdsl.api.driver import build
from vlmdsl.backends.latex import formula_text
from vlmdsl.ir.operation import OPERATIONS
from vlmdsl.runtime.modules.towers import build_encoder
from vlmdsl.testing import check_primitive

AGES = "recipe mine(image: Image, text: Text, age: Number)\n"
WITH_LAWS = (kinds.token_margin, kinds.squares, kinds.nearby, kinds.upwards, kinds.focused_words, kinds.added_context)
TEXT_MARGIN = "mean(token_margin(image, text, margin=0.9))"


@pytest.mark.parametrize("primitive", WITH_LAWS, ids=lambda p: p.name)
def test_declared_laws_hold(primitive: vlmdsl.primitives.Primitive) -> None:
    check_primitive(primitive)


def test_a_criterion_of_tokens_is_what_its_function_computes() -> None:
    objective = vlmdsl.compile(TEXT_MARGIN, compiled=False).double()
    assert 'ops.plugin_criterion("token_margin", ' in objective.source
    x, y = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 4, dtype=torch.bool)
    x, y = (value / value.norm(dim=2, keepdim=True) for value in (x, y))
    loss = objective(image_tokens=x, text_tokens=y, text_mask=mask).loss
    torch.testing.assert_close(loss, (0.9 - (x @ y.mT).amax(2)).clamp(min=0).mean())


def test_a_criterion_of_logits_is_the_mean_of_what_its_function_gives_for_each_token_that_counts() -> None:
    recipe = "let m = random(30%)\nminimize focused_words(linear(mask(text, m)), text, at=m, focus=1)"
    objective = vlmdsl.compile(recipe, compiled=False)
    assert (
        'ops.plugin_token_criterion("focused_words", text_masked_vocabulary, text_masked_targets, focus=1.0)'
        in objective.source
    )
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[4, -100, 0], [-100, -100, 2]])
    logits[targets < 0] = torch.nan
    logits.requires_grad_()
    loss = objective(text_masked_vocabulary=logits, text_masked_targets=targets).loss
    log = logits[[0, 0, 1], [0, 2, 2]].log_softmax(1)[[0, 1, 2], [4, 0, 2]]
    torch.testing.assert_close(loss, (-(1 - log.exp()) * log).mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[targets >= 0].isfinite().all()
    assert not gradient[targets < 0].any()
    (stream,) = objective.streams
    assert stream.asked_only  # logits of the selected tokens are enough
    assert "focused_words(z_ik, text_i[k], focus = 1.0)" in formula_text(objective.program)
    assert vlmdsl.plan(recipe, batch=8).calls[-1].family == "vocabulary"


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        ("focused_words(linear(mask(text, m)), text, at=random(30%))", "it is not the mask by which tokens of the text"),
        ("focused_words(text, text)", "`logits` of `focused_words` expects logits of tokens or patches, not Text"),
    ],
)
def test_a_criterion_of_logits_is_checked_as_the_built_in_one(loss: str, problem: str) -> None:
    faults = [fault for fault in vlmdsl.check(f"let m = random(30%)\nminimize {loss}") if fault.severity == "error"]
    assert problem in faults[0].message


def test_logits_of_a_plug_in_come_with_what_the_tokens_are() -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="takes logits without the ids of the tokens"):

        @vlmdsl.primitive(kind="criterion", takes=("Logits", "Label"))
        def unfit(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            """Not what the tokens are."""
            return logits.sum(1)


def test_names_of_arguments_of_all_criteria_of_logits_are_taken() -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="has a parameter `weight`, a name that every criterion of tokens uses"):

        @vlmdsl.primitive(kind="criterion", takes=("Logits", "Codes"))
        def heavy(logits: torch.Tensor, targets: torch.Tensor, *, weight: float = 1.0) -> torch.Tensor:
            """Another meaning of a weight."""
            return weight * logits.sum(1)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("nearby", lambda age: (-(age[:, None] - age[None, :]).abs()).exp()),
        ("upwards", lambda age: (age[None, :] >= age[:, None]).double()),
    ],
)
def test_both_directions_of_a_target_sum_to_one(name: str, weights: object) -> None:
    recipe = f"{AGES}minimize contrast(image, text, targets={name}(age), temperature=0.5)"
    objective = vlmdsl.compile(recipe, compiled=False).double()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.nn.functional.normalize(torch.randn(2, 4, 5, dtype=torch.float64, generator=generator), dim=2)
    age = torch.tensor([1.0, 3.0, 2.0, 2.5], dtype=torch.float64)
    logits, target = 2.0 * x @ y.T, weights(age)  # type: ignore[operator]
    rows = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    torch.testing.assert_close(objective(image=x, text=y, age=age).loss, (rows + columns) / 2)


def test_a_compiled_recipe_with_plug_ins_has_one_graph() -> None:
    recipe = f"minimize {{\n  a: {TEXT_MARGIN}\n  b: mean(squares(similarity(image, text), paired()))\n}}"
    plain, compiled = (vlmdsl.compile(recipe, compiled=choice) for choice in (False, True))
    features = {
        "image": torch.randn(3, 5), "image_tokens": torch.randn(3, 2, 5), "text": torch.randn(3, 5),
        "text_tokens": torch.randn(3, 4, 5), "text_mask": torch.ones(3, 4, dtype=torch.bool),
    }  # fmt: skip
    torch.testing.assert_close(compiled(**features).loss, plain(**features).loss)


def test_it_is_in_formulas_plans_and_pages() -> None:
    recipe = "mean(squares(10 * similarity(image, text), paired()))"
    assert "squares(10 x_i" in formula_text(build(recipe).planned)
    assert "token_margin(x_i, y_i, margin = 0.9)" in formula_text(build(TEXT_MARGIN).planned)
    labelled = f"{AGES}minimize contrast(image, text, targets=nearby(age))"
    assert "nearby(age_i, age_j)" in formula_text(build(labelled).planned)
    plan = vlmdsl.plan(recipe)
    assert "squares" in [region.operation for region in plan.regions]
    (region,) = [region for region in vlmdsl.plan(labelled, world=2).regions if region.operation == "nearby"]
    assert [collective.kind for collective in region.collectives] == ["all-reduce"]
    assert region.reason == "a target: computed once per direction, without gradient"
    page = vlmdsl.explain("token_margin").to_text()
    assert "margin" in page
    assert "falls short" in page


def test_what_makes_no_difference_to_the_order_is_known_of_targets() -> None:
    """The columns of a transposed matrix are the rows of the matrix, and a target that is not its own transpose stays."""
    texts = {
        name: build(
            "recipe mine(image: Image, text: Text, age: Number)\n"
            f'minimize mean(cross_entropy(transpose(similarity(image, text)), targets={name}(age), along="rows"))'
        ).planned
        for name in ("nearby", "upwards")
    }
    operations = {name: {str(node.operation) for node in program.nodes()} for name, program in texts.items()}
    assert "transpose" not in operations["nearby"]
    assert "transpose" in operations["upwards"]


def test_objectives_with_plug_ins_are_copied_and_pickled() -> None:
    objective = vlmdsl.compile(TEXT_MARGIN, compiled=False)
    other = pickle.loads(pickle.dumps(objective))
    assert copy.deepcopy(objective).source == other.source == objective.source
    (node,) = [node for node in other.program.nodes() if node.operation == "token_margin"]
    assert node.operation is OPERATIONS["token_margin"]


def test_a_mask_selects_the_tokens_that_its_function_does() -> None:
    from vlmdsl.runtime.data.views import ViewContext, view_of
    from vlmdsl.runtime.tokenizer import train_tokenizer
    from vlmdsl.runtime.values import ImageFormat, TextFormat, TextValue
    from vlmdsl.runtime.values.mask import NOT_SELECTED, masked_batch

    program = build("mlm(mask(text, one_span(40%)))").planned
    (source,) = [node for node in program.nodes() if node.operation == "mask"]
    masked = view_of(source).apply(
        TextValue("one two three four five six seven eight"), ViewContext(0, 0, "key", ImageFormat(8))
    )
    tokenizer = train_tokenizer(["one two three four five six seven eight"], 300).with_mask()
    _, tokens = masked_batch([masked], TextFormat(tokenizer, 16))
    selected = np.flatnonzero(tokens.targets[0].numpy() != NOT_SELECTED)
    assert len(selected) > 1
    assert (np.diff(selected) == 1).all()
    assert "selected by one_span" in formula_text(build("mlm(mask(text, one_span(40%)))").planned)


def test_a_mask_of_patches_drops_those_with_the_largest_numbers() -> None:
    from vlmdsl.runtime.data.views import ViewContext, view_of
    from vlmdsl.runtime.values import ImageFormat

    program = build("contrast(drop(image, one_square(share=25%)), text)").planned
    (source,) = [node for node in program.nodes() if node.operation == "drop"]
    kept = view_of(source).kept(ViewContext(0, 0, "key", ImageFormat(32, patch=8)))
    dropped = np.setdiff1d(np.arange(16), kept)
    assert len(dropped) == 4
    rows, columns = np.unravel_index(dropped, (4, 4))
    assert max(np.ptp(rows), np.ptp(columns)) <= 2  # neighbours, as no four random patches of sixteen are for this key


def test_dropped_patches_of_a_plug_in_are_reconstructed() -> None:
    recipe = "let square = one_square(share=25%)\nminimize reconstruct(decode(drop(image, square)), pixels(image), at="
    assert not [fault for fault in vlmdsl.check(f"{recipe}square)") if fault.severity == "error"]
    (fault,) = [fault for fault in vlmdsl.check(f"{recipe}random(25%))") if fault.severity == "error"]
    assert "it is not the mask by which patches of the image were dropped" in fault.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("contrast(drop(image, one_span(share=25%)), text)", "selects tokens of texts, not patches"),
        ("contrast(image, mask(text, one_square(share=25%)))", "selects patches of images, not tokens"),
    ],
)
def test_a_mask_of_one_kind_is_not_of_the_other(text: str, problem: str) -> None:
    (fault,) = vlmdsl.check(text)
    assert problem in fault.message


@pytest.mark.parametrize("share", ["1e308%", "101%", "0", "-1"])
@pytest.mark.parametrize("term", ["mlm(mask(text, one_span({})))", "contrast(drop(image, one_square({})), text)"])
def test_a_share_is_one_of_a_whole(term: str, share: str) -> None:
    (fault,) = [fault for fault in vlmdsl.check(term.format(share)) if fault.severity == "error"]
    assert (fault.code, "above 0 % and up to 100 %" in fault.message) == ("V0405", True)


def test_a_module_is_a_tower_by_its_name() -> None:
    tower = build_encoder("averages:plain", "Image", dimension=6, image_size=16)
    assert tower(torch.ones(2, 3, 16, 16)).pooled.shape == (2, 6)
    with pytest.raises(vlmdsl.DiagnosticError, match="V0830"):
        build_encoder("averages:plain", "Text", dimension=6)


def _fails(x: object) -> None:
    """Fails."""
    raise KeyError("nothing")


UNFIT = {
    "no docstring": ({"kind": "criterion", "takes": ("Vec",)}, lambda x: x, "has no docstring"),
    "kinds": ({"kind": "criterion", "takes": ("Vec", "Vec")}, _fails, "has 1 positional parameters, and `takes` names 2"),
    "unknown kind": ({"kind": "criterion", "takes": ("Vecs",)}, _fails, "takes `Vecs`"),
    "matrix and features": (
        {"kind": "criterion", "takes": ("Vec", "Sim")},
        kinds.squares,
        "takes a matrix with something else",
    ),
    "target alone": ({"kind": "criterion", "takes": ("Target",)}, _fails, "takes a target without the matrix"),
    "target of one": ({"kind": "target", "takes": ("Label",)}, _fails, "must take two positional parameters of one kind"),
    "mask without share": ({"kind": "mask"}, kinds.squares, "has no parameter `share: float`"),
    "fusion of one width": ({"kind": "fusion"}, _fails, "must take two positional parameters: the widths"),
    "module of an unknown kind": (
        {"kind": "module", "takes": ("Smell",)},
        _fails,
        "encodes `Smell`, which is not a kind of field that towers take",
    ),
    "module of numbers": ({"kind": "module", "takes": ("Number",)}, _fails, "is not a kind of field that towers take"),
    "module of nothing": ({"kind": "module", "takes": ()}, _fails, "does not say what it encodes"),
}


def _pair(matrix: object, shares: object) -> None:
    """Of two."""


@pytest.mark.parametrize("case", UNFIT)
def test_a_function_that_does_not_fit_is_a_diagnostic(case: str) -> None:
    options, function, problem = UNFIT[case]
    function = _pair if isinstance(function, vlmdsl.primitives.Primitive) else function
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        vlmdsl.primitive(**options)(function)  # type: ignore[call-overload]
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["V0216"]
    assert problem in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (lambda x: x.sum(), "returns float32 of the shape [] for 3 samples instead of one number per sample"),
        (lambda x: None, "returns a value of the type `NoneType` for 3 samples"),
        (lambda x: x.nonsense(), "fails on random samples: AttributeError"),
    ],
)
def test_what_a_function_returns_is_tried_before_anything_runs(result: object, problem: str) -> None:
    def unfit_result(x: object) -> object:
        """Returns something else."""
        return result(x)  # type: ignore[operator]

    vlmdsl.primitive(kind="criterion", takes=("Vec",))(unfit_result)
    with pytest.raises(vlmdsl.DiagnosticError, match="V0216") as caught:
        vlmdsl.compile("mean(unfit_result(image))", compiled=False)
    assert problem in caught.value.diagnostics[0].message


def test_what_a_similarity_returns_is_tried_too() -> None:
    def unfit_similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Returns the pairs only."""
        return (x * y).sum(1)

    vlmdsl.primitive()(unfit_similarity)
    with pytest.raises(vlmdsl.DiagnosticError, match="instead of a matrix"):
        vlmdsl.compile("contrast(image, text, sim=unfit_similarity)", compiled=False)


def test_a_name_of_the_kernel_is_taken() -> None:
    def pooled(x: object) -> object:
        """Has the name of an operation."""

    with pytest.raises(vlmdsl.DiagnosticError, match="has the name of an operation of vlmdsl"):
        vlmdsl.primitive(kind="criterion", takes=("Vec",))(pooled)
