"""A model sharded by FSDP2, module by module, has the loss and the gradients of one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from bundled.objectives import OBJECTIVES
from bundled.runs import ALBEF_CORE, with_tiny_towers
from bundled.test_micro_batches import model_and_batch
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.sharding import Sharded
from vlmdsl.schema import RunConfig
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

RECIPES = {
    "heads, queue, masked tokens": "declip",
    "teacher": "moco_v3",
    "fusion": ALBEF_CORE,
    "codes": OBJECTIVES["flava.pairs"],
}
WORDS = """
recipe words(image: Image, text: Text)
let masked = mask(text, random(30%))
minimize {
  own: mlm(masked)
  given: mlm(masked | image)
  pairs: contrast(image, text)
}
"""


def whole(value: Tensor) -> Tensor:
    """All numbers of a gradient, in a row: a learned number is [1] where it is sharded, else 0-d."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().flatten()


def gradients(recipe: str, lowering: str = "auto", tied: bool = False) -> dict[str, Tensor]:
    """The loss and every gradient of one step, sharded where there are several processes."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        model, batch = model_and_batch(recipe, World(rank, size, torch.device("cpu")), lowering)
    if tied:
        model.encoders["language"].tie_vocabulary("language")
    if size > 1:
        for unit in model.units:
            fully_shard(unit)
        fully_shard(model)
    output = model(batch)
    output.loss.backward()
    named = {name: whole(weight.grad) for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": output.loss.detach()} | named


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_sharded_model_has_the_gradients_of_one_process(recipe: str) -> None:
    expected = gradients(recipe)
    for share in run_processes(gradients, 2, recipe):
        torch.testing.assert_close(share, expected, rtol=1e-9, atol=1e-12)


def steps_taken(recipe: str) -> dict[str, Tensor]:
    """Weights, state and moments after two steps with their optimiser, gathered where they are sharded; of the first
    process."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    world, config = World(rank, size, torch.device("cpu")), RunConfig().optimizer
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        whole, batch = model_and_batch(recipe, world, "auto")
    whole_optimizer = build_optimizer(whole, config)
    sharded = Sharded(whole, whole_optimizer, config, world) if size > 1 else None
    model, optimizer = (whole, whole_optimizer) if sharded is None else (sharded.model, sharded.optimizer)
    for _ in range(2):
        model(batch).loss.backward()
        clip_grad_norm_([weight for weight in model.parameters() if weight.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        model.after_step()
        if sharded is not None:
            sharded.gather()
    if rank > 0:
        return {}
    moments = {
        f"{name} {kind}": value
        for name, weight in whole.named_parameters()
        for kind, value in whole_optimizer.state.get(weight, {}).items()
    }
    return dict(whole.state_dict()) | moments


def in_both_forms() -> list[dict[str, Tensor]]:
    """With logits and without, of a vocabulary that is tied to the embedding of its tower and one of its own on fusion."""
    return [gradients(WORDS, lowering, tied=True) for lowering in ("dense", "chunked")]


@pytest.mark.parametrize("recipe", ["declip", "moco_v3"])
def test_what_a_sharded_model_has_learned_is_gathered_whole(recipe: str) -> None:
    expected = steps_taken(recipe)
    torch.testing.assert_close(run_processes(steps_taken, 2, recipe)[0], expected, rtol=1e-9, atol=1e-12)


def test_weights_that_a_loss_multiplies_are_gathered_and_their_gradients_scattered() -> None:
    expected = gradients(WORDS, "dense", tied=True)
    assert "vocabularies.parts.fusion.weight" in expected
    assert "encoders.language.vocabulary_head.weight" not in expected
    for share in run_processes(in_both_forms, 2):
        for results in share:
            torch.testing.assert_close(results, expected, rtol=1e-9, atol=1e-12)
