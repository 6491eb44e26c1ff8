"""Synonyms that a run is given: a file with a set of them on each line, or WordNet where nltk has it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import SynonymsUnreadable
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, read_lines

__all__ = ["Synonyms", "in_place_of", "read_synonyms", "synonyms_of"]

Synonyms = Mapping[str, tuple[str, ...]]
"""Lower-case word -> its synonyms."""

_LARGEST = 2**26
_PLACE = Span("<command line>", 0, 0)
_PARTS = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


def read_synonyms(path: str) -> Synonyms:
    """The synonyms of a file: on each line a comma-separated set of synonyms; `#` begins a comment.

    This is the plain form of the synonym files of search engines. Raises `DiagnosticError`.
    """
    try:
        lines = read_lines(path, _LARGEST)
    except BadFile as fault:
        raise _unreadable(path, fault.reason) from fault
    by_word: dict[str, dict[str, None]] = {}
    for line in lines:
        group = [" ".join(word.split()) for word in line.split(",")]
        group = [word for word in dict.fromkeys(group) if word]
        for word in group:
            others = by_word.setdefault(word.lower(), {})
            others.update(dict.fromkeys(other for other in group if other.lower() != word.lower()))
    synonyms = {word: tuple(others) for word, others in by_word.items() if others}
    if not synonyms:
        raise _unreadable(path, "no line has two comma-separated words")
    return synonyms


def synonyms_of(word: str, synonyms: Synonyms) -> tuple[str, ...]:
    """The synonyms of a word in a text, ignoring punctuation around it and case."""
    return synonyms.get(_core(word).lower(), ())


def in_place_of(word: str, synonym: str) -> str:
    """The synonym with the punctuation and the capital letter of the word that it replaces.

    >>> in_place_of("(Big,", "large")
    '(Large,'
    """
    core = _core(word)
    if core[:1].isupper():
        synonym = synonym[:1].upper() + synonym[1:]
    return word.replace(core, synonym, 1) if core else word


def _core(word: str) -> str:
    match = _PARTS.fullmatch(word)
    return match.group(2) if match else word


def _unreadable(path: str, reason: str) -> DiagnosticError:
    help = "write one set of synonyms per line, as in `large, big, huge`"
    return DiagnosticError((SynonymsUnreadable.at(_PLACE, path=path, reason=reason, help=(help,)),))
