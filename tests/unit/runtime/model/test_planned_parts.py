"""What a plan says of heads, vocabularies, queues and reference sets is what torch allocates and multiplies."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vlmdsl
from vlmdsl.api.plan import plan
from vlmdsl.backends.plan.report import PartRow
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops.vocabulary import weighted_cross_entropy
from vlmdsl.ir import streams, uses_of
from vlmdsl.runtime.model.heads import Heads
from vlmdsl.runtime.modules.heads import MultilayerHead
from vlmdsl.runtime.values.mask import NOT_SELECTED, selected_places
from vlmdsl.testing.laws import example_features

DIM, BATCH = 24, 8


def held(module: torch.nn.Module) -> tuple[int, int]:
    """Numbers learned, and bytes of these and of the buffers."""
    parameters, buffers = list(module.parameters()), list(module.buffers())
    return sum(map(torch.numel, parameters)), sum(part.numel() * part.element_size() for part in parameters + buffers)


def rows(recipe: str, word: str = "", **knobs: object) -> list[PartRow]:
    planned = plan(recipe, batch=BATCH, dim=DIM, vocabulary=50, references=40, knobs=knobs)
    return [row for row in planned.parts if word in row.name + row.what]


@pytest.mark.parametrize("recipe", ["simclr", "moco", "moco_v3", "byol", "simsiam", "slip", "declip", "nclip"])
def test_heads_hold_what_the_plan_says(recipe: str) -> None:
    objective = vlmdsl.compile(recipe, compiled=False)
    towers = {stream.encoder.tower: DIM for stream in objective.streams}
    uses = [use for stream in objective.streams for use in uses_of(stream.encoder)]
    heads = Heads(uses, lambda module: towers[module.name])
    taught = [use.module for use in uses if use.follows and use.module.family == "head"]
    built = [*heads.parts.values(), *(heads.copied(taught).parts.values() if taught else ())]
    planned = [row for row in rows(recipe) if "logits" not in row.what and "search" not in row.what]
    assert planned
    assert sorted((row.parameters, row.size) for row in planned) == sorted(map(held, built))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_multiplies_as_often_as_the_plan_says(frozen: bool) -> None:
    tower = "frozen(vision)" if frozen else "vision"
    recipe = f"""
recipe headed(image: Image)
let views = augment(image, n=2)
encoder head = project({tower}, layers=3, out=10)
minimize contrast(head(views[0]), head(views[1]), temperature=0.1)
"""
    (row,) = rows(recipe)
    (head,) = {stream.encoder.heads[0] for stream in streams(vlmdsl.compile(recipe, compiled=False).program)}
    views = [torch.randn(BATCH, DIM, requires_grad=not frozen) for _ in range(2)]
    module = MultilayerHead(head, DIM)
    with FlopCounterMode(display=False) as counter:
        outputs = module(views)
        forward = counter.get_total_flops()
        sum(view.sum() for view in outputs).backward()
    assert (row.forward, row.forward + row.backward) == (forward, counter.get_total_flops())


def test_the_logits_are_as_many_as_the_plan_says() -> None:
    (row,) = rows("declip", "logits")
    linear = torch.nn.Linear(DIM, 50)
    assert (row.parameters, row.size) == held(linear)
    places = selected_places(torch.full((BATCH, 32), NOT_SELECTED), 0.15)
    assert places is not None
    states = torch.randn(*places.shape, DIM, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        logits = linear(states)
        forward = counter.get_total_flops()
        ops.token_loss(logits, torch.zeros_like(places)).backward()
    assert (row.forward, row.forward + row.backward) == (forward, counter.get_total_flops())
    assert row.kept == logits.numel() * logits.element_size()


def test_a_loss_without_logits_multiplies_and_keeps_what_the_plan_says() -> None:
    planned = plan("declip", batch=BATCH, dim=DIM, vocabulary=50, lowering={"mlm": "chunked"})
    assert "vocabulary" not in {call.family for call in planned.calls}
    (loss,) = planned.losses
    assert (loss.name, loss.lowering) == ("mlm: token loss", "chunked")
    (row,) = [row for row in planned.parts if "logits" in row.what]
    linear, places = torch.nn.Linear(DIM, 50), selected_places(torch.full((BATCH, 32), NOT_SELECTED), 0.15)
    assert (row.parameters, row.size) == held(linear)
    assert places is not None
    targets, states = torch.zeros_like(places).flatten(), torch.randn(places.numel(), DIM)
    with FlopCounterMode(display=False) as counter:
        # What the operator runs: torch does not count inside of an operator that it does not know.
        _, _, *gradients = weighted_cross_entropy._init_fn(
            states, linear.weight.detach(), linear.bias.detach(), targets, torch.ones(len(targets)), 1.0, 0.0,
            None, None, None, None, True, True, True,
        )  # fmt: skip
    added = 2 * len(targets) * DIM * 50  # to the gradient of the weight, by `addmm_`, which torch does not count
    assert row.forward + row.backward == counter.get_total_flops() + added
    assert row.kept == sum(part.numel() * part.element_size() for part in gradients)


def test_a_search_and_its_table_are_what_the_plan_says() -> None:
    planned = plan("ra_clip", batch=BATCH, dim=DIM, references=40, knobs={"k": 4})
    objective = vlmdsl.compile("ra_clip", compiled=False, k=4)
    names = [column.name for column in objective.references.columns]
    objective.references.fill({name: torch.randn(40, DIM) for name in names}, torch.arange(40))
    assert sum(row.size for row in planned.state) == held(objective.references)[1]
    query, entries = torch.randn(BATCH, DIM), objective.references.read()[names[0]]
    own = torch.full((BATCH,), -1)
    with FlopCounterMode(display=False) as counter:
        # What the operator runs: torch does not count inside of an operator that it does not know.
        indices, real = ops.best_entries._init_fn(query, entries.values, own, entries.keys, 4, 2**20)
    (row,) = planned.parts
    assert (row.forward, row.backward) == (counter.get_total_flops(), 0)
    assert row.kept == sum(part.numel() * part.element_size() for part in (indices, real))


@pytest.mark.parametrize("recipe", ["moco", "declip", "alip"])
def test_state_is_as_large_as_the_plan_says(recipe: str) -> None:
    objective = vlmdsl.compile(recipe, compiled=False)
    features = example_features(objective, seed=0, batch=BATCH)
    dimensions = {name: value.shape[-1] for name, value in features.items() if value.dim() > 1}
    # A head's length is its own; the others' is the one that examples have.
    dimensions |= {stream.name: stream.encoder.dimension(DIM) for stream in objective.streams}
    objective.state.allocate(dimensions)
    planned = plan(recipe, batch=BATCH, dim=DIM)
    assert sum(row.size for row in planned.state) == held(objective.state)[1]
