"""Search by faiss finds what the exact search finds, ties and own samples included, also inside one compiled graph."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.search import FaissIndex, load_faiss
from vlmdsl.diagnostics import DiagnosticError

try:
    import faiss  # noqa: F401
except ImportError:
    installed = False
else:
    installed = True

with_faiss = pytest.mark.skipif(not installed, reason="the extra `ann` is not installed")

RECIPE = """
recipe augmented(image: Image, text: Text, key: Key, k = 3)
encoder eye = frozen(separate(vision, name="eye"))
let found = retrieve(eye(image), reference(eye(image), values=eye(image)), without=key, k=k)
minimize contrast(attend(image, keys=found[0], values=found), text, temperature=0.1)
"""


def both(query: Tensor, table: Tensor, own: Tensor, keys: Tensor, k: int) -> list[list[list[int]]]:
    """What is found by the exact search and by faiss: the real indices of each row."""
    index = FaissIndex(table)
    exact = ops.best_entries(query, table, own, keys, k, 2**20)
    by_index = ops.best_entries_by_index(query, table, own, keys, k, 2**20, index.handle)
    return [[row[mask].tolist() for row, mask in zip(*result, strict=True)] for result in (exact, by_index)]


@with_faiss
@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 4), entries=st.integers(1, 60), k=st.integers(1, 6))
def test_it_finds_the_same_with_ties_own_samples_and_too_few(seed: int, samples: int, entries: int, k: int) -> None:
    random = np.random.default_rng(seed)
    # Few directions and exact cosines: more entries tie than faiss proposes, and it proposes the later ones first.
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    query = torch.from_numpy(axes[random.integers(0, 6, samples)])
    table = torch.from_numpy(axes[random.integers(0, 6, entries)] * random.choice([1.0, 2.0, 4.0], (entries, 1)))
    own, keys = (torch.from_numpy(random.integers(0, 4, count)) for count in (samples, entries))
    exact, by_index = both(query, table, own, keys, k)
    assert by_index == exact


@with_faiss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_finds_the_same_among_many(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(3000, 24, generator=generator, dtype=dtype)
    query = table[:50] + 0.1 * torch.randn(50, 24, generator=generator, dtype=dtype)
    exact, by_index = both(query, table, torch.arange(50), torch.arange(3000), 7)
    assert by_index == exact
    assert not [row for row, neighbours in enumerate(by_index) if row in neighbours]


@with_faiss
def test_what_lies_closer_than_rounding_is_searched_in_full() -> None:
    """Float32 cannot tell these entries apart; the best are in the middle of the table, and faiss does not know where."""
    query = torch.eye(2, dtype=torch.float64)[:1]
    angles = torch.full((200,), 1e-5, dtype=torch.float64)
    angles[100:103] = torch.tensor([3e-6, 1e-6, 2e-6])
    table = torch.stack([angles.cos(), angles.sin()], dim=1)
    exact, by_index = both(query, table, torch.tensor([-1]), torch.arange(200), 3)
    assert by_index == exact == [[101, 102, 100]]


@with_faiss
def test_the_operator_keeps_what_torch_asks_of_one() -> None:
    table = torch.randn(30, 4)
    index = FaissIndex(table)
    arguments = (torch.randn(3, 4), table, torch.arange(3), torch.arange(30), 2, 64, index.handle)
    torch.library.opcheck(torch.ops.vlmdsl.best_entries_by_index.default, arguments)


def inputs() -> dict[str, Tensor]:
    drawn = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    return {"image": drawn[0].requires_grad_(), "text": drawn[1], "image_eye": drawn[2], "key": torch.arange(4)}


def step(objective: vlmdsl.Objective, table: Tensor, search: str) -> tuple[Tensor, Tensor]:
    objective.references.fill({"image_eye": table}, torch.arange(len(table)), search=search)
    features = inputs()
    loss = objective(**features).loss
    loss.backward()
    gradient = features["image"].grad
    assert gradient is not None
    return loss.detach(), gradient


@with_faiss
@pytest.mark.slow
def test_it_is_one_graph_and_another_table_is_not_another_graph() -> None:
    tables = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(1))
    objective, eager = (vlmdsl.compile(RECIPE, compiled=compiled) for compiled in (True, False))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for table in tables:
            expected = step(eager, table, "exact")
            torch.testing.assert_close(step(objective, table, "faiss"), expected)


@with_faiss
def test_a_copy_finds_its_own_table() -> None:
    tables = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(1))
    objective = vlmdsl.compile(RECIPE, compiled=False)
    first = step(objective, tables[0], "faiss")
    copied = copy.deepcopy(objective)
    step(objective, tables[1], "faiss")
    torch.testing.assert_close(copied(**inputs()).loss.detach(), first[0])


@with_faiss
def test_a_lost_index_is_reported() -> None:
    handle = FaissIndex(torch.eye(3)).handle
    with pytest.raises(RuntimeError, match="fill the set again"):
        ops.best_entries_by_index(torch.eye(3), torch.eye(3), torch.arange(3), torch.arange(3), 1, 9, handle)


def test_another_search_is_reported() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    with pytest.raises(ValueError, match="one of exact, faiss, not 'hnsw'"):
        objective.references.fill({"image_eye": torch.eye(6)}, torch.arange(6), search="hnsw")


def test_without_the_package_the_diagnostic_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DiagnosticError) as caught:
        load_faiss()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "V0901"
    assert "pip install 'vlmdsl[ann]'" in diagnostic.help[0]
