"""Layers of the run configuration, and what is said about faults in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from vlmdsl.schema import (
    Parts,
    RunConfig,
    config_of,
    dump_config,
    load_config,
    schema_of_config,
    setting_names,
)
from vlmdsl.source import SourceMap


def faults(**layers: object) -> list[str]:
    """Each diagnostic as `code file:line:column [what is underlined] message | help`."""
    sources = SourceMap()
    config, diagnostics = load_config(sources=sources, **layers)  # type: ignore[arg-type]
    assert (config is None) == bool(diagnostics)
    lines = []
    for diagnostic in diagnostics:
        span = diagnostic.primary.span
        text = sources.get(span.file)
        line, column = text.position(span.start)
        name = Path(span.file).name
        said = " | ".join((diagnostic.message, *diagnostic.help))
        lines.append(f"{diagnostic.code} {name}:{line}:{column} [{text.slice(span)}] {said}")
    return sorted(lines)


def written(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_later_layers_win(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {steps: 10, batch: 8, seed: 3}\noptimizer:\n  learning_rate: 1e-4\nmodel:\n")
    config, _ = load_config(path, ["train.batch=32"], {"train.steps": 30, "train.clip_gradient_norm": None})
    assert config is not None
    assert (config.train.steps, config.train.batch, config.train.seed) == (30, 32, 3)
    assert config.optimizer.learning_rate == 1e-4
    assert config.train.clip_gradient_norm is None
    assert config.model == RunConfig().model


def test_mappings_of_several_layers_are_joined(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {map: {text: caption}}")
    config, _ = load_config(path, flags={"data.map": {"label": "class"}, "data.train": ("a.tar", "b.tar")})
    assert config is not None
    assert config.data.map == {"text": "caption", "label": "class"}
    assert config.data.train == ("a.tar", "b.tar")


def test_every_fault_of_a_file_has_its_place(tmp_path: Path) -> None:
    text = """\
train:
  step: 3
  batch: 1
  compile: yes
optimizer:
  betas: [0.9, x]
learning_rate: 1
evaluation:
  templates: [a photo]
schedule: 5
nonsense: {a: b}
"""
    top = "model, data, optimizer, schedule, train, evaluation, tracking, stages, flows, out"
    assert faults(path=written(tmp_path, text)) == [
        "V0811 run.yaml:11:1 [nonsense] there is no setting `nonsense` | the settings at the top level: " + top,
        "V0811 run.yaml:2:3 [step] there is no setting `train.step` | did you mean `train.steps`?",
        "V0811 run.yaml:7:1 [learning_rate] there is no setting `learning_rate` | did you mean `optimizer.learning_rate`?",
        "V0812 run.yaml:10:11 [5] `schedule` must be a mapping of settings",
        "V0812 run.yaml:3:10 [1] `train.batch` must be greater than or equal to 2",
        "V0812 run.yaml:4:12 [yes] `train.compile` must be a valid boolean",
        "V0812 run.yaml:6:16 [x] `optimizer.betas[1]` must be a valid number",
        "V0812 run.yaml:9:15 [a photo] `evaluation.templates[0]` must have one {} for the class name",
    ]


def test_faults_of_overrides_and_flags_point_at_the_words_given() -> None:
    messages = faults(
        overrides=["train.stepz=3", "train.precision=fp8", "train", "out=[", "model.dimension=inf"], flags={"train.steps": 0}
    )
    assert messages == [
        "V0810 --set:4:6 [] the run configuration is not YAML: expected the node content, but found '<stream end>'",
        "V0811 --set:1:1 [train.stepz] there is no setting `train.stepz` | did you mean `train.steps`?",
        "V0812 --set:2:17 [fp8] `train.precision` must be 'float32', 'bfloat16' or 'float16'",
        "V0812 --set:5:17 [inf] `model.dimension` must be a valid integer",
        "V0812 <flags>:1:1 [train.steps=0] `train.steps` must be greater than or equal to 1",
        "V0813 --set:3:1 [train] `--set` expects SECTION.SETTING=VALUE, not `train`",
    ]


def test_processes_and_dimensions_are_as_many_as_a_machine_can_hold() -> None:
    assert faults(overrides=["data.workers=100000000", "model.dimension=1000000000000"]) == [
        "V0812 --set:1:14 [100000000] `data.workers` must be less than or equal to 256",
        "V0812 --set:2:17 [1000000000000] `model.dimension` must be less than or equal to 65536",
    ]
    assert faults(overrides=["evaluation.batch=100000000000000000000", "train.epochs=1e23"]) == [
        "V0812 --set:1:18 [100000000000000000000] `evaluation.batch` must be less than or equal to 100000",
        "V0812 --set:2:14 [1e23] `train.epochs` must be less than 1048576",
    ]


NOT_YAML = "the run configuration is not YAML"
LONG = "9" * 5000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {seed: 1}\ntrain: {seed: 2}\n", "V0817 run.yaml:2:1 [train] `train` is given twice"),
        ("a: &x 1\nb: *x\n", "V0810 run.yaml:2:4 [*] the run configuration is not YAML: aliases are not supported"),
        (
            "train: !!python/name:os.system 3",
            f"V0810 run.yaml:1:8 [!] {NOT_YAML}: tags are not supported",
        ),
        ("train: 3\n", "V0812 run.yaml:1:8 [3] `train` must be a mapping of settings"),
        (
            "train: {steps: " + "9" * 5000 + "}",
            "V0812 run.yaml:1:16 [" + "9" * 5000 + "] `train.steps` must be a valid integer",
        ),
        ("[" * 5000, "V0810 run.yaml:1:101 [[] the run configuration is not YAML: this is nested too deeply"),
        ("out: \x07", "V0810 run.yaml:1:6 [\x07] the run configuration is not YAML: a character that YAML does not allow"),
        ("- 1", "V0810 run.yaml:1:1 [- 1] the run configuration is not YAML: it is not a mapping of sections"),
        ("? [a]\n: 1", "V0810 run.yaml:1:3 [[a]] the run configuration is not YAML: a key must be a single word"),
    ],
)
def test_yaml_that_is_not_read(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in faults(path=written(tmp_path, text))


def test_one_source_needs_no_list(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {val: shapes}\nevaluation: {templates: 'a {}'}")
    config, _ = load_config(path, overrides=["data.train=shapes:samples=9,size=16"])
    assert config is not None
    assert (config.data.train, config.data.val, config.evaluation.templates) == (
        ("shapes:samples=9,size=16",), ("shapes",), ("a {}",)
    )  # fmt: skip
    assert faults(overrides=["optimizer.betas=3", "data.train=3"]) == [
        "V0812 --set:1:17 [3] `optimizer.betas` must be a list",
        "V0812 --set:2:12 [3] `data.train` must be a list",
    ]


def test_a_tag_makes_nothing(tmp_path: Path) -> None:
    config, _ = load_config(written(tmp_path, "out: !!python/object/apply:os.getcwd []"))
    assert config is None


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    assert faults(path=path) == [
        f"V0814 --config:1:1 [{path}] the configuration file `{path}` cannot be read: file not found"
    ]


def test_what_is_dumped_loads_as_the_same(tmp_path: Path) -> None:
    config, _ = load_config(
        overrides=["train.clip_gradient_norm=null", "data.map={text: a}", "evaluation.templates=['{}!']"]
    )
    assert config is not None
    assert config.train.clip_gradient_norm is None
    again, diagnostics = load_config(written(tmp_path, dump_config(config)))
    assert again == config, diagnostics


@given(st.floats(min_value=1e-12, max_value=1e3))
def test_an_override_gives_the_number_that_was_written(rate: float) -> None:
    config, diagnostics = load_config(overrides=[f"optimizer.learning_rate={rate!r}"])
    assert config is not None, diagnostics
    assert config.optimizer.learning_rate == rate


@given(st.lists(st.text(max_size=30), max_size=3), st.text(max_size=60))
def test_any_text_is_a_configuration_or_a_diagnostic(overrides: list[str], name: str) -> None:
    config, diagnostics = load_config(overrides=[*overrides, f"{name}=1"])
    assert (config is None) == bool(diagnostics)


def test_every_setting_is_described() -> None:
    def fields(model: type[BaseModel]) -> None:
        for name, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                fields(info.annotation)
            else:
                assert info.description, name

    fields(RunConfig)
    assert "optimizer.learning_rate" in setting_names()
    assert schema_of_config()["additionalProperties"] is False


@pytest.mark.parametrize(
    "override",
    [
        "", "=", "=3", "train.steps", "train..steps=1", ".steps=1", "a." * 3000 + "b=1", "train.steps=" + "9" * 5000,
        "train.steps=1e999", "train.steps=!!int 3", "data.map=" + "[" * 5000, "data.map=&a [*a]", "train.steps=\0",
        "tr\0ain.steps=1", "train.steps=\ud8ff", "train=3", "data.workers=100000000", "train.keep=1", "train.steps=1e3",
        "optimizer.learning_rate=1e400", "optimizer.learning_rate=.nan", "train.seed=99999999999999999999", "out=[a]",
    ],
)  # fmt: skip
def test_a_wrong_override_is_reported(override: str) -> None:
    assert faults(overrides=[override])


def test_an_invalid_section_is_reported_beneath_a_later_setting(tmp_path: Path) -> None:
    config, diagnostics = load_config(written(tmp_path, "train: [1, 2]\n"), ["train.steps=3"])
    assert config is None
    assert [diagnostic.code for diagnostic in diagnostics] == ["V0812"]


def test_a_stage_sets_of_its_towers_the_sizes_of_images_and_texts_only(tmp_path: Path) -> None:
    path = written(tmp_path, "model: {image_size: 32}\nstages: {warm: {model: {image_size: 64}}, main: {model: {}}}\n")
    config, diagnostics = load_config(path)
    assert config is not None, diagnostics
    assert {name: stage.model.image_size for name, stage in config.stages.items()} == {"warm": 64, "main": None}
    assert [config_of(config, stage).model.image_size for stage in ("warm", "main")] == [32, 32]  # the towers are the run's
    assert load_config(written(tmp_path, dump_config(config))) == (config, [])
    of_run, near = (
        "which is one for the whole run, only image_size, text_length",
        "did you mean `stages.warm.model.image_size`?",
    )
    assert faults(overrides=["stages.warm.model.dimension=8"]) == [
        "V0812 --set:1:1 [stages.warm.model.dimension] `stages.warm.model` cannot set `dimension`, " + of_run
    ]
    assert faults(overrides=["stages.warm.model.imagesize=8"]) == [
        "V0811 --set:1:1 [stages.warm.model.imagesize] there is no setting `stages.warm.model.imagesize` | " + near
    ]


def test_settings_of_stages_and_flows_that_the_recipe_lacks_are_reported_where_they_are(tmp_path: Path) -> None:
    parts: Parts = {"stages": ("warm", "main"), "flows": ("pairs",)}
    path = written(tmp_path, "stages:\n  warm:\n    train: {steps: 3}\n  mian:\n    train: {steps: 3}\n")
    overrides = ["train.batch=4", "stages.pairs.train.steps=3", "flows.nope.data.stream=true", "stages.ab.train={}"]
    expected = [
        "V0811 --set:2:1 [stages.pairs.train.steps] there is no setting `stages.pairs` | did you mean `flows.pairs`?",
        "V0811 --set:3:1 [flows.nope.data.stream] there is no setting `flows.nope` | the flows of the recipe: only `pairs`",
        "V0811 --set:4:1 [stages.ab.train] there is no setting `stages.ab` | the stages of the recipe are `warm` and `main`",
        "V0811 run.yaml:4:3 [mian] there is no setting `stages.mian` | did you mean `stages.main`?",
    ]
    assert faults(path=path, overrides=overrides, parts=parts) == expected
    as_one: dict[str, object] = {"flows": {"": {}}}
    assert faults(flags=as_one, parts={"stages": (), "flows": ()}) == [
        f"V0811 <flags>:1:1 [flows={as_one['flows']}] there is no setting `flows.` | the recipe has no flows"
    ]
    assert faults(path=path, overrides=overrides) == []
