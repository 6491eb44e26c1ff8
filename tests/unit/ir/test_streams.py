"""What readers of a stream ask of it."""

from __future__ import annotations

from unit.passes.programs import Build
from vlmdsl.ir import streams
from vlmdsl.types import VocabularyType


def test_a_vocabulary_that_more_than_the_criterion_reads_is_wanted_everywhere() -> None:
    build = Build()
    loss = build.mlm()
    (stream,) = streams(build.program("masked", loss=loss))
    assert (stream.vocabulary, stream.asked_only) == (True, True)
    stopped = build.add("stop", loss.inputs[0], type=VocabularyType())
    (stream,) = streams(build.program("read", loss=loss, other=stopped))
    assert (stream.vocabulary, stream.asked_only) == (True, False)


def test_a_stream_without_a_vocabulary_asks_for_no_token() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    found = streams(build.program("plain", loss=build.both_ways(matrix, build.paired())))
    assert not any(stream.asked_only for stream in found)
