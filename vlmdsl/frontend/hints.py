"""What to write where a value of another kind is wanted."""

from __future__ import annotations

__all__ = ["MADE_BY", "READ_BY"]

MADE_BY = {
    "Alignment": "`alignment(regions(image, boxes), words)` gives them",
    "Assignment": "`assignment(image)` gives it",
    "BoxAssignment": "`atss(image, boxes)` and `match_boxes(...)` give it",
    "Condition": "a comparison is a condition: `score(image, text) > 0.5`",
    "Inputs": '`queue(text, keep="inputs")` keeps them',
    "Logits": "`linear(...)` gives the logits of a stream",
    "Mask": "`random(50%)` is one",
    "Patches": "`decode(drop(image, m))` gives them",
    "Picks": '`mine(similarity(image, text), along="rows")` gives them',
    "Pixels": "`pixels(image)` are the target",
    "Sim": "`similarity(image, text)` is one",
    "WordMap": "`word_map(text, boxes)` gives it",
}
"""What makes a value of a kind that nothing else becomes."""
READ_BY = {
    "Boxes": "`regions(image, boxes)` are the features of boxes",
    "Flag": "it is a condition: `keep=`, `over=`",
    "Key": "it identifies a sample: `retrieve(..., without=key)`, `queue(key)`",
    "Label": "it is for targets: `targets=same(label)`",
    "Number": "it is a number per sample: `weight=`",
    "Phrases": "`text_of(phrases)` is the text that names the boxes of an image",
    "Segments": "`segment_mean(assignment(image), segments)` reads them",
}
"""What reads a field of a kind that no encoder takes."""
