"""How the operations of a step run, as settings: `schedule.lowering`, and what is said of the section it once was."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.schema import RunConfig, dump_config, load_config


def loaded(folder: Path, text: str, *overrides: str, **flags: object) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    settings = {name.replace("__", "."): value for name, value in flags.items()}
    config, diagnostics = load_config(str(path), overrides, settings)
    assert config is not None, [diagnostic.message for diagnostic in diagnostics]
    return config


def faults(folder: Path, text: str, *overrides: str) -> list[Diagnostic]:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    config, diagnostics = load_config(str(path), overrides)
    assert config is None
    return diagnostics


def applied(text: str, diagnostic: Diagnostic) -> str:
    """The text with what the diagnostic suggests."""
    assert diagnostic.fix is not None
    for edit in sorted(diagnostic.fix.edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    return text


def test_it_is_a_name_or_a_mapping_beside_the_learning_rate(tmp_path: Path) -> None:
    text = "schedule:\n  warmup_steps: 7\n  final: 0.5\n  lowering: chunked\n  lowering_budget: 99\n"
    schedule = loaded(tmp_path, text).schedule
    assert (schedule.warmup_steps, schedule.final, schedule.lowering, schedule.lowering_budget) == (7, 0.5, "chunked", 99)
    config = loaded(tmp_path, "schedule: {lowering: {contrast: dense, '*': chunked}}")
    assert config.schedule.lowering == {"contrast": "dense", "*": "chunked"}
    (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(str(tmp_path / "again.yaml")) == (config, [])


def test_later_layers_add_terms_or_replace_all(tmp_path: Path) -> None:
    text = "schedule: {lowering: chunked}"
    both = {"*": "chunked", "contrast": "dense"}
    assert loaded(tmp_path, text, "schedule.lowering.contrast=dense").schedule.lowering == both
    assert loaded(tmp_path, text, "schedule.lowering={contrast: dense}").schedule.lowering == both
    assert loaded(tmp_path, text, schedule__lowering={"contrast": "dense"}).schedule.lowering == both
    assert loaded(tmp_path, "schedule: {lowering: {contrast: dense}}", "schedule.lowering=auto").schedule.lowering == "auto"


@pytest.mark.parametrize("value", ["kernel", "3", "[dense]", "{contrast: kernel}", "{contrast: 3}"])
def test_what_is_not_a_lowering_is_one_fault(tmp_path: Path, value: str) -> None:
    (fault,) = faults(tmp_path, f"schedule:\n  lowering: {value}\n")
    assert (fault.code, fault.message) == (
        "V0812",
        "`schedule.lowering` must be auto, dense or chunked, or a mapping of terms to these",
    )


SECTIONS = {
    "lowering:\n  default: chunked\n": ("chunked", 2**30),
    "lowering: {default: chunked, budget: 99}\ntrain:\n  steps: 3\n": ("chunked", 99),
    "train:\n  steps: 3\nlowering:\n  terms: {contrast: dense}\n  budget: 99\nout: x\n": ({"contrast": "dense"}, 99),
    "schedule:\n  final: 0.5\nlowering:\n  default: chunked\n  terms:\n    contrast: dense\n": (
        {"*": "chunked", "contrast": "dense"},
        2**30,
    ),
    "lowering:\n  default: dense\n\n# the rate\nschedule: {final: 0.5, warmup_steps: 3}": ("dense", 2**30),
    "lowering:\ntrain:\n  steps: 3\n": ("auto", 2**30),
}


@pytest.mark.parametrize("text", SECTIONS, ids=range(len(SECTIONS)))
def test_the_earlier_section_is_moved_by_the_suggestion(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert (fault.code, fault.message) == ("V0811", "there is no setting `lowering`")
    assert ("write `lowering: chunked` under `schedule:`" in fault.help) == (SECTIONS[text][0] == "chunked")
    config = loaded(tmp_path, applied(text, fault))
    assert (config.schedule.lowering, config.schedule.lowering_budget) == SECTIONS[text]
    assert config.schedule.final == (0.5 if "final" in text else 0.0)
    assert config.train.steps == (3 if "steps: 3" in text and "train" in text else 400)


@pytest.mark.parametrize(
    "text",
    ["{lowering: {default: dense}}", "lowering: dense\n", "lowering: {kind: dense}", "schedule:\nlowering: {budget: 9}\n"],
)
def test_what_cannot_be_moved_is_said_without_an_edit(tmp_path: Path, text: str) -> None:
    fault = next(fault for fault in faults(tmp_path, text) if fault.code == "V0811")
    assert fault.fix is None
    assert "`schedule`" in fault.help[0]


@pytest.mark.parametrize(
    ("override", "now"),
    [
        ("lowering.default=chunked", "schedule.lowering=chunked"),
        ("lowering.terms.contrast=dense", "schedule.lowering.contrast=dense"),
        ("lowering.terms={contrast: dense}", "schedule.lowering={contrast: dense}"),
        ("lowering.budget=99", "schedule.lowering_budget=99"),
        ("lowering=dense", "schedule.lowering=dense"),
    ],
)
def test_the_earlier_name_of_an_override_is_corrected(tmp_path: Path, override: str, now: str) -> None:
    (fault,) = faults(tmp_path, "", override)
    assert applied(override, fault) == now
    assert loaded(tmp_path, "", now)
