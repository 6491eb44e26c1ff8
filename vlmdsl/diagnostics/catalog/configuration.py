"""V0810 to V0819: the run configuration, the command line's settings, and the folder of a run."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BadOverride",
    "BadSetting",
    "ConfigurationMissing",
    "ConfigurationSyntax",
    "LossNotFinite",
    "NothingToResume",
    "RepeatedSetting",
    "ResumeMismatch",
    "RunFolderTaken",
    "UnknownSetting",
]


class ConfigurationSyntax(Problem):
    code = "V0810"
    template = "the run configuration is not YAML: {problem}"
    summary = "A configuration file or a `--set` value cannot be read as YAML."
    explanation = (
        "The run configuration is one YAML mapping of sections (`model`, `data`, `optimizer`, `schedule`, `train`, "
        "`evaluation`), each a mapping of settings. Numbers are written `3`, `0.1` or `1e-3`, truth values `true` and "
        "`false`, lists `[a, b]`. Indentation is with spaces, never tabs, and the entries of one section line up. Anchors, "
        "aliases and tags are not read: a configuration is data. The resolved configuration that every run writes into its "
        "folder (`config.yaml`) is a complete example to start from."
    )
    provoked_by = "a `--config` file with a stray bracket or a tab, or `--set 'train.steps=['`"


class UnknownSetting(Problem):
    code = "V0811"
    template = "there is no setting `{name}`"
    summary = "The run configuration names a setting that does not exist."
    explanation = (
        "Every key of the run configuration is checked against a closed list, so that a misspelt setting is told at once "
        "and not silently ignored for the length of a run. The message names the nearest setting, if one is near, or else "
        "those of the section. A setting is written with its section: `train.steps` on the command line, `steps:` under "
        "`train:` in the file. What a method does (temperatures, weights of terms, views) is not set here but in the "
        "recipe, and a recipe's knobs are set with `--param`."
    )
    provoked_by = "`--set train.step=100`, or `step: 100` under `train:` in a `--config` file"


class BadSetting(Problem):
    code = "V0812"
    template = "`{name}` {problem}"
    summary = "A setting of the run configuration has a value that it cannot have."
    explanation = (
        "Settings are strict: a number is not taken from a string, a truth value not from `yes`, a whole number not from "
        "`1.5`, and each setting has the range that makes sense for it. The note under the message says what the setting "
        "means and in which unit. A setting that may be switched off is given `null`; what is left out keeps its default."
    )
    provoked_by = "`--set train.steps=0`, or `precision: fp8` under `train:` in a `--config` file"


class BadOverride(Problem):
    code = "V0813"
    template = "`--set` takes SECTION.SETTING=VALUE, not `{given}`"
    summary = "An override on the command line has no `=`."
    explanation = (
        "An override names a setting with its section and gives it a value in YAML: `--set optimizer.learning_rate=1e-3`, "
        "`--set 'data.train=[a.tar, b.tar]'`, `--set train.compile=false`. There are no spaces around the equals sign, "
        "because the shell would split the argument there. Overrides are applied in the order given, after the `--config` "
        "file and before the flags that have a name of their own, such as `--steps`."
    )
    provoked_by = "`--set train.steps`"


class ConfigurationMissing(Problem):
    code = "V0814"
    template = "the configuration file `{path}` cannot be read: {reason}"
    summary = "The file given with `--config` is not there or not readable."
    explanation = (
        "The path is taken relative to the folder in which the command runs. The file must be text in UTF-8. Without "
        "`--config` the defaults are used, which train a small model on the built-in data; every run writes the "
        "configuration that it resolved to `config.yaml` in its folder, and that file is good as a `--config`."
    )
    provoked_by = "`--config nowhere.yaml`"


class RunFolderTaken(Problem):
    code = "V0815"
    template = "the folder `{path}` is not empty"
    summary = "A run would write into a folder that already holds something."
    explanation = (
        "A run folder is the record of one run: its recipe, configuration, metrics and checkpoints belong together, so "
        "nothing is ever overwritten. Give another folder with `--out`, or none at all: the first free "
        "`runs/RECIPE-N` is then taken. To go on with a run that was stopped, use `--resume FOLDER`: it continues from the "
        "newest complete checkpoint and gives the same result as if it had never been stopped."
    )
    provoked_by = "`--out` with the folder of an earlier run"


class NothingToResume(Problem):
    code = "V0816"
    template = "there is no run to go on with in `{path}`: {reason}"
    summary = "a run folder without a complete checkpoint"
    explanation = (
        "Resuming needs the folder of a run, evaluating one with at least one complete checkpoint in `checkpoints/`. "
        "Checkpoints are written to the side and renamed when they are whole, so one that was cut off by a crash is not "
        "counted; one that was damaged later is V0850, and the one before it is taken. A run that was stopped before its "
        "first checkpoint begins anew when it is resumed: give it a smaller `train.checkpoint_every` if it is likely to be "
        "stopped again. SIGINT (Ctrl-C), SIGTERM and SIGHUP write a checkpoint first."
    )
    provoked_by = "`--resume`, or `vlmdsl eval`, with an empty folder"


class RepeatedSetting(Problem):
    code = "V0817"
    template = "`{name}` is given twice"
    summary = "A mapping of the run configuration has the same key twice."
    explanation = (
        "YAML readers commonly keep the last of two equal keys and say nothing, which hides a slip such as two `train:` "
        "sections in one file. Here it is an error. Put the settings of one section together and give each once; to change "
        "a setting for one run, use `--set`, which comes after the file."
    )
    provoked_by = "a `--config` file with two `train:` sections"


class ResumeMismatch(Problem):
    code = "V0818"
    template = "the run in `{path}` was started with another {what}"
    summary = "A resumed run would differ from the one it continues."
    explanation = (
        "A resumed run gives what the uninterrupted one would have given, which holds only if the recipe, its knobs and the "
        "settings that shape the numbers are the same. Without further arguments `--resume FOLDER` takes all of them from "
        "the folder. What may change is how the run is watched and kept: `train.checkpoint_every`, `train.keep`, "
        "`train.log_every`, `train.device`, `train.compile`, `data.workers` and `evaluation`. To train longer or "
        "differently, start a new run."
    )
    provoked_by = "`--resume FOLDER --steps 999`, where the run had another number of steps"


class LossNotFinite(Problem):
    code = "V0819"
    template = "{what} is not finite at step {step}"
    summary = "A term of the loss or a gradient became infinite or not a number during training."
    explanation = (
        "The run stops before the optimiser takes the step, so the weights and the last checkpoint are sound. The message "
        "names the first term that is not finite; if all terms are finite, it is the gradient. The usual causes are a "
        "learning rate that is too high (try a third, or more `schedule.warmup_steps`), a temperature without an upper "
        "bound (`learned(0.07, max_scale=100)` has one), or damaged images in the data. `metrics.jsonl` shows what the "
        "loss, the gradient norm and the temperature did before: a gradient norm that grows over many steps "
        "points to the learning rate, a sudden jump to the data. Resume from the last checkpoint after the cause is found."
    )
    provoked_by = "`--set optimizer.learning_rate=1e6` with `--set train.clip_gradient_norm=null`"
