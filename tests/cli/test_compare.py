"""`vlmdsl compare`: what it prints and leaves, what it does not run twice, and that all faults are reported first."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from cli.conftest import Result, Run
from vlmdsl.runtime.training import stages
from vlmdsl.runtime.training.lock import locked

pytestmark = pytest.mark.xdist_group("compare")  # one process, so what one test trained the next one finds

GOLDEN = Path(__file__).parent / "golden" / "compare.table"
SMALL = (
    "--data", "shapes:samples=16", "--steps", "2", "--seeds", "2", "--set", "train.batch=8", "--set", "train.compile=false",
    "--set", "evaluation.limit=16",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this file compare."""
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture
def compared(run: Run, folder: Path) -> Path:
    """The folder, with a finished comparison in it."""
    if not (folder / "comparison.json").is_file():
        assert compare(run, folder).code == 0
    return folder


def compare(run: Run, folder: Path, *more: str) -> Result:
    return run("compare", "clip", "laclip", *SMALL, "--out", str(folder), *more)


def masked(text: str, folder: Path) -> str:
    """The text without what depends on the machine: numbers that training gave, and where the folder is."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"[+-]?\d+\.\d", "#", text)
    text = re.sub(r"(# to #|-)(?= │ not separable)", "?", text)  # no interval where both seeds differ alike
    return re.sub(r" {2,}|[━─]+", " ", text)


def test_a_comparison_and_what_it_leaves(run: Run, folder: Path) -> None:
    result = compare(run, folder)
    assert result.code == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("run ")][-1].startswith(
        "run 4 of 4: laclip, seed 1"
    )
    if os.environ.get("VLMDSL_ACCEPT"):
        GOLDEN.write_text(masked(result.stdout, folder), encoding="utf-8")
    assert masked(result.stdout, folder) == GOLDEN.read_text(encoding="utf-8")
    stored = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert [(entry["recipe"], entry["seed"]) for entry in stored["runs"]] == [
        ("clip", 0), ("clip", 1), ("laclip", 0), ("laclip", 1),
    ]  # fmt: skip
    for entry in stored["runs"]:
        assert (folder / entry["folder"] / "evaluation.json").is_file()
    # Both start with the same towers, so the untrained models of a seed agree.
    of_seed = [json.loads((folder / stored["runs"][n]["folder"] / "evaluation.json").read_text()) for n in (0, 2)]
    assert of_seed[0]["zero_shot"]["untrained"] == of_seed[1]["zero_shot"]["untrained"]


def test_what_is_finished_is_not_run_again(run: Run, compared: Path) -> None:
    before = (compared / "comparison.json").read_text(encoding="utf-8")
    stopped = next(compared.glob("laclip/seed-1-*"))
    (stopped / "finished.json").unlink()
    again = json.loads(compare(run, compared, "--json").stdout)
    assert {**again, "runs": ()} == {**json.loads(before), "runs": ()}
    assert again["runs"][3]["seconds"] is None  # resumed after its last step
    third = compare(run, compared)
    assert third.stderr.count("already finished") == 4
    assert "training" not in third.stderr


def test_another_configuration_is_another_run(run: Run, compared: Path) -> None:
    compare(run, compared, "--seeds", "1", "--param", "clip.temperature=0.5")
    assert len(list(compared.glob("clip/seed-0-*"))) == 2
    assert len(list(compared.glob("laclip/seed-0-*"))) == 1


def test_the_faults_of_all_are_reported_before_the_first_run(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spelled = run("compare", "clip", "klip", "-e", "contrst(image, text)", "--set", "train.step=3", "--out", str(out))
    assert (spelled.code, out.exists()) == (2, False)
    assert [code for code in ("V0202", "V0201", "V0811") if code not in spelled.stderr] == []
    strange = [f"recipe x(image: Image, {name}: Text)\nminimize contrast(image, {name})" for name in ("tags", "tale")]
    lacking = run("compare", "clip", "-e", strange[0], "-e", strange[1], *SMALL, "--out", str(out))
    assert (lacking.code, out.exists()) == (2, False)
    assert all(f"`{name}`" in lacking.stderr for name in ("tags", "tale"))


def test_each_recipe_gets_the_mapping_of_its_own_fields(run: Run, tmp_path: Path) -> None:
    strange = "recipe x(image: Image, tale: Text)\nminimize contrast(image, tale)"
    mapped = ("-e", strange, *SMALL, "--map", "tale=caption", "--out", str(tmp_path))
    result = run("compare", "clip", *mapped, "--seeds", "1")
    assert result.code == 0, result.stderr
    maps = [path.read_text(encoding="utf-8").count("tale: caption") for path in sorted(tmp_path.glob("*/*/config.yaml"))]
    assert maps == [0, 1]
    nobody = run("compare", "clip", *mapped, "--map", "tael=text")
    assert nobody.code == 2
    assert "`tael`" in nobody.stderr


def test_hyper_parameters_of_strangers_and_many_processes_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not among the recipes" in run("compare", "clip", "--param", "moco.size=8").stderr
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("compare", "clip", "laclip")
    assert result.code == 2
    assert "V0840" in result.stderr


def test_damaged_files_of_a_comparison_are_named_or_written_again(run: Run, compared: Path) -> None:
    (first, *_) = json.loads(compare(run, compared, "--json").stdout)["runs"]
    finished = compared / first["folder"] / "finished.json"
    sound = finished.read_bytes()
    strange = b'{"evaluation": {"samples": 1, "a": {"chance": 3}}, "seconds": 1}'
    for content in (b"", sound[: len(sound) // 2], b"[]", b"{}", strange, b"\xff"):
        finished.write_bytes(content)
        result = compare(run, compared)
        assert (result.code, "V0850" in result.stderr, str(finished) in result.stderr) == (2, True, True)
    finished.write_bytes(sound.replace(b'"top-1"', b'"\\u001b[31m"'))
    assert "V0850" in compare(run, compared).stderr
    finished.write_bytes(sound)
    for path in (*compared.glob("tokenizer-*.json"), compared / "comparison.json"):
        before = path.read_bytes()
        path.write_bytes(b"garbage")
        assert compare(run, compared).code == 0
        assert path.read_bytes() == before
    facts = finished.with_name("run.json")
    finished.unlink()
    content = facts.read_bytes()
    facts.unlink()
    lost = compare(run, compared)
    assert (lost.code, "V0850" in lost.stderr, (finished.parent / "checkpoints").is_dir()) == (2, True, True)
    facts.write_bytes(content)
    assert compare(run, compared).code == 0


def test_a_comparison_is_locked_and_goes_on_after_a_signal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path):
        assert "V0851" in compare(run, tmp_path).stderr
    save = stages.BegunStage.save

    def saves(self: stages.BegunStage, step: int) -> None:
        save(self, step)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stages.BegunStage, "save", saves)
        stopped = compare(run, tmp_path)
    assert (stopped.code, stopped.stderr.splitlines()[-1]) == (143, "the same command continues the comparison")
    assert compare(run, tmp_path, "--seeds", "1").code == 0


def test_numbers_in_json_have_no_noise(run: Run, compared: Path) -> None:
    assert compared.is_dir()
    for path in compared.rglob("*.json"):
        numbers = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", path.read_text()) if "checkpoints" not in path.parts else []
        assert [number for number in numbers if len(number.lstrip("-0.")) > 13] == [], path


def test_the_page_of_a_comparison_has_its_table_and_leads_to_its_runs(run: Run, compared: Path) -> None:
    page = compared / "report.html"
    before = page.read_text()
    page.unlink()
    result = run("report", str(compared))
    assert (result.code, result.stdout) == (0, f"report: {page}\n")
    text = page.read_text()
    assert text == before
    assert "retrieval, image to text, R@1" in text
    assert "laclip, loss" in text
    assert text.count("data:image/svg+xml") == 2
    links = re.findall(r'href="([^"#]+)"', text)
    assert len(links) == len(json.loads((compared / "comparison.json").read_text(encoding="utf-8"))["runs"])
    assert all((compared / link).is_file() for link in links)


def test_stages_and_flows_are_compared_and_unequal_training_is_said(run: Run, tmp_path: Path) -> None:
    recipes = [
        str(Path(__file__).parents[1] / "end_to_end" / "recipes" / f"two_{parts}.vlo") for parts in ("flows", "stages")
    ]
    settings = ("stages.main.train.steps=2", "flows.texts.data.train=[shapes:samples=8]", "train.steps=1")
    options = [word for setting in settings for word in ("--set", setting)]
    result = run("compare", *recipes, *SMALL[:2], *SMALL[6:], "--seeds", "1", *options, "--out", str(tmp_path / "out"))
    assert result.code == 0, result.stderr
    remark = "the recipes do not train equally long: two_flows 1, two_stages 3 steps; `stages.NAME.train.steps`"
    assert f"note: {remark}" in result.stderr
    assert remark in result.stdout
    assert "1 to 3 steps, 1 seed" in result.stdout
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert {name: recipe["steps"] for name, recipe in stored["recipes"].items()} == {"two_flows": 1, "two_stages": 3}
    unknown = run("compare", *recipes, "--set", "stages.mian.train.steps=2", "--out", str(tmp_path / "other"))
    assert (unknown.code, (tmp_path / "other").exists()) == (2, False)
    assert "did you mean `stages.main`?" in unknown.stderr
