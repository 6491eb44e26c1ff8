"""Extractive summaries: some sentences of a text."""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["summarize"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")

_MOST_COMPARED = 200


def summarize(text: str, sentences: int = 1, by: str = "position") -> str:
    """The first sentences of a text, or by `centrality` those that share most words with the others, in their order.

    By centrality the first 200 sentences are compared with each other, and no more.

    >>> summarize("A cat. It sleeps on a mat. A mat for a cat.", by="centrality")
    'A mat for a cat.'
    """
    parts = [part for part in _SENTENCE_END.split(text) if part]
    places = list(range(len(parts)))
    if by == "centrality":
        words = [Counter(re.findall(r"\w+", sentence.lower())) for sentence in parts[:_MOST_COMPARED]]
        places = sorted(range(len(words)), key=lambda place: -_centrality(words, place))
    return " ".join(parts[place] for place in sorted(places[:sentences])) or text


def _centrality(words: list[Counter[str]], place: int) -> float:
    """The mean share of words that a sentence has in common with each of the others (Dice's coefficient)."""
    own = words[place]
    shares = [
        2 * (own & other).total() / max(own.total() + other.total(), 1) for at, other in enumerate(words) if at != place
    ]
    return sum(shares) / max(len(shares), 1)
