"""Examples of `examples.json` in a page: queries of retrieval with their best matches, and confused classes."""

from __future__ import annotations

from collections import defaultdict

from vlmdsl.runtime.reporting.html import Html, element, joined, table
from vlmdsl.runtime.reporting.pictures import picture
from vlmdsl.runtime.training.records import ShownMatch, ShownQuery, StoredExamples

__all__ = ["confusion_shown", "queries_shown"]

_CONFUSED = 12
"""Pairs of classes that are listed."""


def queries_shown(examples: StoredExamples, whose: str = "") -> Html:
    """Images with the texts that are found for them, and texts with the images; what belongs to the query is green."""
    parts = []
    title = f"flow {whose}: " if whose else ""
    if examples.image_to_text:
        parts.append(element("h3", f"{title}images, and the texts found for them"))
        parts += [_texts_of(query) for query in examples.image_to_text]
    if examples.text_to_image:
        parts.append(element("h3", f"{title}texts, and the images found for them"))
        parts += [_images_of(query) for query in examples.text_to_image]
    if parts:
        words = "Queries are every n-th held-out sample, not chosen by how well they do. The number is the similarity."
        parts.insert(0, element("p", words, class_="muted"))
    return joined(parts)


def _texts_of(query: ShownQuery) -> Html:
    lines = [
        element("li", f"{_similarity(match)} {match.sample.text}", class_="right" if match.right else None)
        for match in query.matches
    ]
    own = element("div", picture(query.sample.image, "query", class_="picture"), element("div", _rank(query)), class_="tile")
    return element("div", own, element("ol", *lines), class_="row")


def _images_of(query: ShownQuery) -> Html:
    tiles = [
        element(
            "div",
            picture(
                match.sample.image,
                "a right match" if match.right else "a match",
                class_="picture right" if match.right else "picture",
            ),
            element("div", _similarity(match)),
            class_="tile",
        )
        for match in query.matches
    ]
    own = element("div", query.sample.text, element("div", _rank(query), class_="muted"), class_="query")
    return element("div", own, *tiles, class_="row")


def _rank(query: ShownQuery) -> str:
    return f"right at rank {query.rank}"


def _similarity(match: ShownMatch) -> str:
    return "–" if match.similarity is None else f"{match.similarity:.3f}"


def confusion_shown(examples: StoredExamples, whose: str = "") -> Html:
    """The pairs of classes that are confused most, and the whole table: a row for each class, a column for each that its
    images were given to."""
    confusion = examples.confusion
    if confusion is None:
        return Html("")
    classes, images = confusion.classes, defaultdict[int, int](int)
    counts = {(label, predicted): number for label, predicted, number in confusion.counts}
    for (label, _), number in counts.items():
        images[label] += number
    wrong = sorted(((number, pair) for pair, number in counts.items() if pair[0] != pair[1]), key=lambda own: -own[0])
    listed = [
        (classes[label], classes[predicted], f"{number:,} of {images[label]:,}")
        for number, (label, predicted) in wrong[:_CONFUSED]
    ]
    head = element(
        "tr", element("th"), element("th"), *(element("th", str(n + 1), title=name) for n, name in enumerate(classes))
    )
    rows = [
        element(
            "tr",
            element("th", name),
            element("th", str(label + 1)),
            *(_cell(counts.get((label, other), 0), images[label], label == other) for other in range(len(classes))),
        )
        for label, name in enumerate(classes)
    ]
    left = f"{examples.left_out:,} classes with fewer images are left out" if examples.left_out else ""
    parts = [
        element("h3", f"flow {whose}") if whose else Html(""),
        table(("class", "was given to", "images"), listed, (2,)),
        element(
            "p", "Zero-shot classification: a row for each class, a column for the class that its images were given to."
        ),
        element("div", element("table", head, *rows, class_="confusion"), class_="wide"),
        element("p", left, class_="muted") if left else Html(""),
    ]
    return joined(parts)


def _cell(number: int, images: int, right: bool) -> Html:
    if not number:
        return element("td")
    colour = "26, 127, 55" if right else "207, 34, 46"
    share = number / max(images, 1)
    return element("td", str(number), class_="number", style=f"background: rgba({colour}, {0.12 + 0.7 * share:.2f})")
