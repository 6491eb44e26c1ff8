"""Search in a reference set against brute force, and attention to what was found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops

RECIPE = """
recipe augmented(image: Image, text: Text, key: Key, k = 3)
encoder eye = frozen(separate(vision, name="eye"))
encoder reader = frozen(separate(language, name="reader"))
let found = retrieve(eye(image), reference(eye(image), values=(eye(image), reader(text))), without=key, k=k)
minimize contrast(attend(image, keys=found[0], values=found), text, temperature=0.1)
"""


def brute_force(scores: np.ndarray, own: np.ndarray, keys: np.ndarray, k: int) -> list[list[int]]:
    """For each row its allowed entries, by falling score and then by rising index; at most k."""
    rows = []
    for row, key in zip(scores, own, strict=True):
        allowed = [index for index in range(len(keys)) if keys[index] != key]
        rows.append(sorted(allowed, key=lambda index: (-row[index], index))[:k])
    return rows


@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 4),
    entries=st.integers(1, 12),
    k=st.integers(1, 6),
    chunk=st.integers(1, 13),
)
def test_it_is_brute_force_with_ties_own_samples_and_chunks(
    seed: int, samples: int, entries: int, k: int, chunk: int
) -> None:
    random = np.random.default_rng(seed)
    # Few directions and exact cosines: most entries tie with another.
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    query = axes[random.integers(0, 6, samples)]
    table = axes[random.integers(0, 6, entries)] * random.choice([1.0, 2.0, 4.0], (entries, 1))
    own, keys = random.integers(0, 4, samples), random.integers(0, 4, entries)
    scores = query @ (table / np.linalg.norm(table, axis=1, keepdims=True)).T
    indices, real = ops.best_entries(*map(torch.from_numpy, (query, table, own, keys)), k, chunk)
    neighbours = [row[mask].tolist() for row, mask in zip(indices, real, strict=True)]
    assert neighbours == brute_force(scores, own, keys, k)


def test_the_operator_keeps_what_torch_asks_of_one() -> None:
    arguments = (torch.randn(3, 4), torch.randn(9, 4), torch.arange(3), torch.arange(9), 2, 4)
    torch.library.opcheck(torch.ops.vlmdsl.best_entries.default, arguments)


def objective(k: int = 3) -> vlmdsl.Objective:
    return vlmdsl.compile(RECIPE, compiled=False, k=k).double()


def inputs(samples: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, samples, 6, generator=generator, dtype=torch.float64)
    return {"image": drawn[0], "text": drawn[1], "image_eye": drawn[2], "key": torch.arange(samples)}


def table(entries: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(2, entries, 6, generator=generator, dtype=torch.float64)
    return {"image_eye": drawn[0], "text_reader": drawn[1]}


def test_a_sample_does_not_find_itself() -> None:
    module, features, held = objective(k=1), inputs(), table(8)
    # Each sample's own entry is its nearest by far, and no other's.
    features["image_eye"] = torch.eye(4, 6, dtype=torch.float64)
    held["image_eye"] = torch.cat([torch.eye(4, 6), torch.ones(4, 6)]).double()
    module.references.fill(held, torch.arange(8))
    before = module(**features).loss
    held["text_reader"][:4] += 100.0
    module.references.fill(held, torch.arange(8))
    assert torch.equal(module(**features).loss, before)
    module.references.fill(held, torch.arange(8) + 50)
    assert not torch.equal(module(**features).loss, before)


def test_with_nobody_else_to_find_nothing_is_added() -> None:
    features = {name: value[:1] for name, value in inputs().items()}
    module = objective()
    module.references.fill(table(1), torch.zeros(1, dtype=torch.int64))
    features["image"].requires_grad_()
    loss = module(**features).loss
    loss.backward()
    plain = vlmdsl.compile("contrast(temperature=0.1)", compiled=False).double()
    assert torch.equal(loss, plain(image=features["image"], text=features["text"]).loss)
    assert features["image"].grad.isfinite().all()


def test_a_table_that_does_not_fit_is_reported() -> None:
    module = objective()
    with pytest.raises(RuntimeError, match="empty"):
        module(**inputs())
    with pytest.raises(ValueError, match="columns image_eye, text_reader"):
        module.references.fill({"image_eye": torch.zeros(2, 6)}, torch.arange(2))
    with pytest.raises(ValueError, match=r"text_reader must be \[2, D\]"):
        module.references.fill({**table(2), "text_reader": torch.zeros(3, 6)}, torch.arange(2))


def test_an_objective_that_retrieves_nothing_has_no_set() -> None:
    plain = vlmdsl.compile("contrast()", compiled=False)
    assert list(plain.references.buffers()) == []
    with pytest.raises(ValueError, match="retrieves nothing"):
        plain.references.fill({}, torch.arange(2))


def test_the_set_is_not_part_of_the_state_dict() -> None:
    module = objective()
    module.references.fill(table(5), torch.arange(5))
    assert not [name for name in module.state_dict() if name.startswith("references")]
