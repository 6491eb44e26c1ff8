"""Every bundled recipe: a whole model runs where there are no numbers, forward and backward, and is copied and saved."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import DATA, SETTINGS, columns_of, hyper_parameters_of, with_tiny_towers
from vlmdsl.runtime.training.assembly import build_model, open_data, read_tokenizers, training_batches
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.reference import prepare
from vlmdsl.schema import load_config

HERE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("recipe", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_model_on_the_meta_device(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    objective = vlmdsl.compile(recipe, compiled=False, **hyper_parameters_of(recipe))
    columns = columns_of(objective.program)
    settings = SETTINGS | {"train.steps": 2, "data.train": (DATA,), "data.map": columns}
    config, faults = load_config(flags=settings)
    assert config is not None, faults
    data = open_data(objective.program, config)
    tokenizers = read_tokenizers(objective, config.model, data)
    model = build_model(objective, config, tokenizers, HERE, data.mapping.facts)
    if objective.state.per_sample:
        objective.state.allocate_samples(len(data.train))
    prepare(model, data, config)
    batch = next(iter(training_batches(objective.program, config, data, model, HERE)))

    same = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(same.eval()(batch).loss, model.eval()(batch).loss)
    meta = torch.device("meta")
    model.train().to(meta)(batch.to(meta)).loss.backward()
    model.after_step()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.device == meta for gradient in gradients)
