"""Stages with images and texts of their own sizes: the towers are those of the run, and all that follows from a size follows
it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.tracking import read_metrics
from vlmdsl.runtime.training import measuring
from vlmdsl.runtime.training.checkpoint import AS_TRAINED
from vlmdsl.runtime.training.stages import BegunStage
from vlmdsl.runtime.values import ImageBatch, ImageFormat, TextBatch, TextFormat

STAGES = Path(__file__).parent / "recipes" / "two_stages.vlo"
SETTINGS: dict[str, object] = {
    "train.batch": 8,
    "train.compile": False,
    "tracking.report": False,
    "train.checkpoint_every": 1,
    "train.keep": 20,
    "evaluation.limit": 16,
}


def train(recipe: str | Path, out: Path, steps: int = 2, **options: Any) -> vlmdsl.RunResult:
    own = SETTINGS | options.pop("settings", {})
    return vlmdsl.train(recipe, data="shapes:samples=40,objects=2", steps=steps, out=out, settings=own, **options)


def size_of(trainer: Any) -> int:
    form = trainer.model.form("vision", "Image")
    assert isinstance(form, ImageFormat)
    return form.size


def length_of(trainer: Any) -> int:
    form = trainer.model.form("language", "Text")
    assert isinstance(form, TextFormat)
    return form.length


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step:08d}"
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[int]]]:
    """A run whose second stage has smaller images and whose first has larger ones and shorter texts than its towers are for,
    and the sides of the images and the lengths of the texts in the batches of each."""
    seen: dict[str, set[int]] = {}
    begin = BegunStage.train

    def watched(self: BegunStage, signals: Any) -> None:
        def note(_: object, arguments: tuple[Any, ...]) -> None:
            values = arguments[0].values.values()
            for kind, own in ((ImageBatch, "pixels"), (TextBatch, "ids")):
                sizes = {getattr(value, own).shape[-1] for value in values if isinstance(value, kind)}
                seen.setdefault(f"{self.stage.name}: {own}", set()).update(sizes)

        handle = self.model.register_forward_pre_hook(note)
        begin(self, signals)
        handle.remove()

    settings = {"stages.warm.model.image_size": 40, "stages.main.model.image_size": 16, "stages.warm.model.text_length": 12}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(BegunStage, "train", lambda self, signals: watched(self, signals))
        run = train(STAGES, tmp_path_factory.mktemp("sizes") / "run", settings=settings)
    return run.folder, seen


def test_each_stage_is_trained_and_measured_at_its_size(staged: tuple[Path, dict[str, set[int]]]) -> None:
    run, _ = staged
    results = json.loads((run / "evaluation.json").read_text())
    conditions = [own["conditions"] for own in (results["stages"]["warm"], results)]
    assert [(own["image_size"], own.get("text_length")) for own in conditions] == [(40, 12), (16, None)]
    loaded = [vlmdsl.load(run / "checkpoints" / f"step-{step:08d}") for step in (2, 4)]
    assert [(size_of(own), length_of(own)) for own in loaded] == [(40, 12), (16, 32)]
    assert vlmdsl.load(run).encode_image(torch.zeros(3, 50, 70)).shape == (1, 64)
    assert vlmdsl.evaluate(run).evaluation == results


def test_batches_have_images_of_that_size(staged: tuple[Path, dict[str, set[int]]]) -> None:
    assert staged[1] == {"warm: pixels": {40}, "warm: ids": {12}, "main: pixels": {16}, "main: ids": {32}}


def test_a_resumed_run_is_the_same(staged: tuple[Path, dict[str, set[int]]], tmp_path: Path) -> None:
    run, _ = staged
    for step in (1, 2, 3):
        copy = tmp_path / str(step)
        shutil.copytree(run, copy)
        for later in range(step + 1, 5):
            shutil.rmtree(copy / "checkpoints" / f"step-{later:08d}")
        again = vlmdsl.train(resume=copy)
        assert again.evaluation == json.loads((run / "evaluation.json").read_text()), step
        first, second = tensors(run, 4), tensors(copy, 4)
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == [], step


def test_another_size_cannot_be_resumed_and_is_measured_by_itself(
    staged: tuple[Path, dict[str, set[int]]], tmp_path: Path
) -> None:
    with pytest.raises(DiagnosticError, match="stages"):
        vlmdsl.train(resume=staged[0], settings={"stages.main.model.image_size": 24})
    copy = shutil.copytree(staged[0], tmp_path / "run")
    with pytest.raises(DiagnosticError, match=r"`encoders.language.positions` is float32 \[32, 64\] there") as caught:
        vlmdsl.evaluate(copy, overrides=["model.text_length=14"])
    assert caught.value.diagnostics[0].help == (AS_TRAINED,)
    shorter = vlmdsl.evaluate(copy, overrides=["stages.main.model.text_length=14"]).evaluation
    assert shorter["conditions"]["text_length"] == 14
    larger = vlmdsl.evaluate(copy, overrides=["stages.main.model.image_size=64"]).evaluation
    assert larger["conditions"]["image_size"] == 64


def test_what_is_measured_at_another_size_says_so_and_has_an_untrained_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("clip", tmp_path / "run").folder
    reused, look = list[bool](), measuring.known_untrained

    def lookup(*arguments: Any) -> Any:
        results = look(*arguments)
        reused.append(results is not None)
        return results

    monkeypatch.setattr(measuring, "known_untrained", lookup)
    larger = vlmdsl.evaluate(run, overrides=["model.image_size=64"]).evaluation
    assert larger["conditions"]["image_size"] == 64
    assert "image_size" not in vlmdsl.evaluate(run).evaluation["conditions"]
    assert reused == [False, True], "that of the run is in its `untrained.json`"


@pytest.mark.parametrize("size", ["60", "4"])
def test_a_size_that_cannot_be_is_refused_before_anything_is_trained(size: str, tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as caught:
        train(STAGES, tmp_path / "run", settings={"stages.main.model.image_size": int(size)})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.message) == (
        "V0831",
        f"the encoder `vit:tiny` cuts images into patches of 8 pixels, which do not fill {size}",
    )
    assert fault.help == (f"set `stages.main.model.image_size={64 if size == '60' else 8}`",)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("length", "message", "help"),
    [
        (
            33,
            "takes texts of at most 32 tokens, not 33",
            "`model.text_length=33`: towers are built for the longest texts of a run",
        ),
        (
            2,
            "takes texts of at least 3 tokens, not 2: its tokenizer adds 2 special tokens",
            "`stages.main.model.text_length=3` or more",
        ),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_anything_is_trained(
    length: int, message: str, help: str, tmp_path: Path
) -> None:
    with pytest.raises(DiagnosticError) as caught:
        train(STAGES, tmp_path / "run", settings={"stages.main.model.text_length": length})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.message, fault.help) == (
        "V0831",
        f"the encoder `transformer:tiny` {message}",
        (f"set {help}",),
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("texts.model.image_size", "resizes no images: the stage `texts` encodes none"),
        ("images.model.text_length", "shortens no texts: the stage `images` encodes none"),
    ],
)
def test_of_a_stage_without_images_or_texts_there_is_no_size(setting: str, message: str, tmp_path: Path) -> None:
    recipe = """vlo 1
recipe words(image: Image, text: Text)
stage pairs { minimize contrast(image, text) }
stage texts from pairs { minimize mlm(mask(text, random(15%))) }
stage images from pairs { minimize contrast(augment(image, pipeline="simclr"), image) }
"""
    with pytest.raises(DiagnosticError) as caught:
        train(recipe, tmp_path / "run", settings={f"stages.{setting}": 16})
    assert [fault.message for fault in caught.value.diagnostics] == [f"`stages.{setting}` {message}"]


def test_shorter_texts_are_the_same_where_only_padding_is_left_out(tmp_path: Path) -> None:
    """Captions of two objects have nine tokens at most, so that all are whole."""
    losses = {}
    for length in (9, 32):
        own = {"data.map": {"text": "caption"}, "train.log_every": 1, "stages.warm.model.text_length": length}
        run = train(STAGES, tmp_path / str(length), settings=own).folder
        losses[length] = [record["loss"] for record in read_metrics(run / "metrics.jsonl")]
    assert losses[9] == pytest.approx(losses[32], rel=1e-4)
    assert len(losses[9]) == 4


def test_what_is_cut_is_said_with_the_setting_of_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(STAGES, tmp_path / "run", settings={"stages.warm.model.text_length": 6})
    assert "truncated to 6 tokens; `stages.warm.model.text_length=" in capsys.readouterr().err


DECODED = """vlo 1
recipe restored(image: Image)
let hidden = random(50%)
let small = reconstruct(decode(drop(image, hidden), depth=1, width=32, heads=2), pixels(image), at=hidden)
stage first { minimize small }
stage second from first { minimize small }
"""
CODES = """vlo 1
recipe tokens(image: Image)
encoder tokenizer = codebook(size=16, side=50%)
let hidden = blocks(30%, smallest=10%, aspect=0.3)
let guessed = token_loss(linear(mask(image, hidden), size=16), codes(image, by=tokenizer), at=hidden)
stage first { minimize guessed }
stage second from first { minimize guessed }
"""
GROUPS = """vlo 1
recipe groups(image: Image, text: Text, superpixels: Segments)
let tau = learned(0.07, max_scale=100)
stage first { minimize contrast(image, text, temperature=tau) }
stage second from first {
  let all = assignment(image)
  minimize {
    contrast: contrast(image, text, temperature=tau)
    superpixels: assignment_divergence(all, segment_mean(all, superpixels))
  }
}
"""
CROPS = """vlo 1
recipe crops(image: Image, text: Text)
let crops = contrast(multi_crop(image, n=1, small=1, small_side=50%), text, temperature=0.1)
stage first { minimize crops }
stage second from first { minimize crops }
"""
GROUPING = {"data.map": {"superpixels": "superpixels(image)"}}
RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "decoded pixels": (DECODED, {"model.image_encoder": "vit:tiny_patch4"}),
    "codes of patches": (CODES, {"model.image_encoder": "vit:tiny_patch4"}),
    "centres": (GROUPS, {"model.image_encoder": "segclip:tiny", **GROUPING}),
    "groups": (GROUPS, {"model.image_encoder": "groupvit:tiny", **GROUPING}),
    "small crops": (CROPS, {}),
}


@pytest.mark.parametrize("what", RECIPES)
def test_what_goes_by_patches_follows(what: str, tmp_path: Path) -> None:
    """The second stage reads larger images with the weights of the first, which are of the same form."""
    if "Segments" in RECIPES[what][0]:
        pytest.importorskip("skimage", reason="the extra `superpixels` is not installed")
    recipe, settings = RECIPES[what]
    run = train(recipe, tmp_path / "run", steps=1, settings=settings | {"stages.second.model.image_size": 48}).folder
    first, second = (tensors(run, step) for step in (1, 2))
    shared = [name for name in first if name.startswith("encoders.") and name in second]
    assert shared
    assert all(first[name].shape == second[name].shape for name in shared)
    assert size_of(vlmdsl.load(run)) == 48


@pytest.mark.parametrize("recipe", ["pali", "fiber"])
def test_the_recipes_that_promise_it(recipe: str, tmp_path: Path) -> None:
    small = {"depth": 2, "heads": 2}
    knobs = {
        "pali": {**small, "width": 64},
        "fiber": {**small, "size": 8, "out": 64, "region_features": 64, "negatives": 6, "scale": 3},
    }
    stage = {"pali": "all", "fiber": "fine"}[recipe]
    settings: dict[str, object] = {f"stages.{stage}.model.image_size": 64, "evaluation.captions": 4}
    if recipe == "fiber":
        settings["stages.coarse.model.text_length"] = 16
    if recipe == "pali":
        settings["data.map"] = {"prompt": "summarize(text)", "target": "text"}
    result = train(recipe, tmp_path / "run", steps=1, knobs=knobs[recipe], settings=settings)
    assert result.evaluation["conditions"]["image_size"] == 64
    loaded = vlmdsl.load(result.folder)
    assert size_of(loaded) == 64
    if recipe == "fiber":
        coarse = vlmdsl.load(result.folder / "checkpoints" / "step-00000001")
        assert (length_of(coarse), length_of(loaded)) == (16, 32)


@pytest.mark.parametrize("form", ["open_clip", "hf"])
def test_an_export_takes_images_of_the_last_stage(form: str, tmp_path: Path) -> None:
    from vlmdsl.api.export import export

    if form == "hf":
        pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    settings = {"model.image_encoder": "vit:tiny_patch4", "stages.main.model.image_size": 48}
    run = train(STAGES, tmp_path / "run", steps=1, settings=settings).folder
    export(run, tmp_path / "out", format=form)
    own = json.loads((tmp_path / "out" / {"open_clip": "open_clip_config.json", "hf": "config.json"}[form]).read_text())
    vision = own["model_cfg"]["vision_cfg"] if form == "open_clip" else own["vision_config"]
    assert vision["image_size"] == 48
    if form == "open_clip":
        open_clip = pytest.importorskip("open_clip", reason="the extra `open_clip` is not installed")
        trained, pixels = vlmdsl.load(run), torch.rand(2, 3, 48, 48)
        model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'out'}")
        with torch.no_grad():
            theirs, ours = model.encode_image(pixels), trained.model.encoders["vision"].eval()(pixels).pooled
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)
