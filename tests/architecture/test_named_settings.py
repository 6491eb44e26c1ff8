"""Every setting that texts for users name exists: in headers of recipes, in pages, in what diagnostics and help say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from vlmdsl.schema import RunConfig, load_config, setting_names

ROOT = Path(__file__).parents[2]
SECTIONS = "|".join(name for name in RunConfig.model_fields if name != "out")
NAMED = re.compile(rf"`(?:--set )?'?((?:{SECTIONS})(?:\.[\w*{{}}-]+)+)(?:=[^`]*)?`")
"""A setting in backticks, with or without a value."""
SET = re.compile(r"--set[ \n]+['\"]?([\w.*{}-]+\.[\w.*{}-]+)=")
"""One that a command sets."""
FILES = re.compile(r"\.(?:json|jsonl|yaml|py|csv|tsv|tar|parquet|safetensors|vlo|txt|png)$")
OTHERS = {
    "docs/architecture.md": {"evaluation.drawn_towers", "evaluation.image_names"},  # functions
    "vlmdsl/api/data.py": {"data.setting"},  # any of them
    "vlmdsl/diagnostics/catalog/configuration.py": {"train.step"},  # what provokes V0811
}
"""What has the form of a setting and is meant otherwise."""


def texts(path: Path) -> Iterator[str]:
    """What users read of a file: its lines, the documentation of a recipe, the strings of a module."""
    if path.suffix == ".py":
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        about = (
            {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            if {"runtime", "backends"} & {*path.parts}
            else set()
        )
        for node in nodes:  # what is said about the code of the run time is not for users
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about:
                yield node.value
    else:
        yield path.read_text(encoding="utf-8")


def named(path: Path) -> set[str]:
    """The settings that a file names."""
    names = {match for text in texts(path) for pattern in (NAMED, SET) for match in pattern.findall(text)}
    names = {re.sub(r"^(stages|flows)\.\{\}", r"\1.NAME", name) for name in names if not FILES.search(name)}
    others = OTHERS.get(path.relative_to(ROOT).as_posix(), set()) if path.is_relative_to(ROOT) else set()
    return {name for name in names - others if "{" not in name}


@cache
def fault(name: str) -> str:
    """Why no run can have the setting; "" if one can. `data.max_*` are all that begin so."""
    if name[-1] == "*" and any(fnmatchcase(own, name) for own in setting_names()):
        return ""
    section, _, setting = name.partition(".")[2].partition(".")[2].partition(".")  # of stages.NAME.section.setting
    own = getattr(RunConfig(), section, None) if name.startswith("stages.") else None
    _, diagnostics = load_config(flags={name: getattr(own, setting, None)})
    return next((each.message for each in diagnostics if each.code == "V0811" or " cannot set " in each.message), "")


def files() -> list[Path]:
    pages = [ROOT / "README.md", *(path for path in (ROOT / "docs").glob("*.md"))]
    code = [path for top in ("vlmdsl", "cli") for path in (ROOT / top).rglob("*.py")]
    return [*(ROOT / "recipes").rglob("*.vlo"), *pages, *code]


def test_every_setting_that_is_named_exists() -> None:
    every = {path.relative_to(ROOT).as_posix(): named(path) for path in files()}
    assert sum(map(len, every.values())) > 200
    faults = [f"{path}: {reason}" for path, names in every.items() for name in sorted(names) if (reason := fault(name))]
    assert faults == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a later stage is longer (`stages.second.train.steps`)", ""),
        ("its shares are `flows.NAME.share`, its rate `optimizer.tower_rates.language=0.1`", ""),
        ("`model.lora.TOWER.rank`, `schedule.lowering.contrast=chunked`, `data.map.text`, `train.batch=...`", ""),
        ("larger images (`stages.all.model.imagesize`)", "there is no setting `stages.all.model.imagesize`"),
        ("another width (`stages.all.model.dimension=32`)", "`stages.all.model` cannot set `dimension`"),
        ("    vlmdsl train clip --set train.step=3", "there is no setting `train.step`"),
        ("`evaluation.json` is written, `model.encode_image(images)` encodes", ""),
    ],
)
def test_the_search_finds_them(text: str, reason: str, tmp_path: Path) -> None:
    (page := tmp_path / "page.md").write_text(text)
    messages = [message for name in sorted(named(page)) if (message := fault(name))]
    assert [message.partition(", which")[0] for message in messages] == ([reason] if reason else [])
