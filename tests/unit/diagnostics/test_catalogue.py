"""Every code has a page and a program that yields exactly it."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from vlmdsl.api.check import check
from vlmdsl.api.explain import explain
from vlmdsl.diagnostics import Problem, apply_safe_fixes, catalogue
from vlmdsl.diagnostics import catalog as catalog_package

CODES = catalogue()
STAGES = ("V01", "V02", "V03", "V04", "V05", "V06", "V08", "V09")


def codes_of(program: str) -> list[str]:
    """The codes of a catalogue program, its `# file:` and `# param:` lines obeyed."""
    file = re.search(r"^# file: (.+)$", program, re.MULTILINE)
    knobs: dict[str, object] = {}
    for name, value in re.findall(r"^# param: (\w+)=(.+)$", program, re.MULTILINE):
        knobs[name] = float(value) if re.fullmatch(r"[0-9.]+", value) else value
    return [diagnostic.code for diagnostic in check(program, file=file[1] if file else "mine.vlo", knobs=knobs)]


def test_there_are_enough_codes_and_all_modules_are_loaded() -> None:
    folder = Path(catalog_package.__file__ or "").parent
    on_disk = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    declared = {code for path in folder.glob("*.py") for code in re.findall(r'code = "(V\d{4})"', path.read_text("utf-8"))}
    assert declared == set(CODES), f"modules of the catalogue: {sorted(on_disk)}"
    assert len(CODES) >= 40


@pytest.mark.parametrize("code", [code for code, problem in CODES.items() if problem.bad])
def test_the_bad_program_yields_exactly_this_code(code: str) -> None:
    assert codes_of(CODES[code].bad) == [code]


@pytest.mark.parametrize("code", [code for code, problem in CODES.items() if problem.good])
def test_the_good_program_yields_nothing(code: str) -> None:
    assert codes_of(CODES[code].good) == []


@pytest.mark.parametrize("problem", CODES.values(), ids=CODES)
def test_the_class_is_complete(problem: type[Problem]) -> None:
    assert re.fullmatch(r"V\d{4}", problem.code)
    assert problem.code.startswith(STAGES)
    assert problem.summary
    assert "\n" not in problem.summary
    assert "\n" not in problem.template
    assert len(problem.explanation) > 60
    assert bool(problem.bad) == bool(problem.good)
    assert bool(problem.bad) != bool(problem.provoked_by), "a program, or in words what provokes it"
    assert all(name is None or name.isidentifier() for _, name, _, _ in Formatter().parse(problem.template))


def test_a_safe_fix_corrects_its_program() -> None:
    corrected = set()
    for code, problem in CODES.items():
        for diagnostic in check(problem.bad, file="mine.vlo") if problem.bad else ():
            if diagnostic.fix is not None and diagnostic.fix.safe:
                corrected.add(code)
                assert check(apply_safe_fixes(problem.bad, "mine.vlo", [diagnostic]), file="mine.vlo") == []
    assert corrected >= {"V0104", "V0105", "V0108", "V0122", "V0123", "V0124", "V0130", "V0304"}


@pytest.mark.parametrize("code", CODES)
def test_the_page_shows_what_the_class_says(code: str) -> None:
    page = explain(code.lower()).to_text()
    title, *rest = page.splitlines()
    assert title.startswith(f"{code}: ")
    assert title not in "\n".join(rest)
    assert " ".join(CODES[code].explanation.split()) in " ".join(page.split())
    for program in (CODES[code].bad, CODES[code].good):
        assert all(line in page for line in program.splitlines())
