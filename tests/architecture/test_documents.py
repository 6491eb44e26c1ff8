"""What CONTRIBUTING.md, docs/architecture.md and the decisions name is there: parts, files, functions, codes."""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from vlmdsl.diagnostics import catalogue
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl_cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
DOCUMENTS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md", *DECISIONS]
FOLDERS = ("vlmdsl", "cli", "tests", "docs", "recipes", "benchmarks", "grammar")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
"""FAMILY, NAME, STAGE: what the reader fills in."""


def named_paths(text: str) -> list[str]:
    """What stands between backquotes and looks like a path from the root of the repository."""
    return [word for word in re.findall(r"`([\w./*-]+)`", text) if word.split("/")[0] in FOLDERS and "/" in word]


def existing(word: str) -> list[Path]:
    """The files and folders that a named path may be, `FAMILY.py` being any."""
    return sorted(ROOT.glob(PLACEHOLDER.sub("*", word.rstrip("/"))))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path) -> None:
    missing = [word for word in named_paths(document.read_text("utf-8")) if not existing(word)]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_codes_and_decisions_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    assert set(re.findall(r"\bV\d{4}\b", text)) <= set(catalogue())
    numbers = {path.name[:4] for path in DECISIONS}
    assert set(re.findall(r"\bADR (\d{4})\b", text)) <= numbers


def steps(text: str) -> list[str]:
    """The numbered steps of CONTRIBUTING.md."""
    return re.findall(r"^\d\. (.*?)(?=^\d\. |^## |^[A-Z]|\Z)", text, re.MULTILINE | re.DOTALL)


def test_the_names_of_a_step_are_in_the_files_of_that_step() -> None:
    entries = steps((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(entries) > 15
    for step in entries:
        files = [
            file
            for word in named_paths(step)
            for path in existing(word)
            for file in (path.rglob("*.py") if path.is_dir() else [path])
        ]
        source = "\n".join(file.read_text("utf-8") for file in files if file.suffix == ".py")
        for name in re.findall(r"`(?:output\.)?([A-Za-z_]\w+)\([^`]*\)`", step) + re.findall(
            r"`(_?[A-Z]{2,}[A-Z_]*)`", step
        ):
            if source:
                assert re.search(rf"\b{name}\b", source), f"{name} is in none of the files of this step: {step}"


def test_the_parts_are_the_folders() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \|", text.partition("## 0.")[2].partition("## 1.")[0], re.MULTILINE)
    folders = {path.name for path in (ROOT / "vlmdsl").iterdir() if (path / "__init__.py").is_file()}
    assert sorted(table) == sorted(folders)


def test_the_parts_stand_in_the_order_of_the_import_contract() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \|", text.partition("## 0.")[2].partition("## 1.")[0], re.MULTILINE)
    contract = (ROOT / "pyproject.toml").read_text("utf-8").partition('containers = ["vlmdsl"]')[2].partition("]\n\n")[0]
    layers = [layer for layer in re.findall(r"\w+", contract.partition("layers = [")[2]) if not layer.startswith("_")]
    assert table == layers


def test_decisions_are_numbered_in_a_row_and_say_what_they_are() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(len(DECISIONS))]
    for path in DECISIONS[1:]:
        title, _, body = path.read_text("utf-8").partition("\n")
        assert title.startswith(f"# {path.name[:4]}: "), path.name
        assert re.search(r"^Date: \d{4}-\d\d-\d\d.*Status: (accepted|superseded by \d{4})\.", body, re.MULTILINE), path.name
        assert [part for part in ("Context", "Decision", "Consequences", "Rejected") if f"\n## {part}\n" not in body] == []


def test_every_command_is_a_file() -> None:
    assert {path.stem for path in (ROOT / "cli/vlmdsl_cli/commands").glob("*.py")} - {"__init__"} == set(COMMANDS)


VALUES = "vlmdsl.backends.torch.values"
DESCRIBED = {
    "TokenFeatures": VALUES, "Similarities": VALUES, "Memory": VALUES, "Table": VALUES, "Picks": VALUES, "Target": VALUES,
    "EncodedFeatures": "vlmdsl.runtime.modules.towers.contract", "FieldColumns": "vlmdsl.runtime.values.family",
    **dict.fromkeys(
        ("Batch", "TextBatch", "ImageBatch", "RegionBatch", "ScalarBatch", "KeptPatches", "Noise", "MaskedTokens",
         "TowerInput", "Share"),
        "vlmdsl.runtime.values",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "module"), DESCRIBED.items())
def test_tensors_are_described_as_they_are(name: str, module: str) -> None:
    """Fields in their order; a table or matrix may have more, which the text next to it explains."""
    kind = getattr(import_module(module), name)
    fields = list(getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)])
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    (described,) = set(re.findall(rf"\b{name}\(([^)]*)\)", text))
    named = re.findall(r"(?:^|, )\s*(\w+)", re.sub(r"\[[^\]]*\]", "", described))
    assert named == fields[: len(named)]
    rest = text.partition(f"{name}({described})")[2][:400]
    assert [field for field in fields[len(named) :] if f"`{field}`" not in rest] == []


def test_the_table_of_operations_is_that_of_the_records() -> None:
    specification = spec_from_file_location("make_operations", ROOT / "docs" / "make_operations.py")
    assert specification is not None
    assert specification.loader is not None
    script = module_from_spec(specification)
    specification.loader.exec_module(script)
    assert script.page() == script.PAGE.read_text("utf-8"), "run `python docs/make_operations.py`"


def test_every_operation_says_what_it_takes_carries_and_gives() -> None:
    for operation in (operation for operation in OPERATIONS.values() if not operation.module):
        assert operation.gives, operation
        assert operation.attributes.keys() <= set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", operation.carries)))), (
            operation
        )
