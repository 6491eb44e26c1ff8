"""Names of classes in a text or in a file."""

from __future__ import annotations

import json

import pytest

from vlmdsl.schema.class_names import named_classes
from vlmdsl.source.regular_files import BadFile


@pytest.mark.parametrize(
    "content",
    ["dog\n\n  red cat # a comment\n", "\ufeffdog\r\nred cat", json.dumps(["dog", "red cat"]), '\n["dog",\n"red cat"]'],
    ids=["lines", "windows", "json", "json over lines"],
)
def test_a_file_holds_names(content, tmp_path):
    (tmp_path / "names").write_text(content, "utf-8")
    assert named_classes(str(tmp_path / "names")) == ("dog", "red cat") == named_classes(" dog,red cat,")


def test_names_of_a_json_list_have_commas(tmp_path):
    (tmp_path / "names").write_text('["dog, large", "C#"]', "utf-8")
    assert named_classes(str(tmp_path / "names")) == ("dog, large", "C#")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"dog", "fewer than two names"),
        (b"[1, 2]", "not a list of names"),
        (b'["dog", "cat"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"dog\n" * 2**18, "too large"),
    ],
    ids=["one", "numbers", "broken", "deep", "bytes", "large"],
)
def test_a_file_without_names(content, reason, tmp_path):
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(BadFile, match=reason):
        named_classes(str(tmp_path / "names"))


@pytest.mark.parametrize("text", ["", ",", "dog,", "/dev/null", "no\0where", "~nobody/x", "x" * 5000])
def test_texts_without_names(text):
    with pytest.raises(BadFile):
        named_classes(text)
