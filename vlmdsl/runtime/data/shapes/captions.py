"""Descriptions of a scene: by several writers with synonyms, as a short synthetic caption, and in Korean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmdsl.runtime.data.shapes.scenes import COLOURS, SHAPES, Scene, Thing

__all__ = ["PICKS", "WRITERS", "coarse", "describe", "korean", "phrase"]

_FRAMES = ("{}", "a picture of {}", "an image with {}", "a drawing that shows {}", "there is {}", "here we see {}")
WRITERS = 2 * len(_FRAMES)
"""The number of writers; writer 0 is the plainest, and that of `single_template`."""

_SIZE_WORDS = {True: ("large", "big", "huge"), False: ("small", "little", "tiny")}
_SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus sign"),
}
_COLOUR_WORDS = {"purple": ("purple", "violet")}
_PLACE_WORDS = {
    "top left": ("in the top left corner", "in the upper left"),
    "top": ("at the top", "near the upper edge"),
    "top right": ("in the top right corner", "in the upper right"),
    "left": ("on the left", "near the left edge"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "near the right edge"),
    "bottom left": ("in the bottom left corner", "in the lower left"),
    "bottom": ("at the bottom", "near the lower edge"),
    "bottom right": ("in the bottom right corner", "in the lower right"),
}
_SIDE_WORDS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

_KOREAN_COLOURS = ("빨간색", "주황색", "노란색", "초록색", "파란색", "보라색", "분홍색", "검은색")
_KOREAN_SHAPES = ("원", "사각형", "삼각형", "십자가")
_KOREAN_PLACES = {
    "top left": "왼쪽 위", "top": "위쪽", "top right": "오른쪽 위", "left": "왼쪽", "middle": "가운데", "right": "오른쪽",
    "bottom left": "왼쪽 아래", "bottom": "아래쪽", "bottom right": "오른쪽 아래", "above": "위", "below": "아래",
}  # fmt: skip

PICKS = 12
"""Most words of a caption that have synonyms."""

Choose = Callable[[Sequence[str]], str]
"""Picks one of several synonyms."""


def describe(scene: Scene, writer: int, picks: Sequence[int] = ()) -> str:
    """A caption that identifies the scene, by writer 0 to `WRITERS - 1`.

    `picks` are up to `PICKS` numbers from 0 to 5, which choose among synonyms; without them the plainest words are taken.
    """
    left = iter(picks)
    frame, turned = _FRAMES[writer // 2], bool(writer % 2)
    return frame.format(_core(scene, turned, lambda words: words[next(left, 0) % len(words)]))


def _core(scene: Scene, turned: bool, choose: Choose) -> str:
    # With several objects the sizes are redundant, so half of the captions omit them.
    sized = len(scene.things) == 1 or choose(("", "sized")) == "sized"
    things = [_noun_phrase(thing, sized, choose) for thing in scene.things]
    if len(things) == 1:
        place = choose(_PLACE_WORDS[scene.arrangement])
        return f"{things[0]} that sits {place}" if turned else f"{things[0]} {place}"
    if len(things) == 2:
        main, other = things
        if turned:
            return f"{other} {choose(_SIDE_WORDS[_OPPOSITE[scene.arrangement]])} {main}"
        return f"{main} {choose(_SIDE_WORDS[scene.arrangement])} {other}"
    main, first, second = things
    across = scene.arrangement == "horizontal"
    if turned:
        return f"{first}, {main} and {second} {'from left to right' if across else 'from top to bottom'}"
    ends = ("on the left", "on the right") if across else ("above", "below")
    return f"{main} between {first} {ends[0]} and {second} {ends[1]}"


def phrase(thing: Thing) -> str:
    """The plain name of one object, as in `large red circle`."""
    return f"{_SIZE_WORDS[thing.large][0]} {COLOURS[thing.colour]} {SHAPES[thing.shape]}"


def coarse(scene: Scene) -> str:
    """A short caption as a captioning model would give it: the objects without sizes and places."""
    names = [_with_article(f"{COLOURS[thing.colour]} {SHAPES[thing.shape]}") for thing in scene.things]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def korean(scene: Scene) -> str:
    """The scene in Korean, in full."""
    things = [
        f"{'큰' if thing.large else '작은'} {_KOREAN_COLOURS[thing.colour]} {_KOREAN_SHAPES[thing.shape]}"
        for thing in scene.things
    ]
    if len(things) == 1:
        return f"{_KOREAN_PLACES[scene.arrangement]}에 있는 {things[0]}"
    if len(things) == 2:
        return f"{things[1]} {_KOREAN_PLACES[scene.arrangement]}에 있는 {things[0]}"
    first, second = ("왼쪽", "오른쪽") if scene.arrangement == "horizontal" else ("위", "아래")
    return f"{first}의 {things[1]}, {second}의 {things[2]} 사이에 있는 {things[0]}"


def _noun_phrase(thing: Thing, sized: bool, choose: Choose) -> str:
    size = choose(_SIZE_WORDS[thing.large]) + " " if sized else ""
    colour, shape = COLOURS[thing.colour], SHAPES[thing.shape]
    return _with_article(size + choose(_COLOUR_WORDS.get(colour, (colour,))) + " " + choose(_SHAPE_WORDS[shape]))


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
