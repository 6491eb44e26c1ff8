"""One module of towers and objective: batching of calls, names, frozen towers, and what does not fit."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vlmdsl
from batches import batch_of, scalars
from vlmdsl.api.driver import build
from vlmdsl.backends.torch.naming import passed_names
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Encoder, Graph, Program, Term, inputs, streams
from vlmdsl.planning import applied_of, schedule_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.model.tower_needs import tower_needs
from vlmdsl.runtime.modules.towers import (
    GroupingConfig,
    GroupingTransformer,
    SharedConfig,
    SharedTransformer,
    TextConfig,
    TextTransformer,
    VisionConfig,
    VisionTransformer,
)
from vlmdsl.runtime.values import ImageBatch, ImageFormat, KeptPatches, RegionBatch, TextBatch, port
from vlmdsl.types import FieldType


class RecordingObjective(nn.Module):
    """Keeps what it is called with; its loss is the sum of all features."""

    def __init__(self, program):
        super().__init__()
        self.program, self.streams = program, streams(program)
        self.schedule = schedule_of(program)
        self.passed = passed_names(program, self.schedule)
        self.applied, self.module_outputs, self.predicts = (), [], False
        self.outputs = {stream.encode: applied_of(stream.encode) for stream in self.streams}
        self.references = SimpleNamespace(columns=[])
        self.compared = [(self.streams[0].name, stream.name) for stream in self.streams[1:]]
        self.inputs = {port.name: port for port in inputs(program)}

    def forward(self, **features):
        self.given = features
        return SimpleNamespace(loss=sum(value.sum() for value in features.values() if value.is_floating_point()))


def program_of(*streams, plain=()):
    """A program that reads outputs of fields: (name, kind, tower, frozen, pooled, tokens) each; and plain fields."""
    graph = Graph()
    nodes = []
    for name, kind, tower, frozen, pooled, tokens in streams:
        field = graph.add("field", type=FieldType(kind), name=name)
        encode = graph.add("encode", field, encoder=Encoder(tower, kind, frozen))
        nodes += [graph.add(output, encode) for output, read in (("pooled", pooled), ("tokens", tokens)) if read]
    nodes += [graph.add("field", type=FieldType(kind), name=name) for name, kind in plain]
    return Program("recorded", graph, tuple(Term(f"term{number}", node) for number, node in enumerate(nodes)))


def vision(yields=("pooled",), dimension=8):
    config = VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2)
    return VisionTransformer(config, dimension, yields).double()


def language(yields=("pooled",), dimension=8, causal=False):
    config = TextConfig(width=16, depth=2, heads=2, vocabulary_size=30, text_length=9, causal=causal)
    return TextTransformer(config, dimension, yields).double()


def images(count=3):
    return ImageBatch(torch.randn(count, 3, 8, 8, dtype=torch.float64))


def texts(length, count=3):
    lengths = torch.arange(count) % length + 1
    return TextBatch(torch.randint(1, 30, (count, length)), torch.arange(length) < lengths[:, None])


IMAGE = ("image", "Image", "vision", False, True, False)
TEXT = ("text", "Text", "language", False, True, False)


def test_several_streams_of_a_tower_are_one_call_with_the_numbers_of_separate_ones():
    both = ("pooled", "tokens")
    objective = RecordingObjective(
        program_of(
            IMAGE, ("text", "Text", "language", False, True, True), ("caption", "Text", "language", False, False, True)
        )
    )
    towers = {"vision": vision(), "language": language(both)}
    model = VisionLanguageModel(towers, objective)
    calls = []
    towers["language"].register_forward_hook(lambda *_: calls.append(1))
    batch = batch_of({"image": images(), "text": texts(5), "caption": texts(7)}, "abc")
    model(batch)
    assert len(calls) == 1
    features = objective.given
    text, caption = (towers["language"](*batch.values[name]) for name in ("text", "caption"))
    assert set(features) == {"image", "text", "text_tokens", "text_mask", "caption_tokens", "caption_mask"}
    torch.testing.assert_close(features["text"], text.pooled)
    assert features["text_tokens"].shape == text.tokens.shape
    torch.testing.assert_close(features["text_tokens"][features["text_mask"]], text.tokens[text.mask])
    torch.testing.assert_close(features["caption_tokens"][features["caption_mask"]], caption.tokens[caption.mask])
    assert features["text_mask"].equal(batch.values["text"].mask)


def test_only_the_plain_fields_that_the_objective_reads_reach_it():
    objective = RecordingObjective(program_of(IMAGE, TEXT, plain=[("label", "Label")]))
    model = VisionLanguageModel({"vision": vision(), "language": language()}, objective)
    fields = scalars(label=torch.tensor([0, 1, 1]), unread=torch.ones(3))
    model(batch_of({"image": images(), "text": texts(5), **fields}, "abc"))
    assert set(objective.given) == {"image", "text", "label"}


def test_a_frozen_tower_takes_no_gradient_and_stays_in_evaluation_mode():
    frozen = ("image", "Image", "vision", True, True, False)
    model = VisionLanguageModel(
        {"vision": vision(), "language": language()}, RecordingObjective(program_of(frozen, TEXT))
    ).train()
    assert not model.encoders["vision"].training
    assert model.encoders["language"].training
    model(batch_of({"image": images(), "text": texts(5)}, "abc")).loss.backward()
    assert model.objective.given["image"].requires_grad is False
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.encoders["vision"].parameters())
    assert all(parameter.grad is not None for parameter in model.encoders["language"].parameters())


def test_a_tower_used_with_and_without_gradient_is_trained_by_the_one_stream_only():
    objective = RecordingObjective(program_of(TEXT, ("caption", "Text", "language", True, True, False)))
    assert tower_needs(objective.streams)["language"].frozen is False
    model = VisionLanguageModel({"language": language()}, objective)
    model(batch_of({"text": texts(5), "caption": texts(5)}, "abc"))
    assert objective.given["text"].requires_grad
    assert not objective.given["caption"].requires_grad


@pytest.mark.parametrize(
    ("towers", "words"),
    [
        ({"vision": vision()}, "`language` has no encoder"),
        ({"vision": language(), "language": language()}, "takes texts"),
        (
            {"vision": vision(), "language": language(("tokens",))},
            "must yield pooled features, but its encoder yields tokens",
        ),
        ({"vision": vision(dimension=4), "language": language()}, "`image` 4, `text` 8"),
        ({"vision": vision(), "language": language(), "teacher": vision()}, "`teacher` is used by no term"),
    ],
)
def test_towers_that_do_not_fit_are_a_diagnostic(towers, words):
    with pytest.raises(DiagnosticError, match="V0832") as caught:
        VisionLanguageModel(towers, RecordingObjective(program_of(IMAGE, TEXT)))
    assert words in caught.value.diagnostics[0].message


def test_towers_run_in_bfloat16_under_autocast():
    objective = RecordingObjective(program_of(IMAGE, TEXT))
    model = VisionLanguageModel({"vision": vision().float(), "language": language().float()}, objective)
    batch = batch_of({"image": ImageBatch(torch.randn(3, 3, 8, 8)), "text": texts(5)}, "abc")
    with torch.autocast("cpu", torch.bfloat16):
        model(batch)
    assert {value.dtype for value in objective.given.values()} == {torch.bfloat16}


def test_joined_streams_are_one_call_on_the_values_of_their_halves():
    recipe = (
        "recipe pairs(image: Image, text: Text, caption: Text)\nencoder one = shared(vision, language)\n"
        "minimize contrast(one(join(image, text)), one(join(image, caption)), sim=tokenmean)\n"
    )
    config = VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2)
    tower = SharedTransformer(SharedConfig(config, vocabulary_size=30, text_length=9), 8, ("tokens",)).double()
    objective = RecordingObjective(build(recipe).planned)
    model = VisionLanguageModel({"shared": tower}, objective)
    assert {reading.source.string("name") for reading in model.readings} == {"image", "text", "caption"}
    values = {"image": images(), "text": texts(5), "caption": texts(7)}
    calls = []
    tower.register_forward_hook(lambda *_: calls.append(1))
    model(batch_of({reading.name: values[reading.source.string("name")] for reading in model.readings}, "abc"))
    assert len(calls) == 1
    for name, words in (("image_text_shared", values["text"]), ("image_caption_shared", values["caption"])):
        alone = tower(values["image"].pixels, words.mask, words.ids)
        assert torch.equal(objective.given[f"{name}_mask"], alone.mask)
        torch.testing.assert_close(objective.given[f"{name}_tokens"], alone.tokens, rtol=1e-12, atol=1e-12)


def test_blended_streams_get_the_draw_of_the_step_that_the_loss_reads_too():
    recipe = (
        "recipe pairs(image: Image, text: Text)\nencoder one = shared(vision, language)\nlet lam = beta(1, 1)\n"
        "let both = contrast(one(blend(image, text, by=lam)), one(blend(image, text, by=1 - lam)), sim=cosine)\n"
        "minimize both + lam * contrast(one(join(image, text)), one(text))\n"
    )
    config = VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2)
    tower = SharedTransformer(SharedConfig(config, vocabulary_size=30, text_length=9), 8, ("pooled",)).double()
    model = VisionLanguageModel({"shared": tower}, vlmdsl.compile(recipe, compiled=False).double())
    calls, values = [], {"image": images(), "text": texts(5)}
    names = {reading.name: values[reading.source.string("name")] for reading in model.readings}
    tower.register_forward_hook(lambda *_: calls.append(1))
    batch = batch_of(names, "abc", {"lam": torch.tensor(0.3, dtype=torch.float64)})
    shares = {"image_text_blend_shared": 0.3, "image_text_blend_2_shared": 0.7}
    loss = model(batch).loss
    assert len(calls) == 3  # texts, blended pairs, joined ones
    pair = values["image"].pixels, values["text"].mask, values["text"].ids
    of_each = [torch.full((3,), share, dtype=torch.float64) for share in (0.3, 0.7)]
    features = {name: tower(*pair, share).pooled for name, share in zip(shares, of_each, strict=True)}
    features |= {
        "image_text_shared": tower(*pair).pooled,
        "text_shared": tower(*values["text"]).pooled,
    }
    torch.testing.assert_close(loss, model.objective(**features, lam=batch.draws["lam"]).loss, rtol=1e-9, atol=1e-12)


def planned(expression):
    return build(expression, expression=True).planned


def viewed_batch(names, side=None, kept=None):
    """Images of a side each, with so many patches kept, and a text."""
    values = {}
    for name in names:
        size = 8 if side is None else side[name]
        values[name] = ImageBatch(torch.randn(3, 3, size, size, dtype=torch.float64))
        if kept is not None:
            values[port(name, "keep")] = KeptPatches(torch.rand(3, (size // 4) ** 2).argsort(1)[:, : kept[name]])
    return batch_of({**values, "text": texts(5)}, "abc")


def test_crops_of_one_size_are_one_call_of_the_tower():
    objective = RecordingObjective(planned("contrast(multi_crop(image, n=2, small=2, small_side=50%), text)"))
    towers = {"vision": vision(), "language": language()}
    sides = {f"image_crop_{view}": 8 if view < 2 else 4 for view in range(4)}
    batch = viewed_batch(sides, side=sides)
    calls = []
    hook = towers["vision"].register_forward_pre_hook(lambda _, args: calls.append(args[0].shape))
    VisionLanguageModel(towers, objective)(batch)
    hook.remove()
    assert sorted(tuple(call) for call in calls) == [(6, 3, 4, 4), (6, 3, 8, 8)]
    for name in sides:
        torch.testing.assert_close(objective.given[name], towers["vision"](*batch.values[name]).pooled)


def test_dropped_patches_of_several_streams_are_dropped_in_one_call():
    objective = RecordingObjective(planned("contrast(drop(augment(image, n=2), share=50%), text)"))
    towers = {"vision": vision(), "language": language()}
    names = [f"image_augment_crop_{view}_drop" for view in (0, 1)]
    batch = viewed_batch(names, kept=dict.fromkeys(names, 2))
    VisionLanguageModel(towers, objective)(batch)
    for name in names:
        (pixels,), (places,) = batch.values[name], batch.values[port(name, "keep")]
        torch.testing.assert_close(objective.given[name], towers["vision"](pixels, keep=places).pooled)
        assert not torch.allclose(objective.given[name], towers["vision"](pixels).pooled)


class OneSize(VisionTransformer):
    """Takes images of one size with patches dropped."""

    def __init__(self):
        super().__init__(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, ("pooled",))
        self.image_format = ImageFormat(8, patch=4, resizable=False)


class WholeImages(VisionTransformer):
    """Takes images of one size, as pretrained towers do."""

    def __init__(self):
        super().__init__(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, ("pooled",))
        self.image_format = ImageFormat(8)


@pytest.mark.parametrize(
    ("view", "tower", "words"),
    [
        ("drop(image)", WholeImages, "dropped patches"),
        ("multi_crop(image)", WholeImages, "smaller crops"),
        ("multi_crop(image)", OneSize, "smaller crops, but its encoder supports images of one size"),
        ("drop(image, share=80%)", vision, "sees 4 patches per image, of which `drop` leaves none"),
        ("drop(drop(image, share=50%), share=60%)", vision, "leaves none"),
        ("drop(multi_crop(image, n=1, small=1, small_side=50%))", vision, "sees 1 patches per image"),
    ],
)
def test_views_that_a_tower_cannot_take_are_a_diagnostic(view, tower, words):
    objective = RecordingObjective(planned(f"contrast({view}, text)"))
    with pytest.raises(DiagnosticError, match=words) as caught:
        VisionLanguageModel({"vision": tower(), "language": language()}, objective)
    assert caught.value.diagnostics[0].code == "V0832"


@pytest.mark.parametrize("boxes", ["regions(image, boxes)", "image"])
def test_groups_of_patches_are_at_no_place_of_an_image(boxes):
    """Even where there are as many groups as patches of a square grid."""
    tower = GroupingTransformer(GroupingConfig(image_size=8, patch_size=4, width=16, depths=(1, 1), heads=2, groups=(4,)), 8)
    at = ", at=atss(image, boxes)" if boxes == "image" else ""
    recipe = f"""recipe named(image: Image, phrases: Phrases, boxes: Boxes)
let words = language(text_of(phrases))
minimize focal(alignment({boxes}, words), word_map(words, boxes{at}))
"""
    towers = {"vision": tower, "language": language(("tokens",))}
    with pytest.raises(DiagnosticError, match="its tokens are groups of patches") as caught:
        VisionLanguageModel(towers, RecordingObjective(build(recipe).planned))
    assert caught.value.diagnostics[0].code == "V0832"


def test_towers_of_whole_images_take_crops_of_one_size():
    objective = RecordingObjective(planned("contrast(multi_crop(image, n=1, small=1, small_side=1), text)"))
    towers, names = {"vision": WholeImages().double(), "language": language()}, ["image_crop_0", "image_crop_1"]
    batch = viewed_batch(names)
    VisionLanguageModel(towers, objective)(batch)
    for name in names:
        torch.testing.assert_close(objective.given[name], towers["vision"](*batch.values[name]).pooled)


class TestRegions:
    @staticmethod
    def tower(pool="class", depth=4):
        config = VisionConfig(image_size=8, patch_size=4, width=16, depth=depth, heads=2, pool=pool)
        torch.manual_seed(0)
        return VisionTransformer(config, 8, ("pooled", "tokens"), region_length=5).double()

    @pytest.mark.parametrize("pool", ["class", "mean"])
    def test_padding_and_order_change_nothing(self, pool):
        tower, regions = self.tower(pool), torch.randn(2, 3, 5, dtype=torch.float64)
        mask = torch.tensor([[True, True, False], [True, True, True]])
        other = torch.where(mask[:, :, None], regions, 7.0)
        order = torch.tensor([1, 0, 2])
        pooled = tower(regions, mask, enters=0.75).pooled
        torch.testing.assert_close(pooled, tower(other, mask, enters=0.75).pooled)
        torch.testing.assert_close(pooled, tower(regions[:, order], mask[:, order], enters=0.75).pooled)

    @pytest.mark.parametrize("pool", ["class", "mean"])
    def test_padding_that_is_not_a_number_changes_no_bit_of_a_gradient(self, pool):
        """Nor does an image without any region, which has a finite feature."""
        tower, regions = self.tower(pool), torch.randn(3, 3, 5, dtype=torch.float64)
        mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
        gradients = []
        for fill in (0.5, float("nan"), float("inf")):
            tower.zero_grad()
            features = tower(regions.masked_fill(~mask[:, :, None], fill), mask, enters=0.75)
            features.pooled.square().sum().backward()
            gradients.append([weight.grad.clone() for weight in tower.parameters() if weight.grad is not None])
        assert all(gradient.isfinite().all() for gradient in gradients[0])
        for others in gradients[1:]:
            assert all(torch.equal(one, other) for one, other in zip(gradients[0], others, strict=True))

    def test_only_the_last_blocks_read_regions(self):
        tower, regions = self.tower(), torch.randn(2, 3, 5, dtype=torch.float64)
        features = tower(regions, enters=0.75)
        (features.pooled.sum() + features.tokens.sum()).backward()
        read = [block.feed_forward.hidden.weight.grad is not None for block in tower.transformer.blocks]
        assert read == [False, False, False, True]
        assert tower.region_stem.weight.grad is not None
        assert next(tower.stem.parameters()).grad is None

    def test_a_recipe_enters_the_tower_of_its_images(self):
        text = """
        recipe regional(regions: Regions, image: Image, text: Text)
        encoder late = enter(vision, after=75%)
        minimize contrast(late(regions), text) + contrast(image, text)
        """
        objective = RecordingObjective(build("\n".join(line.strip() for line in text.splitlines())).planned)
        need = tower_needs(objective.streams)["vision"]
        assert (need.kind, need.takes) == ("Image", {"Image", "Regions"})
        towers = {"vision": self.tower(), "language": language()}
        model = VisionLanguageModel(towers, objective)
        regions, mask = torch.randn(2, 3, 5, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
        words = TextBatch(torch.tensor([[1, 2], [3, 4]]), torch.ones(2, 2, dtype=torch.bool))
        images = ImageBatch(torch.randn(2, 3, 8, 8, dtype=torch.float64))
        model(batch_of({"regions": RegionBatch(regions, mask), "image": images, "text": words}, "ab"))
        torch.testing.assert_close(objective.given["regions"], towers["vision"](regions, mask, enters=0.75).pooled)


KEPT = """recipe kept(image: Image, text: Text)
encoder other = separate(vision, name="other")
let images = queue(stop(image), size=4)
let kept = queue(image, size=4, keep="inputs")
let wrong = mine(unite(similarity(text, image), similarity(text, images)), along="rows")
minimize mean(softplus(score(text, other(take(image, wrong, queue=kept))) - score(text, image)))
"""


@pytest.mark.parametrize("size", [8, 16])
def test_what_a_queue_keeps_is_taken_in_one_form(size):
    towers = {"vision": vision(), "other": vision(), "language": language()}
    towers["vision"].image_format, towers["other"].image_format = ImageFormat(8), ImageFormat(size)
    objective = vlmdsl.compile(KEPT, compiled=False)
    if size == 8:
        assert [reading.name for reading in VisionLanguageModel(towers, objective).readings] == ["text", "image"]
        return
    with pytest.raises(DiagnosticError, match="takes what a queue of inputs keeps in another form than `other`") as caught:
        VisionLanguageModel(towers, objective)
    assert caught.value.diagnostics[0].code == "V0832"
