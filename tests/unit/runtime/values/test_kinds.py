"""Kinds of fields are looked up where they are described, so that a plug-in adds one by a module of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import vlmdsl
from batches import batch_of
from unit.runtime.values.vectors import VECTOR, VectorBatch
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.primitives import broken_plugins
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer
from vlmdsl.runtime.values import BadSample, FieldColumns, SampleColumns, TextBatch, TextValue, family_of
from vlmdsl.types import FIELD_KINDS, FieldKind, register_field_kind

RECIPE = "vlo 1\nrecipe distilled(vector: Vector, text: Text)\nminimize contrast(vector, text)\n"
SETTINGS = {"train.batch": 4, "train.compile": False, "train.device": "cpu", "model.dimension": 8, "data.workers": 1}


@pytest.fixture
def _vectors() -> Iterator[None]:
    register_field_kind(VECTOR)
    yield
    del FIELD_KINDS[VECTOR.name]


def test_every_kind_has_a_family_of_its_name_or_no_data() -> None:
    assert {name for name, kind in FIELD_KINDS.items() if kind.family is None} == {"Scalar"}
    assert all(family_of(name).kind == name for name, kind in FIELD_KINDS.items() if kind.family is not None)
    with pytest.raises(ValueError, match="a kind of field called Label already"):
        register_field_kind(FieldKind("Label", "another", "a label", None))


def test_an_unknown_kind_is_a_diagnostic() -> None:
    assert [fault.code for fault in vlmdsl.check(RECIPE)] == ["V0311"]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
FOREIGN = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2), max_leaves=9
)
READ_AS_THEY_ARE = ("Text", "Label", "Flag", "Number", "Key", "Regions")
"""Kinds whose values are in the columns themselves; an image is decoded, which has tests of its own."""


@given(kind=st.sampled_from(READ_AS_THEY_ARE), value=FOREIGN)
@example(kind="Label", value=10**400)
@example(kind="Regions", value=[[1e39]])
@example(kind="Regions", value=[[10**400]])
def test_whatever_a_column_holds_is_a_value_or_a_bad_sample(kind: str, value: object) -> None:
    family = family_of(kind)
    try:
        sample = family.read(SampleColumns({"f": value}, "key"), FieldColumns("f", ("f",), text_characters=100))
    except BadSample:
        return
    if isinstance(sample, TextValue):
        assert sample.text == sample.text.strip() != ""
    else:
        assert all(part is None or bool(torch.isfinite(part.float()).all()) for part in family.collate([sample], None))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(kind, value) for kind in ("Label", "Number") for value in (True, np.True_, b"12", [3], np.array([3]), {"a": 1})]
    + [("Number", "1_000"), ("Number", "three"), ("Number", "inf"), ("Label", 1.5)]
    + [("Text", True), ("Text", np.False_), ("Text", ["a", False]), ("Text", b"a"), ("Text", "  "), ("Text", {"a": "b"})]
    + [("Flag", value) for value in (2, "maybe", [True], b"yes", 0.5)]
    + [("Regions", value) for value in ([["1", "2"]], [[True, False]], [[1.0, None]], [[]], [1, 2], "1", [[1], [1, 2]])]
    + [("Segments", value) for value in ([["1"]], [[True]], [[0.5]], [[-1]], [1], [[None]])],
)
def test_values_of_another_type_are_bad_samples(kind: str, value: object) -> None:
    with pytest.raises(BadSample):
        family_of(kind).read(SampleColumns({"f": value}), FieldColumns("f", ("f",)))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("Label", "7", 7),
        ("Label", 7.0, 7),
        ("Label", np.int32(7), 7),
        ("Number", "1.5", 1.5),
        ("Number", Decimal("1.5"), 1.5),
        ("Number", np.float32(1.5), 1.5),
        ("Text", 1984, TextValue("1984")),
        ("Flag", np.True_, True),
        ("Flag", "no", False),
    ],
)
def test_what_tables_and_json_write_in_another_way_is_read(kind: str, value: object, expected: object) -> None:
    assert family_of(kind).read(SampleColumns({"f": value}), FieldColumns("f", ("f",))) == expected


def test_a_plug_in_is_loaded_for_the_kind_that_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(load=lambda: register_field_kind(VECTOR))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == "vlmdsl.primitives" else [])
    broken_plugins.cache_clear()
    try:
        assert vlmdsl.check(RECIPE) == []
    finally:
        broken_plugins.cache_clear()
        FIELD_KINDS.pop(VECTOR.name, None)


@pytest.mark.usefixtures("_vectors")
class TestVectors:
    def test_an_objective_takes_them_as_features(self) -> None:
        objective = vlmdsl.compile(RECIPE, compiled=False)
        assert objective.inputs["vector"].axes == ("B", "D")
        vectors, texts = torch.randn(5, 8), torch.randn(5, 8, requires_grad=True)
        expected = vlmdsl.compile("recipe clip(image: Image, text: Text)\nminimize contrast(image, text)", compiled=False)
        loss = objective(vector=vectors, text=texts).loss
        torch.testing.assert_close(loss, expected(image=vectors, text=texts).loss)
        with pytest.raises(ValueError, match=r"disagree on the axis D .*vector has 7"):
            objective(vector=torch.randn(5, 7), text=texts)

    def test_a_model_passes_them_on(self) -> None:
        model = VisionLanguageModel(
            {"language": TextTransformer(TextConfig(16, 1, 2, 30, 6), 8, ("pooled",))},
            vlmdsl.compile(RECIPE, compiled=False),
        )
        texts = TextBatch(torch.randint(1, 30, (3, 6)), torch.ones(3, 6, dtype=torch.bool))
        vectors = torch.randn(3, 8)
        loss = model(batch_of({"vector": VectorBatch(vectors), "text": texts}, "abc")).loss
        features = model.encode("language", texts).pooled
        assert features is not None
        torch.testing.assert_close(loss, model.objective(vector=vectors, text=features).loss)

    def test_a_run_reads_them_and_leaves_out_bad_ones(self, tmp_path: Path) -> None:
        rows = [
            {"vector": np.random.default_rng(index).normal(size=8).tolist(), "text": f"text {index}"} for index in range(12)
        ]
        rows[3]["vector"] = [1.0]
        rows[5]["vector"] = {"a": 1}
        rows[7]["vector"] = None
        data = tmp_path / "t.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        (tmp_path / "distilled.vlo").write_text(RECIPE, "utf-8")
        run = vlmdsl.train(tmp_path / "distilled.vlo", data=[str(data)], steps=4, settings=SETTINGS, out=tmp_path / "run")
        skipped = json.loads((run.folder / "run.json").read_text("utf-8"))
        assert "vector is not a vector" in json.dumps(skipped)
        with pytest.raises(DiagnosticError, match=r"V0832.*`text` 16, `vector` 8|V0832.*`vector` 8, `text` 16"):
            vlmdsl.train(tmp_path / "distilled.vlo", data=[str(data)], settings={**SETTINGS, "model.dimension": 16})
