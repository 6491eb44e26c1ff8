"""Towers and heads may be called what modules have methods for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlmdsl.runtime.model.named import NamedModules


@pytest.mark.parametrize("name", ["items", "forward", "keys", "training", "type", "vision"])
def test_any_name_is_a_key(name: str) -> None:
    named = NamedModules({name: nn.Linear(2, 3)})
    assert list(named) == [name]
    assert named[name](torch.ones(1, 2)).shape == (1, 3)
    again = NamedModules({name: nn.Linear(2, 3)})
    again.load_state_dict(named.state_dict())
    assert torch.equal(again[name].weight, named[name].weight)
    assert sorted(named.state_dict()) == [f"{name}.bias", f"{name}.weight"]
