"""Every bundled recipe with a text decoder: captions are the same with a key/value cache and without."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import DATA, SETTINGS, columns_of, hyper_parameters_of, with_tiny_towers
from vlmdsl.runtime.evaluation import captions, generation
from vlmdsl.runtime.evaluation.captions import Captioning
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import build_model, open_data, read_tokenizers
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.values import ImageBatch
from vlmdsl.schema import load_config
from vlmdsl.source.bundled import bundled_text

HERE = World(0, 1, torch.device("cpu"))


def _text(recipe: str) -> str:
    bundled = bundled_text(recipe)
    return recipe if bundled is None else bundled.text


CAPTIONING = {
    title.partition(".")[0]: recipe
    for title, recipe in OBJECTIVES.items()
    if "text_decoder" in _text(recipe) and title != "simvlm.documents"  # of texts alone
}
"""Of each recipe the last flow or stage whose decoder sees images."""
PROMPTS = ("", "a red disc and", "two", "a picture of what is above", "name it", "in English")


def built(recipe: str) -> tuple[VisionLanguageModel, Captioning]:
    """A model with weights large enough for texts to differ, and its captioning."""
    knobs = hyper_parameters_of(recipe)
    objective = vlmdsl.compile(recipe, compiled=False, **knobs | ({"depth": 2} if "depth" in knobs else {}))
    captioning = captions.captioning_of(objective.program)
    assert captioning is not None
    settings = SETTINGS | {"train.steps": 2, "data.train": (DATA,)}
    config, faults = load_config(flags=settings | {"data.map": columns_of(objective.program)})
    assert config is not None, faults
    data = open_data(objective.program, config)
    model = build_model(objective, config, read_tokenizers(objective, config.model, data), HERE, data.mapping.facts)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model, captioning


@pytest.mark.parametrize("recipe", CAPTIONING.values(), ids=CAPTIONING)
def test_captions_are_the_same_with_a_cache(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    model, captioning = built(recipe)
    tower = model.encoders.encoder(captioning.tower)
    images = ImageBatch(torch.randn(len(PROMPTS), 3, 16, 16))
    prompts = tower.text_format.encode(PROMPTS)
    assert len(set(prompts.mask.sum(dim=1).tolist())) > 2
    written: list[generation.Written] = []

    def noted(*arguments: object, **options: object) -> generation.Written:
        written.append(generation.write(*arguments, **options))
        return written[-1]

    monkeypatch.setattr(captions, "write", noted)
    for beams in (1, 3):
        for tower.takes_cache in (True, False):
            captions.captions_of(model, captioning, images, prompts, beams=beams)
        cached, whole = written[-2:]
        assert cached.tokens == whole.tokens
        assert len(set(map(tuple, whole.tokens))) > 1
        torch.testing.assert_close(cached.scores, whole.scores, rtol=1e-5, atol=1e-5)


def test_a_compiled_decoder_writes_without_a_graph_for_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    model, captioning = built("cappa")
    images, graphs = ImageBatch(torch.randn(2, 3, 16, 16)), list[object]()
    expected = captions.captions_of(model, captioning, images)

    def noting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    model.encoders.encoder(captioning.tower).compile(backend=noting)
    assert captions.captions_of(model, captioning, images) == expected
    assert not graphs
