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
    "weights beside mined negatives": _REGIONS
    + """encoder fusion = fuse(depth=1)
encoder tokenizer = codebook(size=8)
let wrong = mine(similarity(image, text), along="columns")
let words = language(text_of(phrases))
let hidden = random(50%)
let at = atss(image, boxes, topk=3, scale=3)
let decoded = decode(drop(image, hidden), depth=1, width=16, heads=2)
minimize {
  views: contrast(augment(image, n=2, pipeline="slip"), text)
  words: 2 * focal(alignment(image, words), word_map(words, boxes, at=at))
  pixels: 0.5 * reconstruct(decoded, pixels(image), at=hidden) + 0.2 * contrast(image, text)
  match: matched(text | image, text | take(image, wrong))
  masked: 2 * mlm(mask(text, random(30%)))
  codes: 2 * token_loss(linear(mask(image, hidden), size=8), codes(image, by=tokenizer), at=hidden)
}
""",
    "captions of a tower that they do not train, and of mined images": _PAIRS
    + """encoder captioner = text_decoder(depth=1, heads=2)
let harder = mine(similarity(image, text), along="rows", k=2)
let wrong = mine(similarity(image, text), along="rows")
minimize {
  own: next_token(linear(captioner(text, stop(image), prefix=prefix())), text)
  others: next_token(linear(captioner(text, take(image, wrong), parallel=50%)), text)
  pairs: contrast(image, text)
  words: mean(softplus(score(image, take(text, harder), by=tokenmax)))
}
""",
    "mixed and whole images": _PAIRS
    + """encoder fusion = fuse(depth=1)
let share = beta(1, 1)
let caption = swap(text)
minimize {
  mixed: contrast(mix(image, by=share), text, targets=paired * share + flipped * (1 - share))
  match: matching(caption | image, matches(caption))
}
""",
    "masked names": _REGIONS
    + """encoder fusion = fuse(depth=1)
let names = prompt(phrases, negatives=3)
let selected = whole_words(30%)
let both = mask(names, selected) | image
let named = alignment(
  token_head(regions(image, boxes), out=5, name="regions"),
  token_head(both.tokens, out=5, name="words"),
)
minimize {
  regions: focal(named, word_map(names, boxes))
  words: token_loss(linear(both), names, at=selected)
}
""",
    "segments beside mined negatives": """vlo 1
recipe recombined(image: Image, text: Text, segments: Segments)
encoder fusion = fuse(depth=1)
let groups = assignment(image)
let wrong = mine(similarity(image, text), along="rows")
minimize {
  pairs: 2 * contrast(image, text)
  groups: assignment_divergence(groups, segment_mean(groups, segments))
  match: matched(text | image, take(text, wrong) | image)
}
""",
    "captions of texts from a queue": _PAIRS
    + """encoder captioner = text_decoder(depth=1, heads=2)
let kept = queue(text, keep="inputs", size=10)
let features = queue(stop(text), size=10)
let wrong = mine(unite(similarity(image, text), similarity(image, features)), along="rows", floor=0.01)
let other = take(text, wrong, queue=kept)
minimize {
  own: next_token(linear(captioner(text, image)), text)
  other: next_token(linear(captioner(other, image)), other)
  pairs: contrast(image, text)
}
""",
    "what a pooler gives, fused, picked and kept": _PAIRS
    + """encoder fusion = fuse(depth=1)
encoder joint = project(fusion, layers=1, out=12, name="joint")
encoder captioner = text_decoder(depth=1, heads=2)
let seen = pool(image, queries=3, heads=2)
let wrong = mine(similarity(image, text), along="columns")
let both = joint(text, seen)
let kept = queue(both, size=10)
let centre = running_mean(max_pool(text), momentum=0.9)
minimize {
  match: matched(text | seen, text | take(seen, wrong))
  captions: next_token(linear(captioner(text, stop(seen))), text)
  kept: memory_contrast(seen, both, kept)
  pairs: contrast(seen, mean_pool(text) - centre)
}
""",
    "heads on a pooler's queries and a teacher with a schedule": _PAIRS
    + """encoder elder = ema(vision, momentum=cosine_ramp(0.9, 1))
let queries = pool(image, queries=3, heads=2, name="queries")
let hidden = random(50%)
let decoded = decode(drop(image, hidden), depth=1, width=16, heads=2, output="states")
minimize {
  tokens: contrast(
    token_head(queries.tokens, out=6, name="image"),
    token_head(text, out=6, name="text"),
    sim=tokenmax,
  )
  codes: distill(linear(decoded, size=8), linear(elder(image), size=8), at=hidden, temperature=0.5)
}
""",
}
