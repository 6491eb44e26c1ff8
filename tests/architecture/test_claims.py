"""What pages, headers of recipes and messages tell readers to type or to open is there: links, commands, options, extras."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import vlmdsl
from vlmdsl.api.recipes import card_of
from vlmdsl.diagnostics import catalogue
from vlmdsl.runtime.data.stand_ins import calls_of
from vlmdsl_cli.main import COMMANDS, application
from vlmdsl_cli.options import parse_hyper_parameters

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("grammar/*.md"), ROOT / "tests/plugin_example/README.md"]
)
RECIPES = sorted(ROOT.glob("recipes/*.vlo"))
SOURCES = sorted([*ROOT.glob("vlmdsl/**/*.py"), *ROOT.glob("cli/**/*.py")])
TORCHRUN = {"--nnodes", "--node-rank", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"}
PLACEHOLDERS = {"check|preview|convert"}
"""What stands for one of several words in the changelog."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def header(recipe: Path) -> str:
    """The `##` lines of a recipe as one line."""
    return " ".join(line[2:].strip() for line in recipe.read_text("utf-8").splitlines() if line.startswith("##"))


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_codes_of_pages_exist(page: Path) -> None:
    assert set(re.findall(r"\bV\d{4}\b", page.read_text("utf-8"))) <= set(catalogue())


def test_codes_of_headers_exist() -> None:
    assert {code for recipe in RECIPES for code in re.findall(r"\bV\d{4}\b", header(recipe))} <= set(catalogue())


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `vlmdsl` of every command between backquotes or in an indented block."""
    text = re.sub(r"\\\n\s*", " ", text)
    quoted = re.findall(r"`(?:torchrun [^`]*-m )?vlmdsl ([a-z][^`]*)`", text)
    indented = re.findall(r"^ {4,}(?:torchrun .* -m )?vlmdsl ([a-z].*)$", text, re.MULTILINE)
    for command in [*(re.sub(r"\"?\s*\n\s*(?:## |\")?", " ", command) for command in quoted), *indented]:
        yield shlex.split(command.partition(" | ")[0], comments=True)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    context = click.Context(application)
    assert words[0] in COMMANDS, words
    command = application.get_command(context, words[0])
    assert command is not None
    rest = words[1:]
    if isinstance(command, click.Group) and rest:
        if rest[0] in PLACEHOLDERS:
            return command, []
        inner = command.get_command(context, rest[0])
        assert inner is not None, words
        return inner, rest[1:]
    return command, rest


def test_commands_and_their_options_exist() -> None:
    count, wrong = 0, []
    for path in [*PAGES, *RECIPES, *SOURCES]:
        for words in commands_in(path.read_text("utf-8")):
            count += 1
            command, rest = command_of(words)
            # `vlmdsl classify --classes` names an option without a value.
            whole = [*rest, "VALUE"] if rest and rest[-1].startswith("--") else rest
            try:
                command.make_parser(click.Context(command)).parse_args(list(whole))
            except click.NoSuchOption as error:
                wrong.append(f"{named(path)}: vlmdsl {shlex.join(words)}: {error.format_message()}")
    assert count > 100
    assert wrong == []


@cache
def all_options() -> frozenset[str]:
    context = click.Context(application)
    commands = [application, *(application.get_command(context, name) for name in COMMANDS)]
    inner = [command.commands.values() for command in commands if isinstance(command, click.Group) and command.commands]
    every = [command for command in [*commands, *(one for some in inner for one in some)] if command is not None]
    return frozenset(option for command in every for parameter in command.get_params(context) for option in parameter.opts)


@pytest.mark.parametrize("page", [page for page in PAGES if "adr" not in page.parts], ids=named)
def test_options_between_backquotes_are_of_some_command(page: Path) -> None:
    options = set(re.findall(r"`(--[a-z][a-z-]*)[^`]*`", page.read_text("utf-8")))
    scripts = "".join(script.read_text("utf-8") for script in ROOT.glob("benchmarks/*.py"))
    assert {option for option in options - all_options() - TORCHRUN if f'"{option}"' not in scripts} == set()


def test_extras_are_those_that_can_be_installed() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    texts = [path.read_text("utf-8") for path in [*PAGES, *RECIPES, *SOURCES]]
    extras_of_texts = {
        extra for text in texts for words in re.findall(r"vlmdsl\[([\w,-]+)\]", text) for extra in words.split(",")
    }
    assert extras_of_texts
    assert extras_of_texts <= extras
    listed = (ROOT / "README.md").read_text("utf-8").partition("optional extras: ")[2].partition(".\n\n")[0]
    assert {extra for extra in extras if f"`{extra}`" not in listed} == set()


def offered(recipe: Path) -> list[dict[str, str]]:
    """The values of hyper-parameters that a header offers: `pipeline="crop"`, `layers=1`."""
    offers = [
        dict(re.findall(r"(\w+)=(\"[^\"]*\"|[\w.%-]+)", quoted)) for quoted in re.findall(r"`([^`]+)`", header(recipe))
    ]
    names = {name for name, _ in card_of(recipe.stem).knobs}
    return [values for values in offers if values and values.keys() <= names]


def test_values_that_headers_offer_are_taken() -> None:
    count = 0
    for recipe in RECIPES:
        for values in offered(recipe):
            count += 1
            knobs = parse_hyper_parameters([f"{name}={value.strip(chr(34))}" for name, value in values.items()])
            assert vlmdsl.check(recipe.read_text("utf-8"), file=str(recipe), knobs=knobs) == [], (recipe.stem, values)
    assert count > 20


def test_stand_ins_that_headers_offer_are_there() -> None:
    offers = [offer for recipe in RECIPES for offer in re.findall(r"--map '?(\w+=\w+\([^)]*\))", header(recipe))]
    assert len(offers) > 4
    for offer in offers:
        field, _, call = offer.partition("=")
        assert calls_of({field: call}).get(field), offer
