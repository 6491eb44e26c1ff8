"""YAML as plain values with the place of each: closed (no tags, no aliases, no repeated keys), bounded, never executed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from vlmdsl.diagnostics import Diagnostic, Label
from vlmdsl.diagnostics.catalog.configuration import ConfigurationSyntax, RepeatedSetting
from vlmdsl.source import SourceText, Span
from vlmdsl.source.limits import MAXIMUM_BYTES, MAXIMUM_NESTING

__all__ = ["Path", "YamlTree", "read_yaml"]

Path = tuple[str | int, ...]


@dataclass
class YamlTree:
    """The values of one document; `places` gives the span of the key and of the value at each path."""

    value: object = None
    places: dict[Path, tuple[Span, Span]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """Composes nodes. Numbers follow YAML 1.2 (`1e-3` is one), `yes` and `off` are strings, aliases are refused."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refusal("aliases are not supported")
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call]
            raise self._refusal("tags are not supported")
        self.depth += 1
        if self.depth > MAXIMUM_NESTING:
            raise self._refusal("this is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refusal(self, problem: str) -> yaml.MarkedYAMLError:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*)(?:\.\d*)?(?:[eE][-+]?\d+)?$|[-+]?\.\d+(?:[eE][-+]?\d+)?$")
_LONGEST_NUMBER = 400
_WORDS: dict[str, object] = {"": None, "~": None, "null": None, "true": True, "false": False}
_WORDS |= {word.title(): value for word, value in _WORDS.items() if word.isalpha()}


def read_yaml(source: SourceText, start: int = 0) -> YamlTree:
    """The values in `source` from offset `start` on; what is wrong is among the tree's diagnostics."""
    tree = YamlTree()
    text = source.text[start:]
    if len(text) > MAXIMUM_BYTES:
        span = Span(source.name, start, start)
        tree.diagnostics.append(ConfigurationSyntax.at(span, problem=f"the file has more than {MAXIMUM_BYTES:,} characters"))
        return tree
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        tree.diagnostics.append(_syntax_diagnostic(source, start, error))
        return tree
    if node is not None:
        tree.value = _Walker(source.name, start, tree).value(node, ())
    return tree


def _syntax_diagnostic(source: SourceText, start: int, error: yaml.YAMLError) -> Diagnostic:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        offset = start + (mark.index if mark else 0)
        problem = error.problem or error.context or "this is not YAML"
    else:
        offset = start + int(getattr(error, "position", 0))
        problem = "a character that YAML does not allow"
    return ConfigurationSyntax.at(Span(source.name, offset, min(offset + 1, len(source.text))), problem=problem)


class _Walker:
    """Turns nodes into values and notes the places."""

    def __init__(self, name: str, start: int, tree: YamlTree) -> None:
        self.name, self.start, self.tree = name, start, tree

    def span(self, node: yaml.Node) -> Span:
        return Span(self.name, self.start + node.start_mark.index, self.start + node.end_mark.index)

    def value(self, node: yaml.Node, path: Path) -> object:
        self.tree.places.setdefault(path, (self.span(node), self.span(node)))
        if isinstance(node, yaml.MappingNode):
            return dict(self.entries(node, path))
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.value(item, (*path, index)) for index, item in enumerate(node.value))
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node)

    def entries(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, object]]:
        seen: dict[str, Span] = {}
        for key_node, value_node in node.value:
            span = self.span(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.tree.diagnostics.append(ConfigurationSyntax.at(span, problem="a key must be a single word"))
                continue
            key = key_node.value
            if key in seen:
                earlier = Label(seen[key], "first given here")
                self.tree.diagnostics.append(RepeatedSetting.at(span, "given again", secondary=(earlier,), name=key))
                continue
            seen[key] = span
            self.tree.places[(*path, key)] = (span, self.span(value_node))
            yield key, self.value(value_node, (*path, key))


def _scalar(node: yaml.ScalarNode) -> object:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.match(text):
        digits = text.replace("_", "")
        if len(digits) > _LONGEST_NUMBER:
            return text  # settings are never numbers that long, so it is kept as a text and reported as an invalid number
        return int(digits) if digits.lstrip("+-").isdigit() else float(digits)
    return text
