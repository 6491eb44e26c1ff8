"""Each way to compare, against loops over tokens and samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch import ops
from vlmdsl.primitives.plugins import IMPLEMENTATIONS
from vlmdsl.testing.gradients import check_gradients


def tokens(seed: int, samples: int, count: int, lengths: list[int] | None = None) -> ops.TokenFeatures:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(samples, count, 3, generator=generator, dtype=torch.float64), dim=-1)
    mask = None if lengths is None else torch.arange(count)[None, :] < torch.tensor(lengths)[:, None]
    return ops.TokenFeatures(values, mask)


IMAGE, TEXT = tokens(0, 3, 4), tokens(1, 3, 5, [5, 2, 0])


def looped_tokenmax(image: ops.TokenFeatures, text: ops.TokenFeatures) -> tuple[Tensor, Tensor]:
    rows, columns = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            words = text.values[j][text.mask[j]]
            if len(words):
                table = image.values[i] @ words.T
                rows[i, j] = sum(max(table[k]) for k in range(len(table))) / len(table)
                columns[i, j] = sum(max(table[:, r]) for r in range(len(words))) / len(words)
    return rows, columns


def test_tokenmax_is_the_papers_definition_and_padding_takes_no_part() -> None:
    matrices = ops.similarity(IMAGE, TEXT, by="tokenmax")
    rows, columns = looped_tokenmax(IMAGE, TEXT)
    torch.testing.assert_close(matrices.rows, rows)
    torch.testing.assert_close(matrices.columns, columns)
    assert not matrices.rows[:, 2].any(), "a text of padding only scores 0"
    louder = TEXT._replace(values=torch.where(TEXT.mask[..., None], TEXT.values, 1e30))
    torch.testing.assert_close(ops.similarity(IMAGE, louder, by="tokenmax").rows, rows)


def test_tokenmax_gives_padding_no_gradient_and_never_nan() -> None:
    values = TEXT.values.clone().requires_grad_()
    matrices = ops.similarity(IMAGE, ops.TokenFeatures(values, TEXT.mask), by="tokenmax")
    (matrices.rows.sum() + matrices.columns.sum()).backward()
    assert torch.isfinite(values.grad).all()
    assert not values.grad[~TEXT.mask].any()
    assert values.grad[TEXT.mask].any()


def test_tokenmax_has_one_winner_among_equals() -> None:
    image = torch.ones(1, 1, 2, dtype=torch.float64)
    text = torch.ones(1, 3, 2, dtype=torch.float64, requires_grad=True)
    ops.similarity(ops.TokenFeatures(image), ops.TokenFeatures(text), by="tokenmax").rows.sum().backward()
    assert sorted(text.grad.sum(dim=-1).flatten().tolist()) == [0.0, 0.0, 2.0]


def test_tokenmean_is_the_mean_over_real_pairs_of_tokens() -> None:
    matrices = ops.similarity(IMAGE, TEXT, by="tokenmean")
    for j, length in enumerate([5, 2]):
        expected = torch.einsum("ikd,rd->ikr", IMAGE.values, TEXT.values[j, :length]).mean(dim=(1, 2))
        torch.testing.assert_close(matrices.rows[:, j], expected)
    assert matrices.symmetric
    assert not matrices.rows[:, 2].any()


def test_euclidean_is_minus_the_squared_distance() -> None:
    x, y = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = -torch.cdist(x, y).square()
    torch.testing.assert_close(ops.similarity(x, y, by="euclidean").rows, expected)
    check_gradients(lambda x, y: ops.similarity(x, y, by="euclidean").rows, {"x": x, "y": y})


@pytest.mark.parametrize("by", ["dot", "euclidean"])
def test_a_score_of_vectors_is_the_diagonal(by: str) -> None:
    x, y = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ops.score(x, y, by=by), ops.similarity(x, y, by=by).rows.diagonal())


@pytest.mark.parametrize("by", ["tokenmax", "tokenmean"])
def test_a_score_of_tokens_is_the_diagonal_of_the_rows(by: str) -> None:
    torch.testing.assert_close(ops.score(IMAGE, TEXT, by=by), ops.similarity(IMAGE, TEXT, by=by).rows.diagonal())


def test_bfloat16_tokens_are_averaged_in_float32() -> None:
    image, text = (ops.TokenFeatures(t.values.bfloat16(), t.mask) for t in (IMAGE, TEXT))
    assert ops.similarity(image, text, by="tokenmax").rows.dtype is torch.float32


def test_a_plug_in_runs_by_its_name_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "test_power", lambda x, y, exponent: (x @ y.T) ** exponent)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    matrices = ops.similarity(x, x, by="test_power", exponent=2)
    assert matrices.symmetric
    torch.testing.assert_close(matrices.rows, (x @ x.T) ** 2)
    torch.testing.assert_close(ops.score(x, x, by="test_power", exponent=2), ((x @ x.T) ** 2).diagonal())


def test_transposing_exchanges_the_directions_and_reusing_keeps_one() -> None:
    matrices = ops.similarity(IMAGE, TEXT, by="tokenmax")
    turned = ops.transpose(matrices)
    torch.testing.assert_close(turned.rows, matrices.columns.T)
    torch.testing.assert_close(turned.columns, matrices.rows.T)
    assert ops.reuse(matrices, "columns").rows is matrices.columns
    assert ops.transpose(ops.reuse(matrices, "rows")).symmetric
