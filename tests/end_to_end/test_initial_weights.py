"""`model.init`: a run begins with the weights of another one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vlmdsl
from bundled.runs import hyper_parameters_of
from vlmdsl.runtime.training.checkpoint import AS_TRAINED
from vlmdsl.runtime.values import TextFormat

SETTINGS: dict[str, object] = {
    "train.batch": 8,
    "train.compile": False,
    "evaluation.limit": 16,
    "evaluation.neighbours": 0,
    "optimizer.learning_rate": 1e-30,
    "optimizer.objective_learning_rate": 1e-30,
}
"""The weights stay as they are to the last bit, so what a run begins with is what its checkpoint has."""


def trained(place: Path, recipe: str, steps: int = 1, **settings: object) -> Path:
    every = {**SETTINGS, **{name.replace("__", "."): value for name, value in settings.items()}}
    data, val, expression = ["shapes:samples=32"], ["shapes:samples=16"], "(" in recipe
    knobs = {} if expression else hyper_parameters_of(recipe)
    return vlmdsl.train(
        recipe, expression=expression, knobs=knobs, data=data, val=val, steps=steps, settings=every, out=place
    ).folder


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(next((run / "checkpoints").iterdir()) / "model.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "clip"
    return trained(place, "clip", 3, optimizer__learning_rate=1e-2, optimizer__objective_learning_rate=1e-2, train__seed=5)


def test_another_recipe_begins_with_the_same_towers(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SLIP has CLIP's towers and a projection of its own, on other data with other words."""
    run = trained(tmp_path / "slip", "slip", model__init=str(clip))
    before, after = weights(clip), weights(run)
    shared = [name for name in before if name in after]
    assert len(shared) > 20
    assert [name for name in shared if not torch.equal(before[name], after[name])] == []
    own = [name for name in after if name not in before and name.startswith("heads.") and name.endswith("weight")]
    assert own
    untouched = weights(trained(tmp_path / "untouched", "slip"))
    assert [name for name in own if not torch.allclose(untouched[name], after[name])] == []
    assert f"{len(shared)} of {len(after)} tensors are from" in capsys.readouterr().err
    texts = ["a large red circle", "unheard"]
    words = [vlmdsl.load(one).model.form("language", "Text").encode(texts).ids for one in (clip, run)]
    assert torch.equal(*words)


def test_texts_are_tokenized_as_in_the_data_after_a_run_of_images_alone(tmp_path: Path) -> None:
    """Which has no tokenizer for them: that of no text at all has one token per byte."""
    run = trained(tmp_path / "clip", "clip", model__init=str(trained(tmp_path / "images", "moco_v3")))
    tokens = vlmdsl.load(run).model.form("language", "Text").encode(["a large red circle"]).mask.sum()
    assert tokens < len("a large red circle")


MASKED = """recipe masked_words(image: Image, text: Text)
encoder fusion = fuse(depth=1)
minimize mlm(mask(text, random(30%)) | image)
"""


def test_texts_are_masked_after_a_run_that_masked_none(tmp_path: Path) -> None:
    first = trained(tmp_path / "first", "moco")
    form = vlmdsl.load(trained(tmp_path / "run", MASKED, model__init=str(first))).model.form("language", "Text")
    assert isinstance(form, TextFormat)
    assert form.tokenizer.mask == form.tokenizer.vocabulary_size - 1


def test_a_teacher_begins_as_a_copy_and_a_queue_is_new(tmp_path: Path) -> None:
    first = trained(tmp_path / "first", "moco", 3, optimizer__learning_rate=1e-2)
    after, fresh = (
        weights(trained(tmp_path / name, "moco", **settings))
        for name, settings in (("second", {"model__init": str(first)}), ("fresh", {}))
    )
    followed = [name for name in after if name.startswith("teachers.") and name.endswith("vision.class_token")]
    assert followed
    for name in followed:
        assert torch.allclose(after[name], weights(first)["encoders.vision.class_token"])
    queues = [name for name in after if name.startswith("objective.state.") and after[name].dim() == 2]
    assert queues
    for name in queues:
        replaced = (after[name] != fresh[name]).any(dim=1)
        assert 0 < replaced.sum() <= 8, "only what this run's step has written"


def test_a_checkpoint_can_be_named_and_its_run_resumed(clip: Path, tmp_path: Path) -> None:
    checkpoint = next((clip / "checkpoints").iterdir())
    settings = {"model__init": str(checkpoint), "optimizer__learning_rate": 1e-3}
    whole = trained(tmp_path / "whole", "clip", 4, **settings)
    parted = tmp_path / "parted"
    trained(parted, "clip", 4, train__checkpoint_every=2, train__keep=9, **settings)
    for file in (parted / "checkpoints" / "step-00000004").iterdir():
        file.unlink()
    (parted / "checkpoints" / "step-00000004").rmdir()
    vlmdsl.train(resume=parted)
    assert all(torch.equal(one, weights_of(parted, 4)[name]) for name, one in weights_of(whole, 4).items())


def weights_of(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


@pytest.mark.parametrize(
    ("recipe", "init", "settings", "code"),
    [
        ("clip", "nothing", {}, "V0816"),
        ("clip", "clip", {"model__dimension": 48}, "V0853"),
        ("mlm(mask(text, random(50%)))", "images", {}, "V0863"),
    ],
)
def test_what_does_not_fit_is_refused(
    clip: Path, tmp_path: Path, recipe: str, init: str, settings: dict[str, object], code: str
) -> None:
    if init == "images":
        trained(tmp_path / init, "simclr")
    with pytest.raises(vlmdsl.DiagnosticError, match=code) as caught:
        trained(tmp_path / "run", recipe, model__init=str(clip if init == "clip" else tmp_path / init), **settings)
    (fault,) = caught.value.diagnostics
    assert fault.code != "V0853" or fault.help == (AS_TRAINED,)
