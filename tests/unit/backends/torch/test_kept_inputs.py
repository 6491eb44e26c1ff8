"""Queues of images and texts: what they keep, what is picked from them and the batch, and that it is encoded as of now."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.backends.torch.ops import TokenFeatures
from vlmdsl.backends.torch.ops.state import entered
from vlmdsl.backends.torch.values import Memory, Picks
from vlmdsl.testing.laws import example_features, example_modules

KEPT = """
recipe kept(image: Image, text: Text, key: Key)
let keys = queue(key, size=6)
let texts = queue(stop(text), size=6)
let words = queue(text, size=6, keep="inputs")
let earlier = exclude_pairs(similarity(image, texts), key=key, keys=keys)
let wrong = mine(unite(similarity(image, text), earlier), along="rows", floor=1e-3)
minimize mean(softplus(score(image, take(text, wrong, queue=words)) - score(image, text)))
"""


def compiled() -> Objective:
    return vlmdsl.compile(KEPT, compiled=False).double()


def run(objective: Objective, *seeds: int) -> list[float]:
    modules = example_modules(objective)
    return [objective(modules=modules, **example_features(objective, seed=seed)).loss.item() for seed in seeds]


def images(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[:, None, None, None].expand(-1, 3, 2, 2)


@pytest.mark.parametrize(
    ("entering", "expected"),
    [((1.0, 2.0), [2, 0, 0, 1]), ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), [6, 3, 4, 5]), ((), [0, 0, 0, 0])],
)
def test_what_enters_overwrites_the_oldest_and_the_newest_stay(entering: tuple[float, ...], expected: list[int]) -> None:
    after = ops.enqueue(Memory(images(0, 0, 0, 0), torch.tensor(3)), images(*entering))
    assert after.values[:, 0, 0, 0].tolist() == expected
    assert after.written == 3 + len(entering)


def test_shorter_texts_are_padded() -> None:
    before = Memory(torch.zeros(2, 3, dtype=torch.int64), torch.tensor(0), torch.zeros(2, 3, dtype=torch.bool))
    after = ops.enqueue(before, TokenFeatures(torch.tensor([[7, 8]]), torch.tensor([[True, False]])))
    assert after.values.tolist() == [[7, 8, 0], [0, 0, 0]]
    assert after.mask is not None
    assert after.mask.tolist() == [[True, False, False], [False] * 3]


def test_what_is_picked_is_of_the_batch_or_of_the_queue() -> None:
    memory = Memory(images(10, 11, 12), torch.tensor(3))
    picks = Picks(torch.tensor([[4], [0], [3], [2]]), torch.ones(4, 1, dtype=torch.bool))
    fetched = ops.fetch(images(0, 1, 2, 3), picks, memory)
    assert isinstance(fetched, Tensor)
    assert fetched[:, 0, 0, 0].tolist() == [10, 0, 3, 2]


def test_the_operator_is_as_torch_asks() -> None:
    arguments = torch.zeros(4, 2), torch.tensor(3), torch.ones(3, 2)
    torch.library.opcheck(entered, arguments, test_utils=("test_schema", "test_faketensor"))


def test_a_sample_is_never_a_negative_of_itself() -> None:
    """Of two samples that come in turn, each has the other one as its negative, and none before that has come."""
    objective = compiled()
    modules = example_modules(objective)
    samples = [example_features(objective, seed=seed, batch=1) | {"key": torch.tensor([seed])} for seed in (1, 2)]

    def expected(own: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        encoded = modules["language"](other["text_input"], other["text_input_mask"]).pooled
        compared = (torch.cosine_similarity(own["image"], text) for text in (encoded, own["text"]))
        return torch.nn.functional.softplus(next(compared) - next(compared)).item()

    one, two = samples
    for own, other in ((one, one), (one, one), (two, one), (one, two), (one, two), (two, one)):
        assert objective(modules=modules, **own).loss.item() == pytest.approx(expected(own, other))


def test_gradients_reach_the_tower_as_it_is_now() -> None:
    objective = compiled()
    run(objective, 0)
    modules = example_modules(objective)
    objective(modules=modules, **example_features(objective, seed=1)).loss.backward()
    assert modules["language"].word.weight.grad.abs().sum() > 0


def test_checkpoints_hold_what_is_kept() -> None:
    objective = compiled()
    run(objective, 0)
    saved = copy.deepcopy(objective.state_dict())
    assert saved["state.words"].shape == saved["state.words_mask"].shape == (6, 4)
    other = compiled()
    other.load_state_dict(saved)
    assert run(other, 1, 2) == run(objective, 1, 2)
    assert not torch.equal(objective.get_buffer("state.words"), saved["state.words"])


def test_texts_longer_than_those_that_are_kept_are_named() -> None:
    objective = compiled()
    run(objective, 0)
    longer = example_features(objective, tokens=5)
    with pytest.raises(ValueError, match="the queue words keeps inputs of 4, but text_input has 5"):
        objective(modules=example_modules(objective, tokens=5), **longer)


def test_an_evaluation_without_queues() -> None:
    objective = compiled()
    run(objective, 0, 1)
    before = copy.deepcopy(objective.state_dict())
    with objective.state.emptied():
        assert objective.get_buffer("state.words_written") == 0
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
