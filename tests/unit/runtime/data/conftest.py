"""Small data sets on disk, and the streams of a recipe made by hand."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmdsl.api.driver import build
from vlmdsl.ir import Encoder, Graph, Node, Stream
from vlmdsl.ir import streams as streams_of_program
from vlmdsl.types import EncodedType, FieldType

Members = Mapping[str, bytes | str | dict[str, object]]


def png(level: int = 128, size: tuple[int, int] = (8, 8)) -> bytes:
    """A grey image, encoded."""
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def image() -> Callable[..., bytes]:
    return png


@pytest.fixture
def shard(tmp_path: Path) -> Callable[[str, Members], Path]:
    """Writes a tar shard of members by name: bytes, text, or an object for json."""

    def write(name: str, members: Members) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as archive:
            for member, content in members.items():
                if isinstance(content, dict):
                    content = json.dumps(content)
                data = content.encode() if isinstance(content, str) else content
                header = tarfile.TarInfo(member)
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def pairs(shard: Callable[[str, Members], Path]) -> Callable[..., Path]:
    """A shard of `count` grey images captioned `sample K`; members in `damage` replace sound ones (None leaves one out)."""

    def write(count: int, damage: Mapping[str, bytes | str | None] | None = None, name: str = "pairs.tar") -> Path:
        members: dict[str, bytes | str | None] = {}
        for index in range(count):
            members[f"{index:04d}.png"] = png(index % 256)
            members[f"{index:04d}.txt"] = f"sample {index}"
        members.update(damage or {})
        return shard(name, {member: content for member, content in members.items() if content is not None})

    return write


def stream(graph: Graph, name: str, source: Node) -> Stream:
    """A pooled stream over a field or view."""
    assert isinstance(source.type, FieldType)
    tower = {"Image": "vision", "Text": "language"}[source.type.kind]
    encode = graph.add("encode", source, type=EncodedType(source.type.kind), encoder=Encoder(tower, source.type.kind))
    return Stream(name, source, encode, pooled=True, tokens=False)


@pytest.fixture
def streams() -> list[Stream]:
    """An augmented image and a rewritten text."""
    graph = Graph()
    image = graph.add("field", type=FieldType("Image"), name="image")
    text = graph.add("field", type=FieldType("Text"), name="text")
    view = graph.add("augment", image, type=FieldType("Image"), view=0, pipeline="crop", draw=0)
    rewrite = graph.add("rewrite", text, type=FieldType("Text"), count=4, minimum_words=1, draw=1)
    return [stream(graph, "image", view), stream(graph, "text", rewrite)]


@pytest.fixture
def plain_streams() -> list[Stream]:
    """The image and the text as they are."""
    graph = Graph()
    return [
        stream(graph, kind.lower(), graph.add("field", type=FieldType(kind), name=kind.lower()))
        for kind in ("Image", "Text")
    ]


@pytest.fixture(autouse=True)
def _no_global_randomness() -> object:
    """Nothing of the data pipeline may draw from numpy's global generator."""
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    yield
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


@pytest.fixture
def streams_of() -> Callable[[str], list[Stream]]:
    """What an expression encodes."""
    return lambda expression: streams_of_program(build(expression, expression=True).planned)
