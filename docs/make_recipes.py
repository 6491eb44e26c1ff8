"""`docs/recipes.md`, from the recipes, the oracle tests and the training evidence: `python docs/make_recipes.py`.

Needs no torch. A test compares the committed file with what this gives.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdsl.api.driver import build_flows
from vlmdsl.api.explain import Explanation, explain
from vlmdsl.ir.digest import digest
from vlmdsl.source.bundled import bundled_names

sys.path.insert(0, str(Path(__file__).parent))
from survey import by_section, objectives_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipes.md"
RECIPES = ROOT / "recipes"
ORACLES = ROOT / "tests" / "oracles"
PICTURES = ROOT / "docs" / "images" / "recipes"
EVIDENCE = ROOT / "benchmarks" / "results" / "evidence.json"

HEAD = """\
# Recipes

The bundled recipes, written by `python docs/make_recipes.py`, by the sections of the survey *Vision-Language Models for
Vision Tasks* (arXiv:2304.00685): the text of each recipe, its formula as printed by `vlmdsl explain RECIPE --latex`, its
requirements, and the evidence for it, with a picture of what it learnt where there is one. An oracle is a set of inputs
with the losses and gradients of the authors' code (*official*), a trusted re-implementation (*reference*), the paper's
formula (*paper*) or, where none of these exists, a *reconstruction*; the files are in `tests/oracles/data/`. Training
evidence is `benchmarks/results/evidence.json`, measured by `python benchmarks/evidence.py`: small models on small data,
to show that a recipe trains, not how good a method is.
"""


@dataclass(frozen=True)
class Oracle:
    """One oracle and what it is compared with: the bundled recipe as a whole, or parts of it in a test of their own."""

    name: str
    term: str
    source: str
    whole: bool


def make(evidence: Mapping[str, Any] | None = None) -> str:
    """The page; `evidence` in place of the committed one."""
    if evidence is None:
        evidence = json.loads(EVIDENCE.read_text(encoding="utf-8"))["recipes"] if EVIDENCE.is_file() else {}
    names = bundled_names()
    oracles = oracles_of(names)
    explained = {name: explain(name) for name in names}
    parts = [HEAD]
    sections = by_section(names)
    for section, own in sections.items():
        rows = [
            f"| [`{name}`](#{name}) | {_row(name, explained[name], oracles[name], evidence.get(name))} |" for name in own
        ]
        parts += [
            f"**{section}**",
            "",
            "| recipe | method | objectives | oracles | trains |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    for section, own in sections.items():
        pages = [_recipe(name, explained[name], oracles[name], evidence.get(name)) for name in own]
        parts += [f"## {section}", "", "\n\n".join(pages), ""]
    return "\n".join(parts).rstrip() + "\n"


def oracles_of(names: Sequence[str]) -> dict[str, list[Oracle]]:
    """The oracles that tests use, by the recipe they are about, in the order of their names.

    An oracle's file begins with its method; the longest recipe name that it begins with is the recipe. It is compared with
    the bundled recipe as a whole by `Case("oracle", "recipe", ...)`, and in test files that compile the recipe by its name.
    """
    listed: dict[str, list[Oracle]] = {name: [] for name in names}
    stored = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ORACLES / "data").glob("*.json"))}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ORACLES.glob("*.py"))]
    for oracle, about in stored.items():
        owner = _owner(oracle, names)
        users = [tree for tree in trees if _strings(tree) & {oracle, f"{oracle}.npz"}]
        recipes = {recipe for tree in users for recipe in _cases(tree).get(oracle, ())}
        whole = {recipe for recipe in recipes if recipe in names}
        if not recipes and any(owner in _strings(tree) for tree in users):
            whole = {owner}
        for name in sorted(filter(None, whole or ({owner} if users else ()))):
            listed[name].append(Oracle(oracle, about["term"], _source(about), name in whole))
    return listed


def _strings(tree: ast.AST) -> set[object]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def _cases(tree: ast.AST) -> dict[object, set[object]]:
    """The first argument of every call in a test file -> the second, None where that is not written out."""
    cases: dict[object, set[object]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[0], ast.Constant):
            second = node.args[1]
            recipe = second.value if isinstance(second, ast.Constant) else None
            if recipe is None or isinstance(recipe, str):
                cases.setdefault(node.args[0].value, set()).add(recipe)
    return cases


def _owner(oracle: str, names: Sequence[str]) -> str | None:
    method = oracle.partition("-")[0]
    fitting = [name for name in names if method in (name, name.replace("_", "")) or method.startswith(f"{name}_")]
    return max(fitting, key=len, default=None)


def _source(about: Mapping[str, Any]) -> str:
    repository, commit = about.get("repo") or "", about.get("commit") or ""
    named = "/" in repository
    where = f" ({repository}{'@' + commit[:7] if len(commit) == 40 else ''})" if named else ""
    return f"{about['source']}{where}"


def _first_line(explanation: Explanation) -> str:
    lines = str(explanation.facts["documentation"]).splitlines()
    return _cell(lines[0]) if lines else ""


def _row(name: str, explanation: Explanation, oracles: Sequence[Oracle], evidence: Mapping[str, Any] | None) -> str:
    return " | ".join((_first_line(explanation), objectives_of(name), _count(oracles), _trains(evidence)))


def _count(oracles: Sequence[Oracle]) -> str:
    whole = sum(oracle.whole for oracle in oracles)
    words = [f"{whole} of the recipe"] if whole else []
    words += [f"{len(oracles) - whole} of parts"] if len(oracles) > whole else []
    return ", ".join(words) or "none"


def _trains(evidence: Mapping[str, Any] | None) -> str:
    if evidence is None:
        return "not shown yet"
    failed = [name for name, check in _checks(evidence).items() if not check["passed"]]
    return f"not as expected: {', '.join(failed)}" if failed else "yes"


def _checks(evidence: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The checks of an entry, of whatever kind: name -> whether it passed, and what was measured in words."""
    return {name: check for name, check in evidence.items() if isinstance(check, Mapping) and "statement" in check}


def _recipe(name: str, explanation: Explanation, oracles: Sequence[Oracle], evidence: Mapping[str, Any] | None) -> str:
    facts: Mapping[str, Any] = explanation.facts
    cites = ", ".join(_citation(text) for text in facts["citations"])
    rows = {"cites": cites, "status": _cell(facts["status"])}
    parts = [f"### {name}", "", facts["documentation"], "", "```", _written(name), "```", ""]
    objectives = facts.get("flows", [facts])
    for objective in objectives:
        title = _title(objective)
        parts += [*([f"{title}:", ""] if title else []), "```math", objective["latex"], "```", ""]
        rows |= {f"{row} ({title})" if title else row: text for row, text in _rows(objective, explanation).items()}
    rows["hyper-parameters"] = _cell(", ".join(f"`{name}` = {_value(value)}" for name, value in facts["knobs"].items()))
    parts += ["| | |", "|---|---|", *(f"| {title} | {text} |" for title, text in rows.items() if text), ""]
    parts += _oracle_lines(oracles)
    parts += _training_lines(evidence, facts)
    return "\n".join(parts).rstrip()


def _title(objective: Mapping[str, Any]) -> str:
    """Which objective of several it is: `stage first, flow texts`; "" for the only one."""
    return ", ".join(f"{part} `{objective[part]}`" for part in ("stage", "flow") if objective.get(part))


def _rows(objective: Mapping[str, Any], explanation: Explanation) -> dict[str, str]:
    """What one objective needs, by the heading of its row."""
    title = objective.get("title", "")
    sections = {
        heading.removeprefix(f"{title}: "): text
        for heading, text in explanation.sections
        if not title or heading.startswith(f"{title}: ")
    }
    return {
        "fields": _cell(", ".join(f"`{field}` {type}" for field, type in objective["fields"].items())),
        "encoders": _lines(sections.get("Encoders", "")),
        "heads": _lines(sections.get("Heads", "")),
        "reference set": _lines(sections.get("Reference set", "")),
        "batches": _cell(sections.get("Batches", "")),
        "learned": _lines(sections.get("Learned parameters", "")),
        "state": _lines(sections.get("State", "")),
    }


def _written(name: str) -> str:
    """The recipe as it stands in its file, without what the page says by other means."""
    text = (RECIPES / f"{name}.vlo").read_text(encoding="utf-8")
    head, declaration = re.split(r"^(?=recipe )", text, maxsplit=1, flags=re.MULTILINE)
    body = re.sub(r'^(cite|status) ".*"\n', "", declaration, flags=re.MULTILINE)
    return (head.partition("\n")[0] + "\n\n" + body).strip()


def _oracle_lines(oracles: Sequence[Oracle]) -> list[str]:
    if not oracles:
        return ["No oracle.", ""]
    rows = [
        f"| `{oracle.name}` | {_cell(oracle.term)} | {oracle.source} | {'the recipe' if oracle.whole else 'parts of it'} |"
        for oracle in oracles
    ]
    return ["| oracle | loss | source | compared with |", "|---|---|---|---|", *rows, ""]


def _training_lines(evidence: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> list[str]:
    if evidence is None:
        return ["Training: not shown yet."]
    versions = ", ".join(f"{package} {version}" for package, version in evidence["versions"].items())
    values = ", ".join(f"`{name}` = {_value(value)}" for name, value in evidence["knobs"].items())
    stale = (
        ""
        if evidence["digest"] == digest(*(built.written for built in build_flows(facts["name"])))
        else "; the recipe has changed since"
    )
    lines = [f"Training ({evidence['date']}, {versions}{'; ' + values if values else ''}{stale}):", ""]
    lines += [f"- Reason: {evidence['because']}."] if evidence.get("because") else []
    checks = _checks(evidence)
    for check in checks.values():
        failed = "" if check["passed"] else " **Not as expected.**"
        lines.append(f"- {check['statement']}{failed}")
    for picture in (picture for check in checks.values() for picture in check.get("pictures", ())):
        title = picture.removesuffix(".png").replace(".", ", ")
        lines += ["", f"![{title}, of held-out samples]({PICTURES.relative_to(ROOT / 'docs')}/{picture})"]
    return lines


def _citation(text: str) -> str:
    number = text.removeprefix("arXiv:")
    return f"[{text}](https://arxiv.org/abs/{number})" if number != text else _cell(text)


def _lines(text: str) -> str:
    """Indented lines as one cell of a table."""
    return "<br>".join(_cell(line.strip()) for line in text.splitlines())


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").strip()


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    PAGE.write_text(make(), encoding="utf-8")
