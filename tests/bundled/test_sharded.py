"""A model sharded by FSDP2, module by module, has the loss and the gradients of one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from bundled.objectives import OBJECTIVES
from bundled.runs import ALBEF_CORE, with_tiny_towers
from bundled.test_micro_batches import model_and_batch
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.sharding import Sharded
from vlmdsl.schema import load_config
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
let m = random(30%)
let masked = mask(text, m)
minimize {
  own: token_loss(linear(masked), text, at=m)
  given: mlm(masked | image)
  pairs: contrast(image, text)
}
"""


TRANSFORMED = WORDS.replace("linear(masked)", 'linear(masked, transform="gelu")')


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


def steps_taken(recipe: str, micro: int | None = None) -> dict[str, Tensor]:
    """Norms of the gradient and of those of terms, weights, state and moments of two steps, gathered where they are sharded;
    of the first process."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    world = World(rank, size, torch.device("cpu"))
    settings = {"train.steps": 2, "train.batch": 8, "train.micro": micro, "train.parallel": "sharded", "train.log_every": 1}
    settings["train.term_gradients_every"] = 2
    config, faults = load_config(flags=settings)
    assert config is not None, faults
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        whole, batch = model_and_batch(recipe, world, "auto")
    whole_optimizer = build_optimizer(whole, config.optimizer)
    sharded = Sharded(whole, whole_optimizer, config.optimizer, world) if size > 1 else None
    model, optimizer = (whole, whole_optimizer) if sharded is None else (sharded.model, sharded.optimizer)
    norms: list[float] = []
    callbacks = Callbacks(
        log=lambda record: norms.extend(value for name, value in record.items() if name.endswith("gradient_norm")),
        save=lambda step: None if sharded is None else sharded.gather(),
    )
    train_steps(model, optimizer, iter([batch, batch]), config, world, callbacks=callbacks)
    if rank > 0:
        return {}
    moments = {
        f"{name} {kind}": value
        for name, weight in whole.named_parameters()
        for kind, value in whole_optimizer.state.get(weight, {}).items()
    }
    return dict(whole.state_dict()) | moments | {"norms": torch.tensor(norms, dtype=torch.float64)}


def all_steps_taken(micro: int | None) -> list[dict[str, Tensor]]:
    """The same of four recipes: heads with batch norms and a queue, a teacher, modules called with each other's values,
    modules that share weights."""
    return [steps_taken(recipe, micro) for recipe in ("declip", "moco_v3", ALBEF_CORE, "blip")]


def in_both_forms() -> list[dict[str, Tensor]]:
    """With logits and without, of a vocabulary that is tied to the embedding of its tower and one of its own on fusion; then
    the same with a transform before that of the tower."""
    return [gradients(recipe, lowering, tied=True) for recipe in (WORDS, TRANSFORMED) for lowering in ("dense", "chunked")]


@pytest.mark.parametrize("micro", [None, 3], ids=["plain", "micro"])
def test_what_a_sharded_model_has_learned_is_gathered_whole(micro: int | None) -> None:
    """In micro-batches a module is gathered for each chunk, and its gradients are added up where they are kept."""
    expected = all_steps_taken(micro)
    torch.testing.assert_close(run_processes(all_steps_taken, 2, micro)[0], expected, rtol=1e-9, atol=1e-12)


def test_weights_that_a_loss_multiplies_are_gathered_and_their_gradients_scattered() -> None:
    expected = [gradients(recipe, "dense", tied=True) for recipe in (WORDS, TRANSFORMED)]
    for results in expected:
        assert "vocabularies.parts.fusion.weight" in results
        assert "encoders.language.vocabulary_head.weight" not in results
    assert "encoders.language.vocabulary_head.transform.0.weight" in expected[1]
    for share in run_processes(in_both_forms, 2):
        for results, of_recipe in zip(share, (expected[0], expected[0], expected[1], expected[1]), strict=True):
            torch.testing.assert_close(results, of_recipe, rtol=1e-9, atol=1e-12)
