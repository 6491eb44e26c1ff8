"""Descriptions of a scene in Korean: one in full, and further phrasings of it."""

from __future__ import annotations

from collections.abc import Sequence

from vlmdsl.runtime.data.shapes.captions import Caption, filled
from vlmdsl.runtime.data.shapes.scenes import COLOURS, SHAPES, Scene, Thing

__all__ = ["KOREAN_FRAMES", "korean", "korean_words"]

_SIZES = {True: ("큰", "커다란"), False: ("작은", "조그만")}
_COLOURS = (
    ("빨간색", "붉은색"), ("주황색",), ("노란색",), ("초록색", "녹색"),
    ("파란색", "푸른색"), ("보라색",), ("분홍색", "핑크색"), ("검은색", "검정색"),
    ("갈색",), ("회색",), ("청록색",), ("남색",), ("올리브색",), ("적갈색",), ("연두색",), ("베이지색",),
)  # fmt: skip
_SHAPES = (("원", "동그라미"), ("사각형", "네모"), ("삼각형", "세모"), ("십자가", "십자 모양"))
_PLACES = {
    "top left": "왼쪽 위", "top": "위쪽", "top right": "오른쪽 위", "left": "왼쪽", "middle": "가운데", "right": "오른쪽",
    "bottom left": "왼쪽 아래", "bottom": "아래쪽", "bottom right": "오른쪽 아래", "above": "위", "below": "아래",
}  # fmt: skip

KOREAN_FRAMES = ("{}", "{} 그림", "{P} 있는 그림", "그림 속에 {P} 있습니다", "여기에 {P} 보입니다", "{}의 모습")
"""Sentences around a scene; `{P}` takes the scene with the particle of a subject."""

_FIRST_SYLLABLE, _FINALS = ord("가"), 28


def korean(scene: Scene, writer: int = 0, picks: Sequence[int] = ()) -> Caption:
    """The scene in Korean, in full, by writer 0 (the plainest) to `len(KOREAN_FRAMES) - 1`; `picks` choose among synonyms.

    >>> korean(Scene((Thing(0, 0, True),), "middle")).text
    '가운데에 있는 큰 빨간색 원'
    """
    left = iter(picks)

    def choose(words: Sequence[str]) -> str:
        return words[next(left, 0) % len(words)]

    names = [" ".join(choose(words) for words in _words_of(thing).values()) for thing in scene.things]
    if len(names) == 1:
        core = f"{_PLACES[scene.arrangement]}에 있는 {{0}}"
    elif len(names) == 2:
        core = f"{{1}} {_PLACES[scene.arrangement]}에 있는 {{0}}"
    else:
        first, second = ("왼쪽", "오른쪽") if scene.arrangement == "horizontal" else ("위", "아래")
        core = f"{first}의 {{1}}, {second}의 {{2}} 사이에 있는 {{0}}"
    # Every core ends with the main object, so that its last syllable decides the particle.
    sentence = KOREAN_FRAMES[writer].replace("{P}", "{}" + _subject_particle(names[0]))
    return filled(sentence.replace("{}", core), names, articles=False)


def korean_words(thing: Thing) -> dict[str, str]:
    """The plain words of `korean` for one object, by `size` (unless all are equal), `colour` and `shape`."""
    return {attribute: words[0] for attribute, words in _words_of(thing).items()}


def _words_of(thing: Thing) -> dict[str, tuple[str, ...]]:
    size = {} if thing.large is None else {"size": _SIZES[thing.large]}
    return {**size, "colour": _COLOURS[thing.colour], "shape": _SHAPES[thing.shape]}


def _subject_particle(word: str) -> str:
    """`이` after a consonant, `가` after a vowel."""
    return "이" if (ord(word[-1]) - _FIRST_SYLLABLE) % _FINALS else "가"


assert (len(_COLOURS), len(_SHAPES)) == (len(COLOURS), len(SHAPES))
