"""What host programs do with an objective: copies, saved modules, other processes, modes, devices, transformations."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vlmdsl
from bundled.objectives import OBJECTIVES
from vlmdsl.api.driver import build
from vlmdsl.ir import module_outputs
from vlmdsl.testing import example_features

RECIPES = {name: recipe for name, recipe in OBJECTIVES.items() if not module_outputs(build(recipe).planned)}
"""Those that are functions of features alone; recipes that apply modules are called with these too."""
QUEUED = """
recipe queued(image: Image, text: Text)
let words = queue(text, size=6)
minimize memory_contrast(image, text, words, temperature=0.5)
"""
every_recipe = pytest.mark.parametrize("name", RECIPES.values(), ids=RECIPES)


def eager(recipe: str) -> vlmdsl.Objective:
    return vlmdsl.compile(recipe, compiled=False).double()


def leaves(features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.clone().requires_grad_(value.is_floating_point() and value.dim() > 0)
        for name, value in features.items()
    }  # fmt: skip


def varied(features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in features.items() if value.is_floating_point() and value.dim()}


@every_recipe
def test_copies_and_pickles_are_the_same_objective(name: str) -> None:
    objective = eager(name)
    features = example_features(objective)
    objective(**features)
    expected = objective.eval()(**features).loss
    for twin in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert torch.equal(twin(**features).loss, expected)
        assert twin.state_dict().keys() == objective.state_dict().keys()
        assert twin.source == objective.source
        assert twin.latex() == objective.latex()
        twin.train()(**features)  # moves its own state on, and nobody else's
        assert torch.equal(objective(**features).loss, expected)


def test_a_saved_module_is_loaded_by_another_process(tmp_path: Path) -> None:
    objective, features = vlmdsl.compile("declip"), example_features(eager("declip"))
    torch.save(objective, tmp_path / "objective.pt")
    torch.save(features, tmp_path / "features.pt")
    program = (
        "import sys, torch\n"
        "objective = torch.load(sys.argv[1] + '/objective.pt', weights_only=False)\n"
        "torch.compiler.set_stance('force_eager')\n"  # what is compiled is another test's
        "print(float(objective.double().eval()(**torch.load(sys.argv[1] + '/features.pt')).loss))"
    )
    printed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert float(printed.stdout) == pytest.approx(eager("declip").eval()(**features).loss.item(), abs=1e-12)


def _loss_in_another_process(objective: vlmdsl.Objective, features: dict[str, Tensor], answers: object) -> None:
    answers.put(objective(**features).loss.item())  # type: ignore[attr-defined]


def test_a_spawned_process_is_given_an_objective() -> None:
    context = torch.multiprocessing.get_context("spawn")
    objective, answers = eager("clip"), context.Queue()
    features = example_features(objective)
    worker = context.Process(target=_loss_in_another_process, args=(objective, features, answers))
    worker.start()
    assert answers.get(timeout=60) == objective(**features).loss.item()
    worker.join()


@every_recipe
def test_evaluation_in_any_mode_changes_nothing_of_training(name: str) -> None:
    plain, disturbed = eager(name), eager(name)
    features = [example_features(plain, seed=seed) for seed in range(3)]
    example_features(disturbed)
    for batch in features:
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                disturbed.eval()(**example_features(disturbed, seed=9))
        disturbed.eval()(**batch)
        loss, expected = (objective.train()(**leaves(batch)).loss for objective in (disturbed, plain))
        loss.backward()
        expected.backward()
        assert torch.equal(loss, expected)
    for (key, own), other in zip(disturbed.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(own, other), key
    for own, other in zip(disturbed.parameters(), plain.parameters(), strict=True):
        assert own.grad is None or torch.equal(own.grad, other.grad)


def test_what_is_made_in_inference_mode_can_be_trained_with() -> None:
    with torch.inference_mode():
        objective = eager(QUEUED)
        features = example_features(objective)
        objective(**features)  # in training mode: the queue takes these
    objective(**features | {"image": features["image"].clone().requires_grad_()}).loss.backward()
    assert all(not value.is_inference() for value in [*objective.buffers(), *objective.parameters()])


@every_recipe
def test_meta_tensors_stand_for_any_device(name: str) -> None:
    objective = eager(name)
    features = leaves({key: value.to("meta") for key, value in example_features(objective).items()})
    objective.to("meta")(**features).loss.backward()
    assert all(value.device.type == "meta" for value in objective.state_dict().values())
    assert any(value.grad is not None for value in features.values())


class Positional(nn.Module):
    """`torch.export` cannot give dynamic sizes to `**features`; a dictionary can have them."""

    def __init__(self, objective: vlmdsl.Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return self.objective(**features).loss


@every_recipe
def test_export_with_a_dynamic_batch(name: str) -> None:
    objective = eager(name).eval()
    features = example_features(objective)
    objective(**features)  # gives queues the length of their vectors
    batch = torch.export.Dim("batch", min=2, max=512)
    shapes = {key: {0: batch} if value.dim() else {} for key, value in features.items()}
    exported = torch.export.export(Positional(objective), (features,), dynamic_shapes={"features": shapes}).module()
    for size in (3, 8):
        others = example_features(objective, seed=size, batch=size)
        torch.testing.assert_close(exported(others), objective(**others).loss)


def test_tracing_by_example_is_refused() -> None:
    objective = eager("clip")
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace would fix the sizes of this one batch: use torch\.export"):
        torch.jit.trace(Positional(objective), (example_features(objective),))


@every_recipe
def test_learned_numbers_start_exactly_and_stay_precise(name: str) -> None:
    single, double = vlmdsl.compile(name, compiled=False), vlmdsl.compile(name, compiled=False).to(torch.float64)
    starts = {key: value.item() for key, value in double.named_parameters()}
    for key, value in single.half().bfloat16().named_parameters():
        assert value.dtype is torch.float32
        assert value.item() == torch.tensor(starts[key], dtype=torch.float32).item()


def test_double_holds_the_exact_logarithm() -> None:
    objective = vlmdsl.compile("clip", compiled=False).double()
    (number,) = objective.parameters()
    assert number.item() == math.log(1 / 0.07)
    with torch.no_grad():
        number.fill_(1.25)
    assert next(objective.float().double().parameters()).item() == 1.25
    objective.reset_parameters()
    assert number.item() == math.log(1 / 0.07)


@every_recipe
def test_second_derivatives(name: str) -> None:
    objective = eager(name).eval()
    features = example_features(objective)
    inputs = leaves(features)
    variables = [*varied(inputs).values(), *objective.parameters()]
    first = torch.autograd.grad(objective(**inputs).loss, variables, create_graph=True, allow_unused=True)
    generator = torch.Generator().manual_seed(1)
    along = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in variables]
    slope = sum((g * d).sum() for g, d in zip(first, along, strict=True) if g is not None)
    second = torch.autograd.grad(slope, variables, allow_unused=True) if slope.requires_grad else [None] * len(variables)
    curvature = sum(((h * d).sum() for h, d in zip(second, along, strict=True) if h is not None), torch.zeros(()))

    def slope_at(step: float) -> Tensor:
        with torch.no_grad():
            moved = [value + step * d for value, d in zip(variables, along, strict=True)]
        names = [*varied(inputs), *(key for key, _ in objective.named_parameters())]
        moved_leaves = dict(zip(names, moved, strict=True))
        numbers = {key: moved_leaves.pop(key).requires_grad_() for key, _ in objective.named_parameters()}
        moved_leaves = {key: value.requires_grad_() for key, value in moved_leaves.items()}
        out = torch.func.functional_call(objective, numbers, kwargs=features | moved_leaves)
        grads = torch.autograd.grad(out.loss, [*moved_leaves.values(), *numbers.values()], allow_unused=True)
        return sum((g * d).sum() for g, d in zip(grads, along, strict=True) if g is not None)

    expected = (slope_at(1e-5) - slope_at(-1e-5)) / 2e-5
    assert torch.isfinite(curvature)
    if not any(word in objective.source for word in ("stop(", ".detach()", "enqueue(", "running_mean(")):
        # Where a recipe cuts a gradient, the slope still depends on what is behind the cut, and differences see that.
        torch.testing.assert_close(curvature.double(), expected, rtol=1e-5, atol=1e-6)


@every_recipe
def test_functional_transformations(name: str) -> None:
    objective = eager(name).eval()
    features = example_features(objective)
    objective(**features)
    inputs = leaves(features)
    objective(**inputs).loss.backward()
    by_function = torch.func.grad(lambda values: objective(**features | values).loss)(varied(features))
    for key, value in varied(inputs).items():
        torch.testing.assert_close(by_function[key], torch.zeros_like(value) if value.grad is None else value.grad)
    stacked = {key: torch.stack([value, 0.5 * value]) for key, value in varied(features).items()}
    losses = torch.func.vmap(lambda values: objective(**features | values).loss)(stacked)
    torch.testing.assert_close(losses[0], objective(**features).loss)


@every_recipe
def test_activation_checkpoints(name: str) -> None:
    objective = eager(name).eval()
    features = example_features(objective)
    plain, kept = leaves(features), leaves(features)
    objective(**plain).loss.backward()
    checkpoint(lambda **values: objective(**values).loss, use_reentrant=False, **kept).backward()
    for key, value in plain.items():
        assert value.grad is None or torch.equal(value.grad, kept[key].grad), key


def test_state_is_not_moved_on_twice_by_a_checkpoint() -> None:
    objective = eager(QUEUED)
    features = leaves(example_features(objective))
    loss = checkpoint(lambda **values: objective(**values).loss, use_reentrant=False, **features)
    with pytest.raises(RuntimeError, match="has state, which a recomputation in the backward pass would update twice"):
        loss.backward()


def test_a_queue_is_for_vectors_of_one_length() -> None:
    objective = vlmdsl.compile(QUEUED, compiled=False)
    objective(image=torch.randn(3, 8), text=torch.randn(3, 8))
    with pytest.raises(ValueError, match="queue words holds vectors of 8 features, but text has 16"):
        objective(image=torch.randn(3, 16), text=torch.randn(3, 16))


@pytest.mark.parametrize("fed", [False, True])
def test_a_queue_of_another_size_is_not_loaded(fed: bool) -> None:
    objective, other = eager(QUEUED), eager(QUEUED.replace("size=6", "size=8"))
    objective(**example_features(objective))
    if fed:
        other(**example_features(other))
    with pytest.raises(RuntimeError, match="queue words holds 6 vectors of 6 features in the checkpoint, and 8 vectors"):
        other.load_state_dict(objective.state_dict())


def test_frozen_numbers_and_functional_calls() -> None:
    objective = eager("clip").requires_grad_(False)
    features = leaves(example_features(objective))
    objective(**features).loss.backward()
    assert all(number.grad is None for number in objective.parameters())
    assert features["image"].grad is not None
    numbers = {key: value + 1.0 for key, value in objective.named_parameters()}
    assert torch.func.functional_call(objective, numbers, kwargs=features).loss != objective(**features).loss


def _at_once(work: Callable[[int], float], count: int) -> list[float]:
    results: dict[int, float] = {}
    threads = [threading.Thread(target=lambda k=k: results.__setitem__(k, work(k))) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[k] for k in range(count)]


def test_threads_share_an_objective_or_have_their_own() -> None:
    shared = eager("filip").eval()
    batches = [example_features(shared, seed=k) for k in range(4)]
    expected = [shared(**batch).loss.item() for batch in batches]
    assert _at_once(lambda k: shared(**batches[k]).loss.item(), 4) == expected
    assert _at_once(lambda k: eager("filip").eval()(**batches[k]).loss.item(), 4) == expected
