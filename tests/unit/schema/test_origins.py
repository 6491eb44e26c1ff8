"""Settings that say the same twice: what replaces what, and where one would be lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmdsl.schema import CONFIG_SEAL, CallSettings, RunConfig, dump_config, load_config
from vlmdsl.source import SourceMap

STAGES = {"stages": ("first", "second"), "flows": ()}


def outcome(folder: Path, file: str = "", **layers: object) -> tuple[RunConfig | None, list[str]]:
    """The configuration, and each diagnostic as `code [what is underlined] message | help`."""
    path = folder / "run.yaml"
    path.write_text(file, encoding="utf-8")
    sources = SourceMap()
    config, diagnostics = load_config(str(path), sources=sources, **layers)  # type: ignore[arg-type]
    words = []
    for each in diagnostics:
        underlined = sources.get(each.primary.span.file).slice(each.primary.span)
        words.append(f"{each.code} [{underlined}] {each.message} | {' '.join(each.help)}")
    return config, words


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            {"overrides": ["train.steps=5"], "flags": {"train.steps": 10}},
            "V0848 [train.steps=10] `train.steps` is given twice: 5 and 10 | leave one of them out",
        ),
        (
            {"overrides": ["train.batch=32", "train.batch=64"]},
            "V0848 [64] `train.batch` is given twice: 32 and 64 | leave one of them out",
        ),
        (
            {"overrides": ["train={steps: 5, batch: 8}"], "flags": {"train.steps": 10}},
            "V0848 [train.steps=10] `train.steps` is given twice: 5 and 10 | leave one of them out",
        ),
        (
            {"overrides": ["data.map.text=caption"], "flags": {"data.map": {"text": "title"}}},
            "V0848 [data.map={'text': 'title'}] `data.map.text` is given twice: caption and title | leave one of them out",
        ),
        (
            {"overrides": ["data.train=a.tar"], "flags": {"data.train": ("b", "c")}},
            "V0848 [data.train=[b, c]] `data.train` is given twice: a.tar and [b, c] | leave one of them out",
        ),
        (
            {"overrides": ["out=x"], "flags": {"out": "y"}},
            "V0848 [out=y] `out` is given twice: x and y | leave one of them out",
        ),
        (
            {"overrides": ["schedule.lowering.pairs=dense"], "flags": {"schedule.lowering": "chunked"}},
            (
                "V0848 [schedule.lowering=chunked] `schedule.lowering.pairs` is given twice: dense and chunked"
                " | leave one of them out"
            ),
        ),
    ],
)
def test_a_command_line_gives_a_setting_one_value(tmp_path: Path, layers: dict[str, object], expected: str) -> None:
    config, faults = outcome(tmp_path, "train: {steps: 1, batch: 4}\n", **layers)
    assert config is None
    assert faults == [expected]


def test_the_note_names_the_option_and_the_second_place_is_shown() -> None:
    _, (fault,) = load_config(overrides=["train.steps=5"], flags={"train.steps": 10})
    assert fault.notes == ("the option `--steps`, in Python the argument `steps=`, sets `train.steps`",)
    assert [label.text for label in (fault.primary, *fault.secondary)] == ["10 here", "5 here"]


@pytest.mark.parametrize(
    ("layers", "name", "value"),
    [
        ({"overrides": ["train.steps=10"], "flags": {"train.steps": 10}}, "steps", 10),
        ({"overrides": ["data.train=[a.tar]"], "flags": {"data.train": ("a.tar",)}}, "steps", 1),
        ({"flags": {"train.steps": 10}}, "steps", 10),
        ({"overrides": ["schedule.lowering=chunked"], "flags": {"schedule.lowering": {"pairs": "dense"}}}, "steps", 1),
    ],
)
def test_the_same_value_a_later_layer_and_a_part_of_the_whole_are_accepted(
    tmp_path: Path, layers: dict[str, object], name: str, value: object
) -> None:
    config, faults = outcome(tmp_path, "train: {steps: 1, batch: 4}\n", **layers)
    assert not faults
    assert config is not None
    assert getattr(config.train, name) == value


@pytest.mark.parametrize(
    ("file", "layers", "length"),
    [
        ("train: {epochs: 2}", {}, (400, 2)),
        ("train: {epochs: 2}", {"flags": {"train.steps": 10}}, (10, None)),
        ("train: {steps: 9}", {"overrides": ["train.epochs=3"]}, (400, 3)),
        ("train: {steps: 9}", {"flags": CallSettings({"train.epochs": 3}, {})}, (400, 3)),
        (
            "",
            {"flags": CallSettings({"train.epochs": 3, "train.seed": 1}, {"train.steps": 10, "train.seed": 2})},
            (10, None),
        ),
        ("train: {steps: 9, epochs: null}", {}, (9, None)),
        ("train: {epochs: 2}", {"overrides": ["train.epochs=null"], "flags": {"train.steps": 10}}, (10, None)),
    ],
)
def test_a_length_of_a_later_layer_replaces_that_of_an_earlier_one(
    tmp_path: Path, file: str, layers: dict[str, object], length: tuple[int, float | None]
) -> None:
    config, faults = outcome(tmp_path, file, **layers)
    assert not faults
    assert config is not None
    assert (config.train.steps, config.train.epochs) == length


@pytest.mark.parametrize(
    ("file", "layers", "place"),
    [
        ("train: {epochs: 2, steps: 9}", {}, "9"),
        ("", {"overrides": ["train.epochs=2"], "flags": {"train.steps": 9}}, "train.steps=9"),
        ("train: {steps: 4}", {"flags": {"train.epochs": 2, "train.steps": 9}}, "train.steps=9"),
    ],
)
def test_steps_and_epochs_of_one_layer_are_refused(tmp_path: Path, file: str, layers: dict[str, object], place: str) -> None:
    config, faults = outcome(tmp_path, file, **layers)
    assert config is None
    assert faults == [f"V0849 [{place}] both `train.steps` (9) and `train.epochs` (2) are given | leave one of them out"]


def test_what_a_run_wrote_has_the_steps_that_its_epochs_were(tmp_path: Path) -> None:
    counted = RunConfig().model_copy(update={"train": RunConfig().train.model_copy(update={"steps": 6, "epochs": 1.5})})
    written = f"{dump_config(counted)}{CONFIG_SEAL}0\n"
    for overrides, length in (((), (6, 1.5)), (("train.epochs=1.5",), (6, 1.5)), (("train.steps=9",), (9, None))):
        config, faults = outcome(tmp_path, written, overrides=overrides)
        assert not faults
        assert config is not None
        assert (config.train.steps, config.train.epochs) == length


OWN = "stages: {second: {train: {steps: 7}}}\n"
RATE = "optimizer.learning_rate"


def lost(place: str, setting: str, own: object, value: object) -> str:
    does_not = f"`{setting}={value}` does not hold for the stage `second`, which has its own"
    change, keep = (f"`--set stages.second.{setting}={each}`" for each in (value, own))
    return f"V0868 [{place}] {does_not} | give it for the stage, too: {change} to change it, or {keep} to keep its own"


EVERY_STAGE = (
    "V0868 [train.steps=10] `train.steps=10` does not hold for the stage `first`, which has its own | leave it out, since "
    "every stage has its own"
)


@pytest.mark.parametrize(
    ("file", "layers", "expected"),
    [
        (OWN, {"flags": {"train.steps": 10}}, lost("train.steps=10", "train.steps", 7, 10)),
        (
            "stages: {second: {optimizer: {learning_rate: 0.1}}}",
            {"overrides": [f"{RATE}=0.2"]},
            lost("0.2", RATE, 0.1, 0.2),
        ),
        (
            "",
            {"overrides": ["stages.first.train.steps=1", "stages.second.train.steps=2"], "flags": {"train.steps": 10}},
            EVERY_STAGE,
        ),
    ],
)
def test_what_would_be_lost_because_a_stage_has_its_own_is_refused(
    tmp_path: Path, file: str, layers: dict[str, object], expected: str
) -> None:
    config, faults = outcome(tmp_path, file, parts=STAGES, **layers)
    assert config is None
    assert faults == [expected]


@pytest.mark.parametrize(
    ("file", "layers"),
    [
        (OWN + "train: {steps: 10}", {}),
        (OWN, {"flags": {"train.steps": 7}}),
        (OWN, {"flags": {"train.steps": 10}, "overrides": ["stages.second.train.steps=7"]}),
        ("", {"flags": {"train.steps": 10}, "overrides": ["stages.second.train.steps=7"]}),
        ("stages: {second: {data: {train: coco.tar}}}", {"flags": {"data.train": ("noisy.tar",)}}),
    ],
    ids=["in one file", "the same", "kept on purpose", "on one command line", "other data by design"],
)
def test_stages_may_have_their_own(tmp_path: Path, file: str, layers: dict[str, object]) -> None:
    assert outcome(tmp_path, file, parts=STAGES, **layers)[1] == []


def test_fixed_settings_replace_those_of_a_file_and_refuse_those_of_the_command_line(tmp_path: Path) -> None:
    file = "train: {micro: 4, device: cuda}\nstages: {second: {train: {micro: 2}}}"
    fixed = {"train.micro": None, "train.device": "cpu"}
    config, faults = outcome(tmp_path, file, fixed=fixed, parts=STAGES, overrides=["train.device=cpu"])
    assert not faults
    assert config is not None
    assert (config.train.micro, config.train.device, config.stages["second"].train.micro) == (None, "cpu", None)
    _, faults = outcome(
        tmp_path, "", fixed=fixed, overrides=["train.device=cuda", "stages.second.train.micro=2"], parts=STAGES
    )
    assert faults == [
        "V0869 [cuda] `train.device` is always cpu for this command | leave it out",
        "V0869 [2] `stages.second.train.micro` is always null for this command | leave it out",
    ]
