"""Every primitive of the registry keeps its laws, and its page can be shown."""

from __future__ import annotations

import pytest

from vlmdsl.api.explain import explain
from vlmdsl.primitives import Primitive, all_primitives
from vlmdsl.testing.laws import check_primitive

PRIMITIVES = [primitive for primitive in all_primitives().values() if primitive.origin == "vlmdsl"]


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=lambda primitive: primitive.name)
def test_laws(primitive: Primitive) -> None:
    check_primitive(primitive)


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=lambda primitive: primitive.name)
def test_page(primitive: Primitive) -> None:
    page = explain(primitive.name)
    assert primitive.summary in page.to_text()
    assert all(name in page.to_text() for name in primitive.argument_names())
