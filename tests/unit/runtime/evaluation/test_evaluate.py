"""From batches to results: equal samples taken together, missing classes left out, the recipe's own similarity."""

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

import vlmdsl
from batches import batch_of, scalars
from vlmdsl.api.driver import build
from vlmdsl.ir import Contrast, Direction, Encoder, Program, Stream, Term
from vlmdsl.ir.graph import Graph
from vlmdsl.runtime.evaluation import (
    ClassPrompts,
    Comparison,
    Measures,
    Part,
    comparison_of,
    evaluate,
    results_json,
    results_table,
    stored_untrained,
)
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.modules.towers import Encoder as Tower
from vlmdsl.runtime.values import ImageBatch, TextBatch
from vlmdsl.types import EncodedType, FieldType, LossType, ScoreType, SimType, TargetType, TokensType, VecType

COMPARISON = Comparison("vision", "language")


class OneHot(Tower):
    """A tower that knows the answer: sample number n, the first of its values, becomes the n-th unit vector."""

    def __init__(self, kind, dimension=8):
        super().__init__(kind, dimension, ["pooled"])
        self.table = nn.Parameter(torch.eye(dimension))

    def forward(self, values, mask=None):
        return EncodedFeatures(self.table[values.flatten(1)[:, 0].long()])


def streams_of(graph=None):
    graph = graph or Graph()
    for name, kind, tower in (("image", "Image", "vision"), ("text", "Text", "language")):
        field = graph.add("field", type=FieldType(kind), name=name)
        encode = graph.add("encode", field, type=EncodedType(kind), encoder=Encoder(tower, kind))
        yield Stream(name, field, encode, True, False)


@pytest.fixture
def model():
    objective = vlmdsl.compile("clip", compiled=False)
    return VisionLanguageModel({"vision": OneHot("Image"), "language": OneHot("Text")}, objective)


def batch(images, texts, labels=None):
    """Images and texts by their number; a text's padding is 9."""
    values = torch.tensor([[number, 9, 9] for number in texts])
    mask = torch.tensor([[True, False, False]] * len(texts))
    pictures = torch.tensor(images, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 2, 2)
    fields = {} if labels is None else scalars(label=torch.tensor(labels))
    return batch_of({"image": ImageBatch(pictures), "text": TextBatch(values, mask), **fields}, [""] * len(images))


def test_a_perfect_model_is_perfect(model):
    evaluation = evaluate(model, [batch([0, 1, 2], [0, 1, 2]), batch([3], [3])], COMPARISON)
    assert (evaluation.samples, evaluation.retrieval.images, evaluation.retrieval.texts) == (4, 4, 4)
    assert evaluation.retrieval.image_to_text.values["R@1"] == evaluation.retrieval.text_to_image.values["R@1"] == 1.0


def test_equal_texts_and_equal_images_are_taken_together(model):
    """Text 0 belongs to images 0 and 5, image 1 to texts 1 and 6: whatever was paired is a right answer."""
    retrieval = evaluate(model, [batch([0, 5, 1], [0, 0, 1]), batch([1, 2], [6, 2])], COMPARISON).retrieval
    assert (retrieval.images, retrieval.texts) == (4, 4)
    # Image 5 looks like no text at all, and ties count against it; all others find a right answer first.
    assert retrieval.image_to_text.values["R@1"] == 3 / 4
    assert retrieval.text_to_image.values["R@1"] == 3 / 4
    assert retrieval.image_to_text.chance["R@1"] == pytest.approx((1 + 2 + 1 + 1) / 4 / 4)


def test_padding_is_not_part_of_a_text(model):
    first, second = batch([0], [0]), batch([1], [0])
    wider = torch.nn.functional.pad(second.values["text"].ids, (0, 2), value=7)
    mask = torch.nn.functional.pad(second.values["text"].mask, (0, 2))
    second.values["text"] = TextBatch(wider, mask)
    assert evaluate(model, [first, second], COMPARISON).retrieval.texts == 1


def test_images_without_a_class_are_left_out(model):
    def tokenize(texts):
        return TextBatch(torch.tensor([[int(text[-1])] for text in texts]), torch.ones(len(texts), 1, dtype=torch.bool))

    prompts = ClassPrompts([f"number {n}" for n in range(6)], tokenize)
    batches = [batch([0, 1, 5], [0, 1, 2], [0, 1, -1]), batch([3], [3], [2])]
    evaluation = evaluate(model, batches, COMPARISON, prompts=prompts, with_retrieval=False)
    assert evaluation.zero_shot.values["top-1"] == pytest.approx(2 / 3)
    assert (evaluation.classes, evaluation.retrieval) == (6, None)
    unlabelled = evaluate(model, [batch([0], [0], [-1])], COMPARISON, prompts=prompts)
    assert unlabelled.zero_shot is None


def test_the_model_is_left_in_its_mode(model):
    model.train()
    evaluate(model, [batch([0], [0])], COMPARISON)
    assert model.training
    assert model.encoders["vision"].training


def test_no_batches_are_not_results(model):
    assert results_json(evaluate(model, [], COMPARISON)) == {"samples": 0}


def test_results_stand_beside_chance_and_the_untrained_model(model):
    untrained = evaluate(model, [batch([0, 1], [1, 0])], COMPARISON)
    trained = evaluate(model, [batch([0, 1], [0, 1])], COMPARISON)
    results = results_json(trained, untrained)
    group = results["retrieval"]["image_to_text"]
    assert (group["R@1"], group["untrained"]["R@1"], group["chance"]["R@1"]) == (1.0, 0.0, 0.5)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(results_table(results))
    row = next(line for line in capture.get().splitlines() if "image to text R@1 " in line)
    assert row.replace("│", " ").split()[-3:] == ["100.0", "0.0", "50.0"]


@pytest.mark.parametrize("zero_shot", [None, Measures({"top-1": 0.5}, {"top-1": 0.1})])
def test_the_untrained_results_are_found_again_in_what_was_written(model, zero_shot):
    untrained = replace(evaluate(model, [batch([0, 1], [1, 0])], COMPARISON), zero_shot=zero_shot, classes=10)
    results = results_json(replace(untrained, samples=2), untrained)
    evaluation = stored_untrained(json.loads(json.dumps(results)))
    assert evaluation is not None
    assert results_json(untrained, evaluation) == results
    assert stored_untrained(results_json(untrained)) is None
    assert stored_untrained({}) is None


def program(term, graph):
    return Program("test", graph, (Term("loss", term),))


def compared(graph, order=("image", "text"), level="pooled", by="dot", normalized=True, **attributes):
    encodes = {stream.name: stream.encode for stream in streams_of(graph)}
    kind = VecType() if level == "pooled" else TokensType()
    sides = [graph.add(level, encodes[name], type=kind) for name in order]
    sides = [graph.add("normalize", side, type=kind, epsilon=0.0) for side in sides] if normalized else sides
    return graph.add("similarity", *sides, type=SimType(), by=by, arguments=tuple(attributes.items()))


def judged(matrix, graph):
    targets = graph.add("paired", type=TargetType())
    scores = graph.add("cross_entropy", matrix, targets, type=ScoreType(), along="rows", denominator="all")
    return graph.add("mean", scores, type=LossType())


def test_a_comparison_is_read_off_the_recipe():
    graph = Graph()
    evaluation = comparison_of(program(judged(compared(graph, ("text", "image"), "tokens", "tokenmax"), graph), graph))
    assert evaluation == Comparison("vision", "language", parts=(Part("tokenmax", "tokens", text_first=True),))
    plain = Graph()
    assert comparison_of(program(judged(compared(plain, normalized=False), plain), plain)).normalized is False


def test_a_sum_of_similarities_is_compared_by_all_of_them():
    comparison = comparison_of(build("contrast(image, text, sim=0.75*cosine + tokenmax/4)").planned)
    assert comparison.parts == (Part(coefficient=0.75), Part("tokenmax", "tokens", coefficient=0.25))
    torch.manual_seed(0)
    images = EncodedFeatures(pooled=torch.randn(3, 5), tokens=torch.randn(3, 4, 5))
    texts = EncodedFeatures(pooled=torch.randn(2, 5), tokens=torch.randn(2, 6, 5), mask=torch.ones(2, 6, dtype=torch.bool))
    cosine = Comparison("vision", "language")(images, texts)
    tokenmax = Comparison("vision", "language", parts=(Part("tokenmax", "tokens"),))(images, texts)
    torch.testing.assert_close(comparison(images, texts).rows, 0.75 * cosine.rows + 0.25 * tokenmax.rows)
    torch.testing.assert_close(comparison(images, texts).columns, 0.75 * cosine.columns + 0.25 * tokenmax.columns)


def test_what_any_criterion_reads_is_compared():
    """Not those of a list only: a loss made of a log-sum-exp trains the similarity that it is taken over."""
    comparison = comparison_of(build("mean(logsumexp(similarity(image, text)) - score(image, text))").planned)
    assert comparison == COMPARISON


def test_a_fused_region_compares_by_inner_product():
    graph = Graph()
    sides = compared(graph).inputs
    region = Contrast(fused=True, rows=Direction(0.5, ()), columns=None)
    node = graph.add("contrast", *sides, type=LossType(), contrast=region)
    assert comparison_of(program(node, graph)) == COMPARISON


@pytest.mark.parametrize("recipe", ["zerovl", "uniclip"])
def test_features_that_are_mixed_or_stand_beside_others_are_compared_as_they_are(recipe):
    assert comparison_of(build(recipe).planned) == COMPARISON


def test_of_several_texts_the_caption_is_compared():
    """The text of the signature's first place, wherever its term stands; of its comparisons the first."""
    terms = "contrast(image, short) + contrast(image, text, sim=tokenmax) + contrast(image, text)"
    for signature, field, by in (
        ("text: Text, short: Text", "text", "tokenmax"),
        ("short: Text, text: Text", "short", "dot"),
    ):
        comparison = comparison_of(build(f"recipe r(image: Image, {signature})\nminimize {terms}").planned)
        assert (comparison.text_field, comparison.parts[0].by) == (field, by)
    assert comparison_of(build("pyramidclip").planned).text_field == "text"


def test_heads_through_which_a_recipe_compares_are_part_of_its_comparison():
    encoders = "encoder a = project(vision, out=6)\nencoder b = predict(project(language, out=5), out=6)"
    source = f"recipe headed(image: Image, text: Text)\n{encoders}\nminimize contrast(a(image), b(text))"
    comparison = comparison_of(build(source).planned)
    assert [head.out for head in comparison.image_heads] == [6]
    assert [head.out for head in comparison.text_heads] == [5, 6]
    assert comparison_of(build("contrast(image, text)").planned).text_heads == ()


def test_a_recipe_of_images_alone_has_no_comparison():
    graph = Graph()
    assert comparison_of(program(judged(compared(graph, ("image", "image")), graph), graph)) is None


def test_which_side_comes_first_tells_the_directions_of_tokenmax_apart():
    torch.manual_seed(0)
    images = EncodedFeatures(tokens=torch.randn(3, 4, 5))
    texts = EncodedFeatures(tokens=torch.randn(2, 6, 5), mask=torch.ones(2, 6, dtype=torch.bool))
    first = Comparison("vision", "language", parts=(Part("tokenmax", "tokens"),))
    second = Comparison("vision", "language", parts=(Part("tokenmax", "tokens", text_first=True),))
    one, other = first(images, texts), second(images, texts)
    assert one.rows.shape == other.rows.shape == (3, 2)
    torch.testing.assert_close(one.rows, other.rows)
    torch.testing.assert_close(one.columns, other.columns)
    assert not torch.allclose(one.rows, one.columns)
