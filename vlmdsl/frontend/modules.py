"""Loading: the library, the bundled recipes, and the files that `use` brings in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vlmdsl.diagnostics import Diagnostic, closest, suggestion
from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.diagnostics.catalog.names import (
    ControlInPath,
    CyclicUse,
    DefinedTwice,
    UnknownName,
    UnknownRecipe,
    UsedFileIsWrong,
    UseTooDeep,
)
from vlmdsl.diagnostics.catalog.stages import StagesNotCallable
from vlmdsl.diagnostics.diagnostic import Label
from vlmdsl.frontend.scope import FileScope, RecipeFunction
from vlmdsl.frontend.stages import Block, blocks_of, check_blocks, check_starts
from vlmdsl.source import SourceMap, SourceText, Span, with_newlines
from vlmdsl.source.bundled import bundled_names, bundled_text, library_files, library_modules
from vlmdsl.source.limits import (
    MAXIMUM_BYTES,
    MAXIMUM_DIAGNOSTICS,
    MAXIMUM_FILES,
    MAXIMUM_FLOWS,
    MAXIMUM_USE_DEPTH,
    MAXIMUM_USED_PIECES,
)
from vlmdsl.source.regular_files import BadFile, read_regular
from vlmdsl.syntax import parse_fully
from vlmdsl.syntax.tree import Def, EncoderDeclaration, Let, Minimize, Module, Name, Recipe, Use

__all__ = ["Library", "Loaded", "Loader"]


class Loaded(NamedTuple):
    """One file after parsing and name resolution."""

    text: SourceText
    module: Module
    scope: FileScope
    blocks: tuple[Block, ...]
    """The programs that it holds."""


class Library(Mapping[str, Def]):
    """The `def`s of `recipes/std` by name; a file is parsed when one of its names is first used."""

    def __init__(self, parsed: Callable[[SourceText], Module]) -> None:
        self._parsed = parsed
        self._files = library_files()
        self._definitions: dict[str, Def] = {}

    def __getitem__(self, name: str) -> Def:
        if name not in self._definitions:
            module = self._parsed(self._files[name])
            self._definitions.update({item.name.name: item for item in module.items if isinstance(item, Def)})
        return self._definitions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


_parse_once = cache(parse_fully)
"""The parsed files of the library, which all recipes of a process share: trees are immutable."""


@dataclass
class Loader:
    """Reads and resolves files, each once; remembers every text for messages and digests."""

    sources: SourceMap = field(default_factory=SourceMap)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    complete: bool = True
    """Whether the search for errors in the texts was complete."""
    kept: Mapping[tuple[str, str], SourceText] | None = None
    """If set, no file is read: (name of a text, path in its `use`) -> the used text."""
    uses: dict[tuple[str, str], str] = field(default_factory=dict)
    """(name of a text, path that it uses) -> name of the text that was found."""
    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _chain: list[str] = field(default_factory=list)
    _read: dict[Path, tuple[SourceText, Path] | None] = field(default_factory=dict)
    """All paths that were looked up."""
    _pieces: int = 0
    _library: FileScope | None = None

    def library(self) -> FileScope:
        """All `def`s of `recipes/std`, one scope: what every recipe sees without `use`."""
        if self._library is None:
            self._library = FileScope("std", definitions=Library(self._shared))
        return self._library

    def _parsed(self, text: SourceText) -> Module:
        parsed = parse_fully(self.sources.add(text))
        self.diagnostics.extend(parsed.faults)
        self.complete = self.complete and parsed.complete
        self._pieces += parsed.pieces
        return parsed.module

    def _shared(self, text: SourceText) -> Module:
        return _parse_once(self.sources.add(text)).module

    def load(self, text: SourceText, folder: Path | None) -> Loaded:
        """Load a file with everything that it uses; relative paths start from `folder` (None: nowhere)."""
        before = len(self.diagnostics)
        module = self._parsed(text)
        broken = _words_of_faults(text, self.diagnostics[before:])
        scope = FileScope(text.name, library=self.library())
        self._declare(module, scope)
        self._chain.append(text.name)
        try:
            for item in module.items:
                if isinstance(item, Use):
                    self._use(item, scope, folder)
        finally:
            self._chain.pop()
        blocks = blocks_of(module)
        if len(blocks) > MAXIMUM_FLOWS:
            place = blocks[MAXIMUM_FLOWS].name
            reason = f"more than {MAXIMUM_FLOWS} stages and flows"
            self.diagnostics.append(TooLarge.at(place.span if place else module.span, reason=reason))
            blocks = blocks[:MAXIMUM_FLOWS]
        if any(block.name is not None for block in blocks):
            for block in blocks:
                self._declare(block.module, FileScope(text.name))  # for names that are those of the file, too
            self.diagnostics.extend(check_starts(module))
        # A name that a statement with a syntax error may define is not a second error.
        diagnostics = check_blocks(blocks, scope)
        self.diagnostics.extend(
            f for f in diagnostics if f.code != UnknownName.code or text.slice(f.primary.span) not in broken
        )
        loaded = self._loaded[text.name] = Loaded(text, module, scope, tuple(blocks))
        return loaded

    def _declare(self, module: Module, scope: FileScope) -> None:
        seen: dict[str, Span] = {}
        definitions: dict[str, Def] = {}
        for name, item in _declarations(module):
            if name.name in seen:
                first = Label(seen[name.name], "first defined here")
                self.diagnostics.append(DefinedTwice.at(name.span, secondary=(first,), name=name.name))
                continue
            seen[name.name] = name.span
            match item:
                case Let():
                    scope.lets[name.name] = item
                case Def():
                    definitions[name.name] = item
                case EncoderDeclaration():
                    scope.encoders[name.name] = item
                case _:
                    pass
        scope.definitions = definitions

    # --- use ----------------------------------------------------------------------------------------------------------

    def _use(self, use: Use, scope: FileScope, folder: Path | None) -> None:
        if use.path is None and use.name.name.startswith("std."):
            self._check_module(use.name)
            return  # The library is always visible; using it explicitly is allowed.
        used = self._find(use, folder)
        if used is None:
            return
        text, home = used
        if use.path is not None:
            self.uses[self._chain[-1], use.path.value] = text.name
        if text.name in self._chain:
            chain = " -> ".join([*self._chain[self._chain.index(text.name) :], text.name])
            self.diagnostics.append(CyclicUse.at(use.span, name=text.name, chain=chain))
            return
        loaded = self._loaded.get(text.name)
        if loaded is None:
            excess = self._excess()
            if excess is not None:
                self.diagnostics.append(UseTooDeep.at(use.span, reason=excess))
                return
            loaded = self._load_used(use, text, home)
        header = next((item for item in loaded.module.items if isinstance(item, Recipe)), None)
        if any(block.name is not None for block in loaded.blocks):
            self.diagnostics.append(StagesNotCallable.at(use.span, name=use.name.name))
        elif header is not None and any(isinstance(item, Minimize) for item in loaded.module.items):
            scope.recipes[use.name.name] = RecipeFunction(header, loaded.module, loaded.scope)
        elif text.name not in scope.libraries:
            scope.libraries.add(text.name)
            scope.definitions = {**loaded.scope.definitions, **scope.definitions}

    def _check_module(self, name: Name) -> None:
        modules = [f"std.{module}" for module in library_modules()]
        if name.name not in modules:
            help = suggestion(name.name, modules, "its modules")
            self.diagnostics.append(UnknownRecipe.at(name.span, help=(help,), name=name.name))

    def _excess(self) -> str | None:
        """Why no more files can be used, if that is the case."""
        if len(self._chain) > MAXIMUM_USE_DEPTH or len(self._loaded) > MAXIMUM_FILES:
            return f"more than {MAXIMUM_FILES} files, or a chain longer than {MAXIMUM_USE_DEPTH}"
        if self._pieces > MAXIMUM_USED_PIECES:
            return f"more than {MAXIMUM_USED_PIECES:,} words, symbols and line breaks in all files together"
        return None

    def _load_used(self, use: Use, text: SourceText, home: Path | None) -> Loaded:
        before = len(self.diagnostics)
        loaded = self.load(text, home)
        if any(diagnostic.severity == "error" for diagnostic in self.diagnostics[before:]):
            self.diagnostics.append(UsedFileIsWrong.at(use.span, name=use.name.name))
        return loaded

    def _find(self, use: Use, folder: Path | None) -> tuple[SourceText, Path | None] | None:
        """The text of a `use`, and the folder of its relative paths; None with a diagnostic."""
        if use.path is None:
            return self._find_bundled(use.name)
        strange = ControlInPath.of(use.path.value, use.path.span)
        if strange is not None:
            self.diagnostics.append(strange)
            return None
        if self.kept is not None:
            kept = self.kept.get((self._chain[-1], use.path.value))
            if kept is not None:
                return kept, None
        if folder is None and Path(use.path.value).name in self._chain:
            return self.sources.get(Path(use.path.value).name), None
        reading = None if folder is None else self._read_once(folder / use.path.value)
        if reading is None:
            reason = (
                "paths are relative to the file with the `use`"
                if folder is not None
                else "an expression can use bundled recipes only"
            )
            self.diagnostics.append(UnknownRecipe.at(use.path.span, reason, name=use.path.value))
        return reading

    def _read_once(self, path: Path) -> tuple[SourceText, Path] | None:
        """The text of a path and its folder; a file is read once, even under several names."""
        if path not in self._read:
            text = _read_beside(path)
            self._read[path] = None if text is None else (SourceText(_shown(path), text), path.parent)
        return self._read[path]

    def _find_bundled(self, name: Name) -> tuple[SourceText, None] | None:
        text = bundled_text(name.name)
        if text is None:
            near = closest(name.name, bundled_names()) if len(self.diagnostics) < MAXIMUM_DIAGNOSTICS else None
            help = f"did you mean `{near}`?" if near else "`vlmdsl recipes` lists the bundled recipes"
            self.diagnostics.append(UnknownRecipe.at(name.span, help=(help,), name=name.name))
            return None
        return text, None

    def digests(self) -> tuple[tuple[str, str], ...]:
        """SHA-256 of every text that was read, by name."""
        return tuple(
            (name, hashlib.sha256(text.text.encode("utf-8", "surrogatepass")).hexdigest())
            for name, text in sorted(self.sources.texts.items())
        )


def _words_of_faults(text: SourceText, faults: list[Diagnostic]) -> set[str]:
    """The words on the lines where a text has syntax faults."""
    lines = {text.position(fault.primary.span.start)[0] for fault in faults}
    return {word for line in lines for word in re.findall(r"\w+", text.line(line))}


def _read_beside(path: Path) -> str | None:
    """The text of a file that a recipe names; None if it cannot be read, is not a recipe, or is too large for one."""
    try:
        data = read_regular(path, MAXIMUM_BYTES) if path.suffix == ".vlo" else None
    except BadFile:
        return None
    return None if data is None else with_newlines(data.decode("utf-8", errors="replace"))


def _shown(path: Path) -> str:
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)


def _declarations(module: Module) -> list[tuple[Name, object]]:
    """Every name that a file declares, in order; an `encoder` and a `let` of one name are two declarations."""
    declarations: list[tuple[Name, object]] = []
    for item in module.items:
        match item:
            case Recipe():
                declarations.extend((parameter.name, parameter) for parameter in item.parameters)
            case Let() | Def() | EncoderDeclaration() | Use():
                declarations.append((item.name, item))
            case _:
                pass
    return declarations
