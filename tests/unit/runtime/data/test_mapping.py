"""Columns to fields: the usual names, `--map`, and what is said before the first step where a field lacks its column."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.ir import Graph, Node, Program, Term
from vlmdsl.runtime.data import (
    BadSample,
    Requirement,
    duplicate_share,
    map_fields,
    parse_assignments,
    requirements,
    texts_of,
)
from vlmdsl.runtime.values.scalar import MISSING_LABEL
from vlmdsl.runtime.values.text import alternatives
from vlmdsl.source import Span
from vlmdsl.types import FieldType

IMAGE, TEXT, LABEL = Requirement("image", "Image"), Requirement("text", "Text"), Requirement("label", "Label")
REWRITES = Requirement("text_rewrites", "Rewrites")


class Listed:
    """A source of given samples."""

    def __init__(self, *samples: Mapping[str, object], class_names: tuple[str, ...] | None = None) -> None:
        self.name = "listed"
        self.keys = [str(index) for index in range(len(samples))]
        self.columns = tuple(dict.fromkeys(name for sample in samples for name in sample))
        self.class_names = class_names
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Mapping[str, object]:
        return self._samples[index]

    def folder_of(self, index: int) -> str | None:
        return None


def problems(source: Listed, *needs: Requirement, **assignments: str) -> list[Diagnostic]:
    with pytest.raises(DiagnosticError) as caught:
        map_fields(source, needs, assignments)
    return list(caught.value.diagnostics)


def program(*roots: Node, graph: Graph) -> Program:
    return Program("test", graph, tuple(Term(str(number), node) for number, node in enumerate(roots)))


def test_usual_names_are_found() -> None:
    mapping = map_fields(Listed({"filepath": "a.png", "caption": "x", "cls": 3}), [IMAGE, TEXT])
    assert mapping.columns == {"image": ("filepath",), "text": ("caption",), "label": ("cls",)}


def test_a_field_of_its_own_does_not_stand_in_for_another() -> None:
    faults = problems(Listed({"image": b"", "caption": "x"}), IMAGE, TEXT, Requirement("caption", "Text"))
    assert [fault.code for fault in faults] == ["V0801"]
    assert "`text`" in faults[0].message


def test_a_lacking_field_is_reported_at_its_place_with_the_line_that_helps() -> None:
    need = Requirement("text_rewrites", "Rewrites", Span("mine.vlo", 5, 9))
    (fault,) = problems(Listed({"image": b"", "txt": "x", "tags": []}), IMAGE, TEXT, need)
    assert (fault.code, fault.primary.span) == ("V0801", Span("mine.vlo", 5, 9))
    assert "`image`, `txt`, `tags`" in fault.notes[0]
    assert fault.help == (
        "name the column: `--map text_rewrites=COLUMN,COLUMN`",
        "or choose a stand-in, `--map text_rewrites=summarize(TEXT)`: the first sentence of a text",
        "or choose a stand-in, `--map text_rewrites=template(WORDS)`: `a picture of A, B and C`, of words or phrases",
    )


def test_a_stand_in_is_offered_with_the_columns_there_are() -> None:
    faults = problems(Listed({"image": b"", "text": "x"}), IMAGE, TEXT, LABEL, Requirement("parts", "Regions"))
    assert [fault.help[1] for fault in faults] == [
        "or choose a stand-in, `--map label=hash(text)`: a class for each distinct text",
        "or choose a stand-in, `--map parts=grid(image)`: the cells of a 3 x 3 grid over an image, as small images",
    ]


def test_all_faults_are_reported_at_once() -> None:
    source = Listed({"image": b"", "title": "x"})
    faults = problems(source, IMAGE, TEXT, LABEL, text="titel", labl="image")
    assert {fault.code: fault.help[0] for fault in faults} == {
        "V0804": "did you mean `label`?",
        "V0802": "did you mean `title`?",
        "V0801": "name the column: `--map label=COLUMN`",
    }


@pytest.mark.parametrize("assignment", ["text", "=x", "text=", "text=a,,b", ""])
def test_a_mapping_needs_both_sides(assignment: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        parse_assignments([assignment])
    assert caught.value.diagnostics[0].code == "V0803"


def test_mapping_rewrites_that_the_recipe_does_not_read_is_harmless() -> None:
    assert "text_rewrites" not in map_fields(Listed({"image": b"", "text": "x", "tags": []}), [IMAGE, TEXT], {
        "text_rewrites": "tags"
    })  # fmt: skip


def test_texts_and_their_alternatives() -> None:
    sample = {"a": None, "b": "", "c": ["  ", " first\ud800 "], "tags": ["one", None, ["two", "first?"]], "d": 7}
    mapping = map_fields(Listed(sample), [TEXT, REWRITES], {"text": "a,b,c", "text_rewrites": "tags,a,d,c"})
    value = mapping.read("text", "Text", sample)
    assert (value.text, value.rewrites) == ("first?", ("one", "two", "7"))


@pytest.mark.parametrize(
    ("sample", "reason"), [({}, "missing text"), ({"text": None}, "missing text"), ({"text": " \n"}, "empty text")]
)
def test_a_sample_without_text_is_bad(sample: Mapping[str, object], reason: str) -> None:
    mapping = map_fields(Listed({"text": "x"}), [TEXT])
    with pytest.raises(BadSample, match=reason):
        mapping.read("text", "Text", sample)


Json = st.recursive(st.none() | st.text(max_size=4) | st.integers(0, 3), lambda inner: st.lists(inner, max_size=3))


@given(st.sampled_from(["a", "b", "1"]), st.lists(Json))
def test_alternatives_are_texts_that_differ(text: str, values: list[object]) -> None:
    texts = alternatives(text, values)
    assert len(set(texts)) == len(texts)
    assert text not in texts
    assert all(other and other == other.strip() for other in texts)
    assert alternatives(text, [values, values]) == texts


def test_labels_that_are_words_are_numbered_as_the_data_has_them() -> None:
    train = Listed({"label": "dog"}, {"label": "cat"}, {"label": None}, {"label": "dog "})
    mapping = map_fields(train, [LABEL])
    assert mapping.classes["label"] == ("cat", "dog")
    labels = [mapping.read("label", "Label", train[index]) for index in range(4)]
    assert labels == [1, 0, MISSING_LABEL, 1]
    val = Listed({"label": "dog"}, {"label": "emu"})
    held_out = map_fields(val, [LABEL], classes=mapping.classes)
    assert held_out.classes["label"] == ("dog", "emu")
    assert [held_out.read("label", "Label", val[index]) for index in range(2)] == [0, 1]


def test_numbers_have_the_known_names_where_the_data_has_none() -> None:
    train, val = Listed({"label": 1, "class_name": "dog"}), Listed({"label": 1})
    mapping = map_fields(train, [LABEL])
    assert mapping.numbered == {"label"}
    assert map_fields(val, [LABEL], classes=mapping.classes).classes["label"] == ("", "dog")
    assert "label" not in map_fields(val, [LABEL], classes={}).classes


def test_where_one_number_has_several_names_the_names_are_the_classes() -> None:
    joined = Listed({"label": 0, "class_name": "cat"}, {"label": 0, "class_name": "ant"}, {"label": 1, "class_name": "cat"})
    mapping = map_fields(joined, [LABEL])
    assert mapping.classes["label"] == ("ant", "cat")
    assert [mapping.read("label", "Label", joined[index]) for index in range(3)] == [1, 0, 1]


@pytest.mark.parametrize("name", [["cat"], {"name": "cat"}, True, float("nan")])
def test_what_is_not_a_name_names_no_class(name: object) -> None:
    source = Listed({"label": 0, "class_name": name}, {"label": 0, "class_name": "ant"}, {"label": 1, "class_name": "cat"})
    assert map_fields(source, [LABEL]).classes["label"] == ("ant", "cat")


def test_names_of_labels_that_are_numbers() -> None:
    source = Listed({"label": 2, "group": "food"}, {"label": 0, "group": "flags"})
    assert "label" not in map_fields(source, [LABEL]).classes
    assert map_fields(source, [LABEL], {"class_name": "group"}).classes["label"] == ("flags", "", "food")
    named = Listed({"label": 1, "fine": 5}, class_names=("a", "b"))
    assert map_fields(named, [LABEL]).classes["label"] == ("a", "b")
    assert "label" not in map_fields(named, [LABEL], {"label": "fine"}).classes


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("Label", "3", 3), ("Label", 3.0, 3), ("Label", "", MISSING_LABEL), ("Label", 3.5, None), ("Label", 10**400, None),
        ("Label", 1e300, None), ("Label", {}, None), ("Flag", "no", False), ("Flag", 1, True), ("Flag", None, None),
        ("Flag", "maybe", None), ("Number", "0.5", 0.5), ("Number", float("nan"), None), ("Number", None, None),
        ("Number", "x", None),
    ],
)  # fmt: skip
def test_plain_fields(kind: str, value: object, expected: object) -> None:
    mapping = map_fields(Listed({"f": value}), [Requirement("f", kind)])
    if expected is None:
        with pytest.raises(BadSample):
            mapping.read("f", kind, {"f": value})
    else:
        assert mapping.read("f", kind, {"f": value}) == expected


def test_a_program_needs_its_live_fields_and_the_rewrites_that_it_draws_from() -> None:
    graph = Graph()
    text = graph.add("field", type=FieldType("Text"), name="text", span=Span("r.vlo", 1, 2))
    graph.add("field", type=FieldType("Label"), name="unused")
    rewrite = graph.add("rewrite", text, type=FieldType("Text"), count=2, minimum_words=1, draw=0, span=Span("r.vlo", 3, 4))
    rewritten = program(rewrite, graph=graph)
    assert requirements(rewritten) == [
        Requirement("text", "Text", Span("r.vlo", 1, 2)),
        Requirement("text_rewrites", "Rewrites", Span("r.vlo", 3, 4)),
    ]
    assert [need.field for need in requirements(rewritten, views=False)] == ["text"]


def test_held_out_data_may_lack_what_only_training_reads() -> None:
    graph = Graph()
    roots = [graph.add("field", type=FieldType(kind), name=kind.lower()) for kind in ("Image", "Text", "Label")]
    needs = requirements(program(*roots, graph=graph), views=False)
    assert [need.field for need in needs if not need.optional] == ["image", "text"]
    bare = Listed({"image": b"", "text": "x"})
    assert "label" not in map_fields(bare, needs)
    assert "label" not in map_fields(bare, needs, {"label": "group"})
    assert problems(bare, IMAGE, TEXT, LABEL)[0].code == "V0801"


@pytest.mark.parametrize("type", [FieldType("Regions", 2), FieldType("Text", 4)])
def test_fields_that_no_data_can_feed(type: FieldType) -> None:
    graph = Graph()
    with pytest.raises(DiagnosticError) as caught:
        requirements(program(graph.add("field", type=type, name="f"), graph=graph))
    assert caught.value.diagnostics[0].code == "V0823"


def test_texts_of_the_data_and_their_duplicates() -> None:
    source = Listed({"text": "a"}, {"text": ""}, {"text": "b", "text_rewrites": ["a"]}, {"text": "c"})
    texts = list(texts_of(source, map_fields(source, [TEXT, REWRITES]), ["text"]))
    assert texts == ["a", "b", "a", "c"]
    assert duplicate_share(texts) == 0.5
    assert duplicate_share([]) == 0.0
