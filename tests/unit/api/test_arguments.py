"""Arguments in any form that means the same, and what is said of others; no text is read letter by letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlmdsl
from vlmdsl.api.classify import classify
from vlmdsl.api.data import check_data, convert_data, preview_data
from vlmdsl.api.encode import encode
from vlmdsl.api.plan import plan_flows
from vlmdsl.api.search import search
from vlmdsl.diagnostics import DiagnosticError

Forms = dict[str, Any]
SOURCES: dict[str, Callable[[], object]] = {
    "a text": lambda: "a.tar",
    "a path": lambda: Path("a.tar"),
    "a list": lambda: ["a.tar"],
    "a list of a path": lambda: [Path("a.tar")],
    "a tuple": lambda: ("a.tar",),
    "an iterator": lambda: (name for name in ("a.tar",)),
    "a set of keys": lambda: {"a.tar": 1}.keys(),
}


@pytest.mark.parametrize("form", SOURCES)
def test_data_in_any_form(form: str) -> None:
    of = SOURCES[form]
    trainer = vlmdsl.Trainer("clip", data=of(), val=of(), settings={"data.allowed_folders": of()}, out=Path("runs/one"))  # type: ignore[arg-type]
    data = trainer.config.data
    assert (data.train, data.val, data.allowed_folders, trainer.config.out) == (("a.tar",),) * 3 + ("runs/one",)


@pytest.mark.parametrize("form", SOURCES)
def test_every_command_reads_data_in_any_form(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of: Any = SOURCES[form]
    commands: dict[str, Callable[[], object]] = {
        "compare": lambda: vlmdsl.compare("clip", data=of(), val=of(), steps=1),
        "overfit": lambda: vlmdsl.overfit("clip", data=of(), val=of()),
        "check_data": lambda: check_data(of()),
        "preview_data": lambda: preview_data(of(), "grid.png"),
        "convert_data": lambda: convert_data(of(), "shards"),
        "plan_flows": lambda: plan_flows("clip", overrides="data.train=[a.tar]"),
    }
    for name, command in commands.items():
        with pytest.raises(DiagnosticError) as caught:
            command()
        (fault,) = caught.value.diagnostics
        assert (name, fault.code, "a.tar" in fault.message) == (name, "V0805", True)


def test_numbers_of_numpy_are_hyper_parameters() -> None:
    knobs = {"temperature": np.float32(0.5)}
    own = vlmdsl.Trainer("clip", knobs=knobs)._built[0]
    assert dict(own.written.knobs)["temperature"] == 0.5
    assert vlmdsl.compile("clip", compiled=False, temperature=np.float64(0.5)).inputs.keys() == {"image", "text"}


MISTAKES: dict[str, tuple[Callable[..., object], Forms, str]] = {
    "data is a number": (vlmdsl.Trainer, {"data": 3}, "V0812 `data.train[0]` must be a valid string"),
    "data holds a number": (vlmdsl.Trainer, {"data": ["a.tar", 3]}, "V0812 `data.train[1]` must be a valid string"),
    "val is a mapping": (vlmdsl.Trainer, {"val": {"a": 1}}, "V0812 `data.val[0]` must be a valid string"),
    "map is a text": (vlmdsl.Trainer, {"map": "text=caption"}, "V0812 `data.map` must be a mapping"),
    "map holds a number": (vlmdsl.Trainer, {"map": {"text": 3}}, "V0812 `data.map.text` must be a valid string"),
    "settings are texts": (
        vlmdsl.Trainer,
        {"settings": ["a=1"]},
        "V0812 `settings` must be a mapping of values by dotted name",
    ),
    "hyper-parameters are texts": (
        vlmdsl.Trainer,
        {"knobs": ["temperature=1"]},
        "V0812 `knobs` must be a mapping of values by the name of a hyper-parameter",
    ),
    "a hyper-parameter is a list": (
        vlmdsl.Trainer,
        {"knobs": {"temperature": [1]}},
        "V0409 hyper-parameter `temperature`: expected a number, not [1]",
    ),
    "overrides are a mapping": (
        vlmdsl.Trainer,
        {"overrides": {"train.batch": 8}},
        "V0813 `--set` expects SECTION.SETTING=VALUE, not `{'train.batch': 8}`",
    ),
    "config is a mapping": (vlmdsl.Trainer, {"config": {"train": {}}}, "V0812 `config` must be the path of a YAML file"),
    "an override in a plan": (
        plan_flows,
        {"overrides": "train.batch"},
        "V0813 `--set` expects SECTION.SETTING=VALUE, not `train.batch`"),
    "data of a comparison": (vlmdsl.compare, {"data": [3]}, "V0812 `data.train[0]` must be a valid string"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_what_is_wrong_is_said(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, arguments, said = MISTAKES[what]
    with pytest.raises(DiagnosticError) as caught:
        call("clip", **arguments)
    assert [f"{fault.code} {fault.message}" for fault in caught.value.diagnostics] == [said]
    assert not list(tmp_path.iterdir())


READING: dict[str, Callable[[Any, Any], object]] = {
    "check_data": lambda data, map: check_data(data, map=map),
    "preview_data": lambda data, map: preview_data(data, "grid.png", map=map),
    "convert_data": lambda data, map: convert_data(data, "shards", map=map),
    "search": lambda data, map: search("run", data, "a cat", grid="grid.png", map=map),
    "classify": lambda data, map: classify("run", data, "cat,dog", map=map),
    "encode": lambda data, map: encode("run", data, "images.npy", map=map),
}


@pytest.mark.parametrize("command", READING)
def test_data_that_cannot_be_read_is_said_before_a_model_is_loaded(command: str) -> None:
    for data, map, said in (
        ([3], None, "`data.train[0]` must be a valid string"),
        ("shapes", "caption", "`data.map` must be a mapping"),
        ([], None, "`data.train` must have at least 1, and has 0"),
    ):
        with pytest.raises(DiagnosticError) as caught:
            READING[command](data, map)
        assert [fault.message for fault in caught.value.diagnostics] == [said]
