"""What readers of a stream ask of it."""

from __future__ import annotations

import pytest

import vlmdsl
from bundled.objectives import OBJECTIVES
from unit.passes.programs import Build
from vlmdsl.ir import Program, inputs, readings, streams
from vlmdsl.types import LogitsType

TERMS = {
    "pooled": "contrast(image, text, temperature=0.07)",
    "tokens": "contrast(image, text, sim=tokenmax, temperature=0.07)",
    "masked words": "mlm(masked)",
    "masked text": "contrast(image, masked, temperature=0.07)",
    "rewrites": 'contrast(image, rewrite(text, M=2, pick="each"), temperature=0.07)',
    "an edit": "contrast(image, eda(text), temperature=0.07)",
    "one pipeline": 'contrast(augment(image, n=2, pipeline="simclr"), text, temperature=0.07)',
    "another": 'contrast(augment(image, pipeline="slip"), text, temperature=0.07)',
    "a head": "contrast(project(vision)(image), project(language)(text), temperature=0.07)",
    "a predictor": "contrast(predict(project(vision))(image), project(language)(text), temperature=0.07)",
    "a teacher": "contrast(ema(vision, momentum=0.9)(image), text, temperature=0.07)",
    "another tower": 'contrast(separate(vision, name="eye")(image), text, temperature=0.07)',
    "both in a row": "contrast(shared(vision, language)(join(image, text)), text, temperature=0.07)",
    "rendered": "contrast(image, render(text), temperature=0.07)",
}
"""One of each way to read the fields, none of which is to change what another's inputs are called."""


def planned(*terms: str) -> Program:
    written = "\n".join(f"  term_{number}: {term}" for number, term in enumerate(terms))
    header = "recipe named(image: Image, text: Text)\nlet masked = mask(text, random(15%))\n"
    return vlmdsl.compile(f"{header}minimize {{\n{written}\n}}\n", compiled=False).program


def meanings(program: Program) -> dict[str, object]:
    """What every input is: its axes, and the view and encoder that it comes from."""
    meaning_of = {stream.name: (stream.source.operation, stream.encoder) for stream in streams(program)}
    stream_of = {
        stream.input(output): stream.name for stream in streams(program) for output in (*stream.outputs, "mask", "targets")
    }
    return {port.name: (port.axes, port.dtype, meaning_of[stream_of[port.name]]) for port in inputs(program)}


@pytest.mark.parametrize("name", TERMS)
def test_an_input_has_one_name_whatever_else_the_recipe_reads(name: str) -> None:
    alone = meanings(planned(TERMS[name]))
    others = [term for other, term in TERMS.items() if other != name]
    first, last = meanings(planned(TERMS[name], *others)), meanings(planned(*others, TERMS[name]))
    assert alone.items() <= first.items()
    assert first == last


@pytest.mark.parametrize("recipe", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_name_says_what_kind_of_input_it_is(recipe: str) -> None:
    """`_mask` is padding, `_tokens` has a token axis, and so on; a stream's own name is its pooled features."""
    program = vlmdsl.compile(recipe, compiled=False).program
    kinds = {"_tokens": 3, "_mask": 2, "_vocabulary": 3, "_targets": 2, "_states": 3, "_pixels": 4, "_dropped": 2}
    kinds |= {"_words": 3, "boxes": 3, "_replaced": 2, "_embedded": 3}
    kinds |= {"_assignment": 3, "_segments": 2}
    for port in inputs(program):
        if port.name.endswith("_input"):  # what a tower takes
            assert port.axes in (("B", "C", "H", "W"), ("B", "L"))
            continue
        suffix = next((suffix for suffix in kinds if port.name.endswith(suffix)), None)
        assert len(port.axes) == (kinds[suffix] if suffix else min(len(port.axes), 2)), port
        condition = suffix is None and port.axes == ("B",)  # whether a sample's text is its own
        assert condition or (suffix in ("_mask", "_dropped", "_replaced", "_words")) == (port.dtype == "bool")


def test_a_field_keeps_its_name_beside_a_view_that_would_have_it() -> None:
    recipe = """
    recipe mine(image: Image, image_crop: Image, text: Text)
    minimize contrast(crop(image, smallest=0.5), text) + contrast(image_crop, text)
    """
    program = vlmdsl.compile("\n".join(line.strip() for line in recipe.strip().splitlines()), compiled=False).program
    named = {stream.name: stream.source.operation for stream in streams(program)}
    assert named == {"image_crop_2": "crop", "image_crop": "field", "text": "field"}
    assert {reading.name: reading.source.operation for reading in readings(streams(program))} == named


def test_a_vocabulary_that_more_than_the_criterion_reads_is_wanted_everywhere() -> None:
    build = Build()
    loss = build.mlm()
    (stream,) = streams(build.program("masked", loss=loss))
    assert (stream.vocabulary, stream.asked_only) == (True, True)
    stopped = build.add("stop", loss.inputs[0], type=LogitsType())
    (stream,) = streams(build.program("read", loss=loss, other=stopped))
    assert (stream.vocabulary, stream.asked_only) == (True, False)


def test_a_stream_without_a_vocabulary_asks_for_no_token() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    plain = streams(build.program("plain", loss=build.both_ways(matrix, build.paired())))
    assert not any(stream.asked_only for stream in plain)
