"""What becomes a `contrast` node, with what in it, and what is left alone."""

from __future__ import annotations

import pytest

from unit.passes.evaluator import term_values
from unit.passes.programs import Build, align, alip, clip, decoupled, filip, shared, siglip, unicl, weightless
from vlmdsl.ir import Contrast, Direction, Node, Program, parameters
from vlmdsl.ir.text import program_text
from vlmdsl.passes import optimise
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.source import Span


def region(program: Program, term: int = 0) -> tuple[Node, Contrast]:
    node = optimise(program).terms[term].node
    return node, contrast_of(node)


def rows(contrast: Contrast) -> Direction:
    assert contrast.rows is not None
    return contrast.rows


def parts(direction: Direction) -> dict[str, float]:
    return {part.kind: part.coefficient for part in direction.targets}


def test_clip_is_one_fused_node_of_two_features_and_a_scale() -> None:
    node, contrast = region(clip())
    assert contrast.fused
    assert contrast.rows == contrast.columns
    assert [parent.operation for parent in node.inputs] == ["normalize", "normalize", "exp"]
    assert node.inputs[2].inputs[0].operation == "parameter"


def test_align_is_summed_smoothed_and_divides_by_its_parameter() -> None:
    node, contrast = region(align())
    assert rows(contrast).coefficient == 1.0
    assert parts(rows(contrast)) == {"paired": 0.9, "uniform": 0.1}
    assert node.inputs[2].operation == "divide"


def test_filip_keeps_its_matrices_outside() -> None:
    node, contrast = region(filip())
    assert not contrast.fused
    assert node.inputs[0].string("by") == "tokenmax"


def test_unicl_has_its_label_and_marker() -> None:
    node, contrast = region(unicl())
    (part,) = rows(contrast).targets
    assert part.missing == 0
    assert part.input is not None
    assert node.inputs[part.input].string("name") == "label"


def test_the_sigmoid_loss_is_not_a_contrast() -> None:
    assert "contrast" not in {node.operation for node in optimise(siglip()).nodes()}


def test_alip_has_a_weight_on_both_directions_and_one_temperature() -> None:
    program = optimise(alip())
    scales = set()
    for term in program.terms:
        contrast = contrast_of(term.node)
        assert contrast.rows == contrast.columns
        scales.add(term.node.inputs[rows(contrast).scale or 0])
        assert term.node.inputs[rows(contrast).weight or 0].operation == "multiply"
    assert len(scales) == 1


def test_two_terms_over_one_pair_share_the_matrix() -> None:
    program = optimise(shared())
    first, second = (term.node for term in program.terms)
    assert first.inputs[0] is second.inputs[0]
    assert first.inputs[0].operation == "similarity"
    assert not contrast_of(first).fused
    assert rows(contrast_of(second)).coefficient == 0.25


def test_a_term_of_weight_zero_goes_with_its_parameter_its_encoder_and_its_metric() -> None:
    program = optimise(weightless())
    assert [term.name for term in program.terms] == ["kept"]
    assert [node.string("name") for node in parameters(program)] == ["temperature"]
    assert program.metrics == ()
    assert "caption" not in program_text(program).split("\n", 1)[1]
    assert contrast_of(program.terms[0].node).fused


def test_all_terms_stay_if_all_weigh_nothing() -> None:
    build = Build()
    zero = build("multiply", build.mean(build.score(build.pooled("image", "Image"), build.pooled("text"))), 0.0)
    assert [term.name for term in optimise(build.program("nothing", a=zero, b=zero)).terms] == ["a", "b"]


def test_masks_bias_and_decoupling_are_found() -> None:
    node, contrast = region(decoupled())
    first = rows(contrast)
    assert first.without_positive
    assert contrast.columns is not None
    assert not contrast.columns.without_positive
    assert first.bias is not None
    assert node.inputs[first.bias].operation == "parameter"
    assert first.over is not None
    assert node.inputs[first.over].operation == "field"
    assert first.keep is not None
    assert node.inputs[first.keep].operation == "not"
    assert node.inputs[0].operation == "add"


def test_the_bias_is_scaled_by_what_stands_outside_it() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    logits = build("negate", build("subtract", build("multiply", matrix, 2.0), build.parameter("b", 1.0)))
    node, contrast = region(build.program("bias", loss=build.mean(build.cross_entropy(logits, build.paired()))))
    assert node.inputs[rows(contrast).scale or 0].number("value") == -2.0
    assert node.inputs[rows(contrast).bias or 0].operation == "parameter"


def test_flag_kept_by_a_negation_is_the_flag_itself() -> None:
    build = Build()
    flag = build.field("keep", "Flag")
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    logits = build.exclude(matrix, build.negation(flag))
    node, contrast = region(build.program("kept", loss=build.mean(build.cross_entropy(logits, build.paired()), flag)))
    assert rows(contrast).keep == rows(contrast).over
    assert node.inputs[rows(contrast).keep or 0].string("name") == "keep"


def test_an_exclusion_deep_in_a_sum_of_similarities_reaches_the_region() -> None:
    build = Build()
    image, text = build.pooled("image", "Image"), build.pooled("text")
    flag = build.field("drop", "Flag")
    matrix = build("add", build.exclude(build.similarity(image, text), flag), build.similarity(image, text, "euclidean"))
    node, contrast = region(build.program("deep", loss=build.mean(build.cross_entropy(matrix, build.paired()))))
    assert node.inputs[0].operation == "add"
    assert node.inputs[rows(contrast).keep or 0].operation == "not"


def test_hard_and_soft_targets_of_one_direction_become_one() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    hard = build.mean(build.cross_entropy(matrix, build.paired()))
    soft = build.mean(build.cross_entropy(matrix, build.same()))
    _, contrast = region(build.program("mixed", loss=build("add", build("multiply", hard, 1.5), build("divide", soft, 2.0))))
    assert contrast.columns is None
    assert rows(contrast).coefficient == 2.0
    assert parts(rows(contrast)) == {"paired": 0.75, "same": 0.25}


def test_a_learned_mixture_of_targets_is_dense() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    target = build("add", build("multiply", build.paired(), 0.5), build("multiply", build.same(), build.parameter("m", 0.5)))
    _, contrast = region(build.program("learned", loss=build.mean(build.cross_entropy(matrix, target))))
    assert set(parts(rows(contrast))) == {"dense"}


def test_two_row_directions_are_two_nodes_over_one_matrix() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    sharp, flat = (build.both_ways(build("multiply", matrix, scale), build.paired()) for scale in (10.0, 1.0))
    program = optimise(build.program("two", loss=build("add", sharp, flat)))
    regions = [node for node in program.nodes() if node.operation == "contrast"]
    assert len(regions) == 2
    assert regions[0].inputs[0] is regions[1].inputs[0]


@pytest.mark.parametrize("exclusion", ["exclude", "exclude_pairs"])
def test_what_is_excluded_from_a_part_of_the_matrix_stays_excluded(exclusion: str) -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    part = build.exclude(matrix, build.field("flag", "Flag")) if exclusion == "exclude" else build.exclude_pairs(matrix)
    summed = build("add", build.transpose(part), build.similarity(build.pooled("text"), build.pooled("text")))
    loss = build.mean(build.cross_entropy(summed, build.same()))
    program = build.program("part", loss=loss)
    optimised = optimise(program)
    assert not [node for node in optimised.nodes() if node.operation == "contrast"]
    assert term_values(optimised, 3) == pytest.approx(term_values(program, 3))


def test_a_learned_weight_stays_outside_of_one_region() -> None:
    build = Build()
    weight = build("exp", build.parameter("w", 0.0))
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    a, b = (build.mean(build.cross_entropy(matrix, build.paired(), along)) for along in ("rows", "columns"))
    loss = build("add", build("multiply", weight, a), build("multiply", b, weight))
    term = optimise(build.program("weighted", loss=loss)).terms[0].node
    assert term.operation == "multiply"
    contrast = contrast_of(term.inputs[0])
    assert contrast.fused
    assert contrast.columns is not None


def test_a_region_inside_a_larger_expression_is_found() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    loss = build("minimum", build.both_ways(matrix, build.paired()), 3.0)
    term = optimise(build.program("capped", loss=loss)).terms[0].node
    assert term.operation == "minimum"
    assert term.inputs[0].operation == "contrast"


def test_a_score_read_by_something_else_does_not_open_the_region() -> None:
    build = Build()
    image, text = build.pooled("image", "Image"), build.pooled("text")
    losses = build.cross_entropy(build.similarity(image, text), build.paired())
    focal = build.mean(build("multiply", losses, losses))
    operations = {node.operation for node in optimise(build.program("focal", loss=focal)).nodes()}
    assert "contrast" not in operations
    assert "cross_entropy" in operations


def test_a_sum_that_doubles_sixty_times_is_read_at_once() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    loss = build.mean(build.cross_entropy(matrix, build.paired()))
    for _ in range(60):
        loss = build("add", loss, loss)
    _, contrast = region(build.program("doubled", loss=loss))
    assert rows(contrast).coefficient == 2.0**60


def test_a_sum_of_too_many_products_is_left_as_written() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    loss = build.mean(build.cross_entropy(matrix, build.paired()))
    for position in range(20):
        loss = build("add", loss, build("multiply", loss, build.parameter(f"w{position}", 1.0)))
    operations = {node.operation for node in optimise(build.program("products", loss=loss)).nodes()}
    assert "cross_entropy" in operations


def test_places_of_the_recipe_reach_the_region() -> None:
    program = clip()
    for node in program.nodes():
        program.graph.answer_for(node, [Span("clip.vlo", node.index, node.index + 1)])
    optimised = optimise(program)
    assert Span("clip.vlo", program.terms[0].node.index, program.terms[0].node.index + 1) in optimised.graph.spans_of(
        optimised.terms[0].node
    )


@pytest.mark.parametrize("make", [clip, shared, alip])
def test_passes_leave_their_input_alone(make: object) -> None:
    assert callable(make)
    program = make()
    before = program_text(program)
    optimise(program)
    assert program_text(program) == before
