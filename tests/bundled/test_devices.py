"""Nothing of a run mixes tensors of the CPU with those of its device, for recipes with parts of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlmdsl
from bundled.devices import ANOTHER_DEVICE, DeviceError, another_device
from bundled.objectives import OBJECTIVES
from bundled.runs import DATA, SETTINGS, columns_of, hyper_parameters_of, program_of, with_tiny_towers
from vlmdsl.api.classify import classify
from vlmdsl.runtime.training import processes

RECIPES = {
    "groupvit": "groups",
    "albef": "fusion, mined negatives, masked words",
    "flava.pairs": "codes of patches",
    "coca": "a captioner",
    "glip": "regions and words",
    "mdetr": "queries that are matched with boxes",
    "ra_clip": "reference samples",
    "maskclip": "teachers, masked patches",
}
"""One of each kind, with the parts that are meant."""


pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # whose numbers are copied here


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are on a device that is not the CPU."""
    with_tiny_towers(monkeypatch)
    monkeypatch.setattr(processes, "_device", lambda name: ANOTHER_DEVICE)
    with another_device():
        yield


def train(name: str, out: Path, **settings: object) -> vlmdsl.RunResult:
    recipe = OBJECTIVES[name]
    chosen = SETTINGS | {"train.term_gradients_every": 2, "data.map": columns_of(program_of(recipe)), **settings}
    return vlmdsl.train(recipe, knobs=hyper_parameters_of(recipe), data=[DATA], steps=2, settings=chosen, out=out)


@pytest.mark.parametrize("name", RECIPES)
def test_steps_and_measures_are_on_the_device_alone(name: str, tmp_path: Path) -> None:
    run = train(name, tmp_path / "run")
    assert run.evaluation["step"] == 2
    assert vlmdsl.load(run.folder).device == ANOTHER_DEVICE


def test_queues_heads_and_micro_batches_are_on_the_device_alone(tmp_path: Path) -> None:
    assert train("declip", tmp_path / "run", **{"train.micro": 4}).evaluation["step"] == 2


def test_a_trained_model_takes_and_gives_what_is_on_the_cpu(tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "0.png"
    picture.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(picture)
    unmeasured = {"evaluation.retrieval": False, "evaluation.zero_shot": False, "evaluation.captions": 0}
    folders = {name: train(name, tmp_path / name, **unmeasured).folder for name in ("clip", "coca", "glip")}
    clip, coca, glip = (vlmdsl.load(folder) for folder in folders.values())
    assert clip.encode_image([picture]).device == clip.similarity(picture, ["a", "b"]).device == torch.device("cpu")
    assert len(classify(folders["clip"], str(picture.parent), ["a", "b"]).probabilities) == 1
    assert len(coca.caption(picture, beams=2)) == 1
    glip.ground(picture, ["a red circle", "b"])


def test_mixtures_are_found() -> None:
    there, here = torch.ones(3, device=ANOTHER_DEVICE, requires_grad=True), torch.arange(3.0)
    assert (there * here[0] + here.to(ANOTHER_DEVICE)).tolist() == [0, 1, 2]
    (there.exp().sum() * 2).backward()
    assert there.grad is not None
    assert there.grad.cpu().allclose(2 * torch.ones(3).exp())
    for mixture in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: here[there.long()],
        lambda: torch.rand(3, generator=torch.Generator(), device=ANOTHER_DEVICE),
    ):
        with pytest.raises(DeviceError):
            mixture()
    with pytest.raises(RuntimeError):
        there.detach().numpy()
