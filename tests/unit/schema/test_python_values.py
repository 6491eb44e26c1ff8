"""Settings and arguments as callers in Python have them: lists, tuples, paths, iterators, numbers of numpy and torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmdsl.schema import CallSettings, RunConfig, load_config
from vlmdsl.schema.python_values import as_setting


def loaded(settings: Any = None, **arguments: object) -> RunConfig:
    config, diagnostics = load_config(flags=CallSettings(settings or {}, arguments))
    assert config is not None, [diagnostic.message for diagnostic in diagnostics]
    return config


BETAS: dict[str, Callable[[], object]] = {
    "list": lambda: [0.9, 0.98],
    "tuple": lambda: (0.9, 0.98),
    "iterator": lambda: (number for number in (0.9, 0.98)),
    "values": lambda: {"first": 0.9, "second": 0.98}.values(),
    "numpy array": lambda: np.array([0.9, 0.98]),
    "numpy numbers": lambda: [np.float64(0.9), np.float64(0.98)],
    "torch tensor": lambda: torch.tensor([0.9, 0.98], dtype=torch.float64),
}


@pytest.mark.parametrize("form", BETAS)
def test_a_list_is_any_form_of_one(form: str) -> None:
    assert loaded({"optimizer.betas": BETAS[form]()}).optimizer.betas == (0.9, 0.98)
    assert loaded({"optimizer": {"betas": BETAS[form]()}}).optimizer.betas == (0.9, 0.98)
    assert loaded({"stages.first.optimizer.betas": BETAS[form]()}).stages["first"].optimizer.betas == (0.9, 0.98)


def test_paths_and_numbers() -> None:
    settings = {
        "data": {"val": [Path("a") / "b.tar", "c.tar"], "train": Path("d.tar"), "map": {"text": Path("caption")}},
        "train": {"batch": np.int64(8), "compile": np.bool_(False), "clip_gradient_norm": torch.tensor(2.0)},
        "model.freeze": {"vision": ["embedding*"], "language": np.int32(1)},
        "model.lora": {"vision": {"targets": ["*query"]}},
        "data.weights": range(1, 3),
        "out": Path("runs") / "one",
    }
    config = loaded(settings)
    assert config.data.val == (str(Path("a/b.tar")), "c.tar")
    assert (config.data.train, config.data.map) == (("d.tar",), {"text": "caption"})
    assert (config.train.batch, config.train.compile, config.train.clip_gradient_norm) == (8, False, 2.0)
    assert config.model.freeze == {"vision": ("embedding*",), "language": 1}
    assert config.model.lora["vision"].targets == ("*query",)
    assert (config.data.weights, config.out) == ((1, 2), str(Path("runs/one")))


def test_a_call_does_not_change_what_it_is_given() -> None:
    settings = {"data.map": {"text": "caption"}, "data.val": ["a.tar"]}
    loaded(settings, **{"data.map": {"label": "class"}})
    assert settings == {"data.map": {"text": "caption"}, "data.val": ["a.tar"]}


def test_the_same_value_in_another_form_is_given_once() -> None:
    flags = {"data.train": [Path("a.tar")], "optimizer.betas": [0.9, np.float64(0.98)]}
    config, diagnostics = load_config(overrides=["data.train=a.tar", "optimizer.betas=[0.9, 0.98]"], flags=flags)
    assert (config is not None, diagnostics) == (True, [])
    _, (fault,) = load_config(overrides=["optimizer.betas=[0.9, 0.98]"], flags={"optimizer.betas": [0.9, 0.95]})
    assert (fault.code, fault.message) == ("V0848", "`optimizer.betas` is given twice: [0.9, 0.98] and [0.9, 0.95]")


def cyclic() -> list[object]:
    own: list[object] = []
    own.append(own)
    return own


MISTAKES: dict[str, tuple[Any, tuple[str, str]]] = {
    "a set": ({"data.val": {"a.tar"}}, ("V0812", "`data.val` must be a list")),
    "a number": ({"data.val": 3}, ("V0812", "`data.val` must be a list")),
    "numbers in it": ({"data.val": [3]}, ("V0812", "`data.val[0]` must be a valid string")),
    "a text in place of a number": ({"train.batch": "8"}, ("V0812", "`train.batch` must be a valid integer")),
    "too many": ({"optimizer.betas": [0.9, 0.98, 0.99]}, ("V0812", "`optimizer.betas` must have at most 2, and has 3")),
    "too few": ({"optimizer.betas": [0.9]}, ("V0812", "`optimizer.betas[1]` is missing")),
    "none": ({"data.train": []}, ("V0812", "`data.train` must have at least 1, and has 0")),
    "a text in place of a mapping": ({"data.map": "text=caption"}, ("V0812", "`data.map` must be a mapping")),
    "a matrix": ({"optimizer.betas": np.eye(2)[:, :1]}, ("V0812", "`optimizer.betas[0]` must be a valid number")),
    "a list of itself": ({"data.val": cyclic()}, ("V0812", "`data.val[0]` must be a valid string")),
    "texts": (["train.batch=8"], ("V0812", "`settings` must be a mapping of values by dotted name")),
    "a number as a name": ({8: 1}, ("V0811", "there is no setting `8`")),
    "a name with a gap": ({"train..batch": 8}, ("V0811", "there is no setting `train..batch`")),
    "a long name": ({".".join("abcdefghijk"): 8}, ("V0811", "there is no setting `a.b.c.d.e.f.g.h.i.j.k`")),
    "a section that was moved": ({"lowering.budget": 8}, ("V0811", "there is no setting `lowering.budget`")),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_what_is_wrong_is_said(what: str) -> None:
    settings, (code, said) = MISTAKES[what]
    config, diagnostics = load_config(flags=CallSettings(settings, {}))
    assert config is None
    fault = diagnostics[0]
    assert (fault.code, fault.message) == (code, said)
    assert len(fault.primary.text) < 100


def test_other_values_stay_as_they_are() -> None:
    own = object()
    assert as_setting(own) is own
    assert as_setting({1: [b"bytes", None, True]}) == {"1": (b"bytes", None, True)}


def test_one_override_stands_for_a_list_of_one() -> None:
    one = load_config(overrides="train.steps=5")  # type: ignore[arg-type]
    several = load_config(overrides=(text for text in ("train.steps=5",)))
    assert one == several == load_config(overrides=["train.steps=5"])
