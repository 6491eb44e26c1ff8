"""A trained run on other data than its own: classes and their names are the data's, and what means nothing is said."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlmdsl
from vlmdsl.api.classify import classify
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import open_source

SETTINGS = {"train.batch": 8, "train.compile": False, "evaluation.limit": 24, "evaluation.probe": 40}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "clip"
    return vlmdsl.train("clip", data=["shapes:samples=64"], steps=1, settings=SETTINGS, out=str(folder)).folder


def pictures(folder: Path, *classes: str, each: int = 6) -> Path:
    """A folder per class, of noise."""
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            image = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{name}{number}.png")
    return folder


def table(folder: Path, columns: list[str], *rows: tuple[object, ...]) -> str:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def test_classes_are_the_folders_of_the_data(run, tmp_path):
    evaluated = vlmdsl.evaluate(run, data=[str(pictures(tmp_path, "zebra", "aardvark"))])
    assert evaluated.evaluation["zero_shot"]["classes"] == 2
    assert evaluated.evaluation["zero_shot"]["images"] == 12
    assert evaluated.evaluation["zero_shot"]["chance"]["top-1"] == 0.5
    assert evaluated.evaluation["nearest_neighbours"]["k"] == 5
    assert "(k = 5)" in evaluated.to_text()
    # No class of the training data is among them: nothing can be said, and nothing counts as wrong.
    assert "linear_probe" not in evaluated.evaluation
    assert "linear probe: the training data has none of these classes" in evaluated.evaluation["notes"]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (["label"], {"zebra": ["zebra"], "ant": ["ant"]}),
        (["label", "class_name"], {"zebra": [40, "zebra"], "ant": [3, "ant"]}),
        (["label", "class_name"], {"zebra": [2, "zebra"], "ant": ["", ""]}),
        (["label", "class_name"], {"zebra": [1, "zebra"], "ant": [1, "ant"]}),
    ],
    ids=["words", "numbers with gaps", "some without", "one number for two"],
)
def test_classes_are_the_labels_of_a_table(columns, values, run, tmp_path):
    pictures(tmp_path, *values, each=4)
    rows = [(f"{name}/{name}{number}.png", f"text {number}", *values[name]) for name in values for number in range(4)]
    evaluated = vlmdsl.evaluate(run, data=[table(tmp_path, ["image", "text", *columns], *rows)]).evaluation
    named = {tuple(value) for value in values.values() if value[0] != ""}
    assert evaluated["zero_shot"]["classes"] == len(named)
    assert evaluated["zero_shot"]["images"] == 4 * len(named)
    left_out = [note for note in evaluated["notes"] if "no named class" in note]
    assert len(left_out) == (len(named) < 2)


def test_numbers_without_names_are_not_the_runs_classes(run, tmp_path):
    pictures(tmp_path, "zebra", "ant", each=3)
    rows = [
        (f"{name}/{name}{number}.png", "text", label) for label, name in enumerate(("ant", "zebra")) for number in range(3)
    ]
    data = table(tmp_path, ["image", "text", "label"], *rows)
    with pytest.raises(DiagnosticError, match="V0836"):
        vlmdsl.evaluate(run, data=[data])
    evaluated = vlmdsl.evaluate(run, data=[data], overrides=["evaluation.zero_shot=false"]).evaluation
    assert "zero_shot" not in evaluated
    assert "linear_probe" not in evaluated
    assert evaluated["nearest_neighbours"]["k"] == 2


def labelled(folder: Path, labels: dict[str, object]) -> str:
    """A table of three pictures of each class, with its label."""
    pictures(folder, *labels, each=3)
    rows = [(f"{name}/{name}{number}.png", "text", label) for name, label in labels.items() for number in range(3)]
    return table(folder, ["image", "text", "label"], *rows)


def test_listed_classes_name_numbers(run, tmp_path):
    classes = ["evaluation.classes=[zebra, ant, red circle]"]
    numbers = labelled(tmp_path / "numbers", {"ant": 1, "zebra": 0})
    words = labelled(tmp_path / "words", {"ant": "ant", "zebra": "zebra"})
    by_number, by_name = (vlmdsl.evaluate(run, data=[data], overrides=classes).evaluation for data in (numbers, words))
    assert by_number["zero_shot"] == by_name["zero_shot"]
    assert (by_number["zero_shot"]["classes"], by_number["zero_shot"]["images"]) == (3, 6)


def test_data_of_images_and_labels_alone_says_how_it_is_classified(run, tmp_path):
    pictures(tmp_path, "ant", "zebra", each=2)
    rows = [(f"{name}/{name}{number}.png", label) for label, name in enumerate(("ant", "zebra")) for number in range(2)]
    data, classes = table(tmp_path, ["image", "label"], *rows), "evaluation.classes=[ant, zebra]"
    with pytest.raises(DiagnosticError, match="V0801") as refused:
        vlmdsl.evaluate(run, data=[data], overrides=[classes])
    help = "or measure its classes alone: `--map text=label --set evaluation.retrieval=false`"
    assert help in refused.value.diagnostics[0].help
    overrides = [classes, "evaluation.retrieval=false"]
    evaluated = vlmdsl.evaluate(run, data=[data], map={"text": "label"}, overrides=overrides).evaluation
    assert (evaluated["zero_shot"]["images"], evaluated["zero_shot"]["classes"]) == (4, 2)
    assert "retrieval" not in evaluated


@pytest.mark.parametrize(
    "content", ["zebra  # the first\n\nant\nred circle\n", '["zebra", "ant", "red circle"]'], ids=["lines", "json"]
)
def test_classes_of_a_file_are_those_of_a_list(content, run, tmp_path):
    (tmp_path / "names.txt").write_text(content, "utf-8")
    folder = str(pictures(tmp_path / "pictures", "any", each=2))
    data = labelled(tmp_path / "numbers", {"ant": 1, "zebra": 0})
    of_file, of_list = (
        vlmdsl.evaluate(run, data=[data], overrides=[f"evaluation.classes={classes}"]).evaluation
        for classes in (tmp_path / "names.txt", "[zebra, ant, red circle]")
    )
    assert of_file == of_list
    assert classify(run, folder, str(tmp_path / "names.txt")) == classify(run, folder, "zebra, ant,red circle")


@pytest.mark.parametrize(("shift", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_accuracy_among_listed_classes_is_that_of_the_labels(shift, accuracy, run, tmp_path):
    names = ["zebra", "red circle", "ant"]
    answers = classify(run, str(pictures(tmp_path / "pictures", "any")), names).probabilities
    rows = [(f"pictures/any/{Path(key).name}", "text", (int(np.argmax(row)) + shift) % 3) for key, row in answers.items()]
    data = table(tmp_path, ["image", "text", "label"], *rows)
    measured = vlmdsl.evaluate(run, data=[data], overrides=[f"evaluation.classes={names}"]).evaluation["zero_shot"]
    assert (measured["top-1"], measured["images"]) == (accuracy, 6)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ({"ant": 0}, "nowhere.txt", "V0867.*`nowhere.txt` does not name classes: file not found"),
        ({"ant": 0, "zebra": 2}, "[ant, zebra]", "V0838.*the class 2, and 2 names are for 0 to 1"),
        ({"ant": "ant", "zebra": "zebra"}, "[ant, zebras]", "V0838.*the class `zebra`, which is not in the list"),
        ({"ant": 0}, "[ant, ant]", "`ant` is named twice"),
        ({"ant": 0}, "['']", "evaluation.classes"),
    ],
    ids=["file", "number", "name", "twice", "empty"],
)
@pytest.mark.parametrize("zero_shot", ["true", "false"])
def test_listed_classes_that_do_not_fit(labels, classes, message, zero_shot, run, tmp_path):
    overrides = [f"evaluation.classes={classes}", f"evaluation.zero_shot={zero_shot}"]
    with pytest.raises(DiagnosticError, match=f"(?s){message}"):
        vlmdsl.evaluate(run, data=[labelled(tmp_path, labels)], overrides=overrides)


def test_a_mapping_for_the_evaluation_is_for_its_data_only(run, tmp_path):
    pictures(tmp_path, "zebra", "ant", each=2)
    rows = [(f"{name}/{name}{number}.png", f"text {number}", name) for name in ("zebra", "ant") for number in range(2)]
    data = table(tmp_path, ["photo", "words", "animal"], *rows)
    evaluated = vlmdsl.evaluate(run, data=[data], map={"image": "photo", "text": "words", "label": "animal"}).evaluation
    assert (evaluated["samples"], evaluated["zero_shot"]["classes"]) == (4, 2)


def test_the_probe_knows_shared_classes_by_name(run, tmp_path):
    trained_on = open_source("shapes:samples=64")
    first = trained_on.class_names[trained_on[0]["label"]]  # the first sample is among those that the probe is fitted to
    evaluated = vlmdsl.evaluate(run, data=[str(pictures(tmp_path, "aardvark", first, each=3))]).evaluation["linear_probe"]
    assert (evaluated["fitted"], evaluated["images"], evaluated["left_out"]) == (40, 3, 3)
    assert evaluated["chance"] == {"top-1": 1.0}


@pytest.mark.parametrize(
    ("classes", "each", "notes"),
    [
        (
            ("zebra",),
            1,
            {"R@1, R@5, R@10 cannot be wrong with only 1 texts", "top-1, top-5 cannot be wrong with only 1 classes"},
        ),
        (
            ("ant", "bee", "cat"),
            1,
            {"R@5, R@10 cannot be wrong with only 3 texts", "top-5 cannot be wrong with only 3 classes"},
        ),
    ],
)
def test_what_little_data_says_is_said(classes, each, notes, run, tmp_path):
    evaluated = vlmdsl.evaluate(run, data=[str(pictures(tmp_path, *classes, each=each))])
    said = "\n".join(evaluated.evaluation["notes"])
    assert all(note in said for note in notes)
    assert "nearest_neighbours" not in evaluated.evaluation  # every image is alone in its class


def test_numbers_without_names_of_the_runs_own_data_are_said(tmp_path):
    pictures(tmp_path, "zebra", "ant", each=4)
    rows = [
        (f"{name}/{name}{number}.png", f"{name} {number}", len(name)) for name in ("zebra", "ant") for number in range(4)
    ]
    data = table(tmp_path, ["image", "text", "label"], *rows)
    run = vlmdsl.train("clip", data=[data], val=[data], steps=1, settings=SETTINGS, out=str(tmp_path / "run"))
    assert "zero_shot" not in run.evaluation
    assert "numbers but no names" in "\n".join(run.evaluation["notes"])
    assert run.evaluation["linear_probe"]["images"] == 8  # the same numbers are the same classes
    classes = ["evaluation.classes=[a, b, c, ant, d, zebra]"]
    named = vlmdsl.evaluate(run.folder, overrides=classes).evaluation
    assert (named["zero_shot"]["classes"], named["zero_shot"]["images"]) == (6, 8)
    assert named["linear_probe"] == run.evaluation["linear_probe"]


def shades(folder: Path, **levels: list[int]) -> str:
    """A folder per class, of images of one grey each."""
    for name, greys in levels.items():
        (folder / name).mkdir(parents=True)
        for number, grey in enumerate(greys):
            Image.new("RGB", (20, 20), (grey, grey, grey)).save(folder / name / f"{number}.png")
    return str(folder)


def test_what_is_known_of_the_untrained_model_is_about_the_runs_own_data(tmp_path):
    own = shades(tmp_path / "own", zebra=[10, 12, 14, 16], ant=[200, 202, 204, 206])
    other = shades(tmp_path / "other", zebra=[10, 14, 200, 204], ant=[12, 16, 202, 206])
    settings = {**SETTINGS, "evaluation.retrieval": False, "evaluation.zero_shot": False}
    run = vlmdsl.train("clip", data=[own], val=[own], steps=1, settings=settings, out=str(tmp_path / "run"))
    assert run.evaluation["nearest_neighbours"]["untrained"]["top-1"] == 1.0
    evaluated = vlmdsl.evaluate(run.folder, data=[other]).evaluation  # images of the same names
    assert evaluated["nearest_neighbours"]["untrained"]["top-1"] < 1.0
