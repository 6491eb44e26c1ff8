"""The pages of what the language has (recipes, primitives, functions of the library) and of the settings of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlmdsl.api import pages
from vlmdsl.api.block_pages import BLOCKS, block_page
from vlmdsl.api.driver import Built, build_flows
from vlmdsl.api.explanation import Explanation
from vlmdsl.api.sources import read
from vlmdsl.backends.latex import formula, formula_text
from vlmdsl.diagnostics import DiagnosticError, catalogue
from vlmdsl.frontend.modules import Loader
from vlmdsl.ir import Program
from vlmdsl.primitives import all_primitives
from vlmdsl.source import SourceText
from vlmdsl.source.bundled import bundled_names
from vlmdsl.syntax import parse
from vlmdsl.syntax.tree import Status

__all__ = ["page_about"]


_SETTING = re.compile(r"[a-z_]+(\.(?!vlo$)[a-z_]+)?")
"""The spelling of `settings`, a section or a setting; a path looks different."""
_WORD = re.compile(r"\w+(\.(?!vlo$)\w+)?")
"""A possible misspelling of a recipe, a primitive, a code or a setting, but not a path."""


def page_about(subject: str | Path, *, expression: bool, knobs: Mapping[str, object] | None) -> Explanation:
    """The page of a recipe (name, path, text), a primitive or library function, or of settings; see `vlmdsl.explain`."""
    word = str(subject)
    if not expression and isinstance(subject, str) and word not in bundled_names():
        if word in all_primitives():
            return _primitive(word)
        if word in BLOCKS:
            return block_page(word)
        library = Loader().library()
        if word in library.definitions:
            return _library_function(word)
        if _SETTING.fullmatch(word) and (page := _settings(word)) is not None:
            return page
    try:
        flows = build_flows(subject, expression=expression, knobs=knobs)
    except DiagnosticError as error:
        if [diagnostic.code for diagnostic in error.diagnostics] == ["V0202"] and _WORD.fullmatch(word):
            raise pages.unknown_subject(
                word, [*bundled_names(), *all_primitives(), *BLOCKS, *catalogue(), *_names_of_settings()]
            ) from None
        raise
    text = read(subject, expression=expression).text
    return _recipe(flows[0].written, text) if len(flows) == 1 else _stages(flows, text)


def _names_of_settings() -> list[str]:
    from vlmdsl.api.settings import names_of_settings

    return names_of_settings()


def _settings(word: str) -> Explanation | None:
    from vlmdsl.api.settings import settings_of, settings_sections  # the models of the configuration take long to make

    settings = settings_of(word)
    if not settings:
        return None
    facts = {"kind": "settings", "settings": [setting.facts() for setting in settings]}
    return Explanation(word if word == "settings" else f"{word} (settings)", settings_sections(settings), facts)


def _primitive(name: str) -> Explanation:
    primitive = all_primitives()[name]
    arguments = pages.primitive_arguments(primitive)
    sections = [("", primitive.summary), ("Arguments", pages.argument_table(arguments))]
    if primitive.formula:
        sections.append(("Formula", primitive.formula))
    if primitive.laws:
        sections.append(("Laws", ", ".join(law.replace("_", " ") for law in primitive.laws)))
    if primitive.cost:
        sections.append(("Cost", primitive.cost))
    if primitive.example:
        sections.append(("Example", primitive.example))
    if primitive.origin != "vlmdsl":
        sections.append(("Defined by", primitive.origin))
    facts = {
        "kind": "primitive",
        "name": name,
        "family": primitive.family,
        "summary": primitive.summary,
        "arguments": [argument.facts() for argument in arguments],
        "formula": primitive.formula,
        "laws": list(primitive.laws),
        "origin": primitive.origin,
    }
    kept = tuple(section for section in sections if section[1])
    return Explanation(f"{name} ({primitive.family})", kept, facts, primitive.formula)


def _library_function(name: str) -> Explanation:
    loader = Loader()
    definition = loader.library().definitions[name]
    source = loader.sources.get(definition.span.file)
    text = source.slice(definition.span)
    sections = (("", definition.documentation), (f"Definition ({definition.span.file})", text))
    facts = {"kind": "function", "name": name, "documentation": definition.documentation, "source": text}
    return Explanation(f"{name} (library)", sections, facts)


def _without_its_status(text: str) -> str:
    """A listing in which a status that does not hold is marked."""
    listing = SourceText("listing", text)
    place = next(item.text.span for item in parse(listing)[0].items if isinstance(item, Status))
    return f'{listing.text[: place.start]}"does not apply, see above"{listing.text[place.end :]}'


def _recipe(program: Program, text: str) -> Explanation:
    latex = formula(program)
    facts = pages.recipe_facts(program)
    text = text if facts["status_holds"] is not False else _without_its_status(text)
    sections = [("", program.documentation)] if program.documentation else []
    sections += [("Formula", formula_text(program)), ("LaTeX", latex), *pages.recipe_sections(facts), ("Source", text)]
    title = program.name if program.name == "expression" else f"{program.name} (recipe)"
    return Explanation(title, tuple(sections), {**facts, "latex": latex, "formula": formula_text(program)}, latex)


def _stages(flows: Sequence[Built], text: str) -> Explanation:
    """The page of a recipe with several objectives: what they have in common, then each under its title."""
    program = flows[0].written
    common = pages.recipe_facts(program)
    sections = [("", program.documentation)] if program.documentation else []
    sections += [section for section in pages.recipe_sections(common) if section[0] in ("Evidence", "Hyper-parameters")]
    parts: list[dict[str, object]] = []
    for built in flows:
        facts, latex = pages.recipe_facts(built.written), formula(built.written)
        shown = [each for each in pages.recipe_sections(facts) if each[0] not in ("Evidence", "Hyper-parameters")]
        body = [("Formula", formula_text(built.written)), ("LaTeX", latex), *shown]
        sections += [(f"{built.title}: {heading}", content) for heading, content in body]
        named = {"title": built.title, "stage": built.stage.name, "from": built.stage.starts_from, "flow": built.flow.name}
        parts.append({**named, "share": built.flow.share, **facts, "latex": latex})
    listing = text if common["status_holds"] is not False else _without_its_status(text)
    latex = "\n\n".join(f"% {built.title}\n{part['latex']}" for built, part in zip(flows, parts, strict=True))
    shared = {
        name: common[name] for name in ("kind", "name", "documentation", "citations", "status", "status_holds", "knobs")
    }
    title = program.name if program.name == "expression" else f"{program.name} (recipe)"
    return Explanation(title, (*sections, ("Source", listing)), {**shared, "latex": latex, "flows": parts}, latex)
