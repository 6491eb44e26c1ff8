"""Recipes that take parts of several methods, as a user would who tries something new."""

from __future__ import annotations

__all__ = ["RECOMBINED"]

_PAIRS = "vlo 1\nrecipe recombined(image: Image, text: Text)\n"
_REGIONS = "vlo 1\nrecipe recombined(image: Image, text: Text, boxes: Boxes, phrases: Phrases)\n"

RECOMBINED = {
    "one mask of four terms": _PAIRS
    + """encoder tokenizer = codebook(size=8)
encoder fusion = fuse(depth=1, attention="merged", pooled="learned")
let hidden = random(40%)
let view = augment(image, pipeline="mae")
let patches = codes(view, by=tokenizer)
minimize {
  alone: token_loss(linear(mask(view, hidden), size=8, name="alone"), patches, at=hidden)
  fused: token_loss(linear(text | mask(view, hidden), of="image", size=8), patches, at=hidden, reduction="sample")
  pixels: reconstruct(decode(drop(view, hidden), depth=1, width=16, heads=2), pixels(view), at=hidden)
  pairs: contrast(drop(view, hidden), text)
}
""",
    "boxes of restored patches": _REGIONS
    + """let hidden = random(50%)
let points = decode(drop(image, hidden), depth=1, width=16, heads=2, output="states")
let words = language(text_of(phrases))
let at = atss(points, boxes, topk=3, scale=3)
let named = alignment(token_head(points, out=8, name="points"), token_head(words, out=8, name="words"))
minimize {
  words: focal(named, word_map(words, boxes, at=at))
  boxes: giou(token_head(points, out=4, name="boxes"), boxes, at=at)
  pairs: contrast(image, text)
}
""",
    "two sets of concepts": _REGIONS
    + """let few = language(concepts(phrases, count=5))
let many = language(concepts(phrases, count=7))
let points = vision(image).tokens
let places = around_patches(token_head(points, out=4, name="boxes"))
let logits = alignment(points, many)
let at = match_boxes(logits, places, word_map(many, boxes), boxes)
minimize {
  regions: focal(alignment(regions(image, boxes), few), word_map(few, boxes))
  patches: token_contrast_loss(logits, word_map(many, boxes, at=at), boxes)
  places: box_error(places, boxes, at=at) + matched_iou(places, boxes, at=at)
}
""",
}
