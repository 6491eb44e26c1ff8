"""Texts that a decoder of an earlier stage has written: in the run folder, in batches, after a resume; what is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl.api.data import convert_data
from vlmdsl.api.plan import plan_flows
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Writing, readings, streams
from vlmdsl.runtime.data import Materials, map_fields, open_source, requirements
from vlmdsl.runtime.data.sample import Loaded, SampleReader
from vlmdsl.runtime.data.views import view_of
from vlmdsl.runtime.data.written import TextsWriter, WrittenTexts

RECIPE = Path(__file__).parent / "recipes" / "written.vlo"
SAMPLES, BEFORE, WHOLE = 21, 16, 20
DATA = f"shapes:samples={SAMPLES},size=16"
COLUMNS = {"hint": "template(source)", "text": "caption"}


def train(run: Path, data: str = DATA, **settings: object) -> None:
    own = {"stages.pairs.train.steps": 2, "stages.captions.train.steps": BEFORE - 2, "evaluation.batch": 8}
    own |= {"stages.captions.optimizer.learning_rate": 3e-2, "train.checkpoint_every": 2, "train.keep": WHOLE}
    vlmdsl.train(RECIPE, data=[data], map=COLUMNS, settings=SETTINGS | own | settings, steps=WHOLE - BEFORE, out=run)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "run"
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        train(folder)
    return folder


def texts_of(run: Path) -> list[str]:
    return [json.loads(line) for line in (run / "written" / "enriched-1.jsonl").read_text().splitlines()]


def test_the_decoder_of_the_stage_that_trained_it_writes_of_every_sample(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    texts = texts_of(run)
    assert len(texts) == SAMPLES
    assert all(texts)
    # A run that ends with that stage captions its images with the same weights.
    ended = run.parent / "ended"
    recipe = RECIPE.read_text().partition("stage enriched")[0].replace("stage pairs", "stage first")
    recipe = recipe.replace("stage captions", "stage captions from first").replace("recipe written_captions", "recipe ended")
    source = open_source((DATA,))
    settings = SETTINGS | {"stages.first.train.steps": 1, "model.init": str(run)}  # with its tokenizer
    vlmdsl.train(recipe, data=[DATA], map=COLUMNS, steps=1, out=ended, settings=settings)
    end = run / "stages" / "captions" / f"step-{BEFORE:08d}"
    model = vlmdsl.load(ended)
    weights = load_file(end / "model.safetensors")
    model.model.load_state_dict({name: weights[name] for name in model.model.state_dict()})
    hints = {str(source[place]["source"]) for place in range(SAMPLES)}
    images = [source[place]["image"] for place in range(SAMPLES)]
    captions = {hint: model.caption(images, prompt=f"a picture of {hint}") for hint in hints}
    assert texts == [captions[str(source[place]["source"])][place] for place in range(SAMPLES)]


def test_a_run_that_resumes_after_the_writing_is_the_same(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for step in range(BEFORE + 2, WHOLE + 1, 2):
        shutil.rmtree(copy / "checkpoints" / f"step-{step:08d}")
    (copy / "written" / "enriched-1.jsonl").write_text('"a text that nobody wrote"\n' * SAMPLES)
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        vlmdsl.train(resume=copy)
    assert texts_of(copy) == texts_of(run)  # what was not as it was is written again
    for name in ("model.safetensors", "optimizer.safetensors"):
        end = Path("checkpoints") / f"step-{WHOLE:08d}" / name
        assert (copy / end).read_bytes() == (run / end).read_bytes()


@pytest.mark.parametrize(("share", "expected"), [(1.0, {"written"}), (0.5, {"written", "own"})])
def test_a_sample_has_its_written_text_with_the_probability_asked_for(share: float, expected: set[str]) -> None:
    program = vlmdsl.compile(RECIPE, stage="enriched", share=share, compiled=False).program
    source = open_source((DATA,))
    mapping = map_fields(source, requirements(program), {"hint": "clean_text"})
    (node,) = (
        reading.source for reading in readings(streams(program), lambda encoder, node: None) if "text" in reading.name
    )
    written = {
        Writing("text", "captioner", "image", "hint", 1): [f"text {place}" if place else "" for place in range(SAMPLES)]
    }
    reader = SampleReader(source, mapping, {"text": Loaded(view_of(node))}, materials=Materials(written=written))
    counts = Counter[str]()
    texts = [reader.read(place, 0, counts).values["text"].text for place in range(SAMPLES)]
    own = [str(source[place]["text"]) for place in range(SAMPLES)]
    kinds = {place: "own" if text == own[place] else "written" for place, text in enumerate(texts)}
    assert texts[0] == own[0], "nothing was written of it"
    assert all(texts[place] == f"text {place}" for place, kind in kinds.items() if kind == "written")
    assert {kinds[place] for place in range(1, SAMPLES)} == expected
    assert [reader.read(place, 0, counts).values["text"].text for place in range(SAMPLES)] == texts
    alone = SampleReader(source, mapping, {"text": Loaded(view_of(node))})
    assert alone.read(3, 0, counts).values["text"].text == own[3]


def test_a_file_of_texts_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    with suppress(KeyboardInterrupt), TextsWriter(path) as file:
        file.add([(0, "a")])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    outside = tmp_path / "outside"
    outside.touch()
    path.symlink_to(outside)
    path.with_name(f".partial-{os.getpid()}-{path.name}").symlink_to(outside)
    with TextsWriter(path) as file:
        file.add([(1, "zwei\nZeilen"), (2, "ü")])
        file.finish(4)
    assert (path.is_symlink(), outside.read_bytes()) == (False, b""), "no link is written through"
    assert list(WrittenTexts(path, 4)) == ["", "zwei\nZeilen", "ü", ""]
    for content in ('"a"\n"b"\n', '"a"\n"b"\n"c"\n"d"'):
        path.write_text(content)
        with pytest.raises(DiagnosticError, match=r"texts for|no end"):
            WrittenTexts(path, 4)


def test_plan_and_formula_say_what_is_written() -> None:
    (plan,) = [own for built, own in plan_flows(RECIPE).flows if built.stage.name == "enriched"]
    assert plan.schedule.written == ("text by captioner",)
    assert "of all samples, before the first step" in plan.to_text()
    assert {row.module for row in plan.calls} == {"vision", "language"}
    formula = str(vlmdsl.explain(str(RECIPE), knobs={"share": 0.5}))
    assert (
        "or with a probability of 50 % what captioner of an earlier stage has written of its image after its hint" in formula
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("written(text | image)", "V0301"),
        ("written(captioner(text))", "V0405"),
        ("written(captioner(swap(text), image))", "V0405"),
        ("written(captioner(text, image), share=0)", "V0405"),
        ("written(captioner(text, image, prefix=text))", "V0524"),
    ],
)
def test_what_cannot_be_written_is_refused(text: str, code: str) -> None:
    recipe = (
        "vlo 1\nrecipe mine(image: Image, text: Text)\nencoder captioner = text_decoder(depth=2)\n"
        "stage first {\n  minimize next_token(linear(captioner(text, image)), text)\n}\n"
        f"stage second from first {{\n  minimize contrast(image, {text})\n}}\n"
    )
    with pytest.raises(DiagnosticError) as refused:
        vlmdsl.compile(recipe, stage="second", compiled=False)
    assert {diagnostic.code for diagnostic in refused.value.diagnostics} == {code}


def test_a_stream_has_no_place_for_written_texts(tmp_path: Path) -> None:
    convert_data(DATA, tmp_path / "shards")
    with pytest.raises(DiagnosticError, match="a decoder writes a text for each sample"):
        train(tmp_path / "run", str(tmp_path / "shards"), **{"data.stream": True})


def test_stages_by_themselves_take_the_own_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    learned = vlmdsl.overfit(RECIPE, data=[DATA], map=COLUMNS, samples=4, settings=SETTINGS | {"train.steps": 2})
    assert [stage.stage for stage in learned.stages] == ["pairs", "captions", "enriched"]
    assert math.isfinite(learned.stages[2].terms["contrast"].last)
