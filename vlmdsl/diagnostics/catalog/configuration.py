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
        "`evaluation`, `tracking`), each a mapping of settings. Numbers are written `3`, `0.1` or `1e-3`, booleans `true` "
        "and `false`, lists `[a, b]`. Indent with spaces, not tabs, and align the entries of a section. Anchors, aliases "
        "and tags are rejected: a configuration is plain data. Every run writes its resolved configuration to "
        "`config.yaml` in its folder, a complete example to start from."
    )
    provoked_by = "a `--config` file with a stray bracket or a tab, or `--set 'train.steps=['`"


class UnknownSetting(Problem):
    code = "V0811"
    template = "there is no setting `{name}`"
    summary = "The run configuration names a setting that does not exist."
    explanation = (
        "Every key of the run configuration is checked against a closed list, so that a misspelt setting is reported "
        "before the run and not silently ignored. The message suggests the closest setting if there is one, and otherwise "
        "lists those of the section. A setting is written with its section: `train.steps` on the command line, `steps:` "
        "under `train:` in the file. What a method does (temperatures, weights of terms, views) is not set here but in "
        "the recipe; a recipe's hyper-parameters are set with `--param`."
    )
    provoked_by = "`--set train.step=100`, or `step: 100` under `train:` in a `--config` file"


class BadSetting(Problem):
    code = "V0812"
    template = "`{name}` {problem}"
    summary = "A setting of the run configuration has an invalid value."
    explanation = (
        "Settings are strictly typed: a string is not converted to a number, `yes` not to a Boolean, `1.5` not to an "
        "integer, and each setting has a valid range. The note below the message states what the setting means and its "
        "unit. Use `null` to switch off a setting that can be switched off; a setting that is left out keeps its default."
    )
    provoked_by = "`--set train.steps=0`, or `precision: fp8` under `train:` in a `--config` file"


class BadOverride(Problem):
    code = "V0813"
    template = "`--set` expects SECTION.SETTING=VALUE, not `{given}`"
    summary = "An override on the command line has no `=`."
    explanation = (
        "An override names a setting with its section and gives it a value in YAML: `--set optimizer.learning_rate=1e-3`, "
        "`--set 'data.train=[a.tar, b.tar]'`, `--set train.compile=false`. Do not put spaces around the equals sign: the "
        "shell would split the argument there. Overrides replace what is in the `--config` file. A setting that "
        "dedicated options such as `--steps` or other overrides give another value is an error (V0848)."
    )
    provoked_by = "`--set train.steps`"


class ConfigurationMissing(Problem):
    code = "V0814"
    template = "the configuration file `{path}` cannot be read: {reason}"
    summary = "The file given with `--config` does not exist or cannot be read."
    explanation = (
        "The path is taken relative to the folder in which the command runs. The file must be text in UTF-8. Without "
        "`--config` the defaults are used, which train a small model on the built-in data; every run writes the "
        "configuration that it resolved to `config.yaml` in its folder, and that file can be used as a `--config`."
    )
    provoked_by = "`--config nowhere.yaml`"


class RunFolderTaken(Problem):
    code = "V0815"
    template = "the folder `{path}` is not empty"
    summary = "A run would write into a folder that is not empty."
    explanation = (
        "A run folder is the record of one run: its recipe, configuration, metrics and checkpoints belong together, so "
        "nothing is ever overwritten. Choose another folder with `--out`, or leave `--out` out: the run then uses the "
        "first unused `runs/RECIPE-N`. To continue a run that was stopped, use `--resume FOLDER`: it continues from the "
        "newest complete checkpoint and gives the same result as if it had never been stopped."
    )
    provoked_by = "`--out` with the folder of an earlier run"


class NothingToResume(Problem):
    code = "V0816"
    template = "there is no run to load or resume in `{path}`: {reason}"
    summary = "A run folder has no complete checkpoint."
    explanation = (
        "Resuming needs the folder of a run; evaluating needs at least one complete checkpoint in `checkpoints/`. "
        "Checkpoints are written under a temporary name and renamed when they are complete, so one that was truncated by "
        "a crash does not count; one that was damaged later is V0850, and the previous one is used. A run that was "
        "stopped before its first checkpoint starts from scratch when it is resumed: use a smaller "
        "`train.checkpoint_every` if it is likely to be stopped again. SIGINT (Ctrl-C), SIGTERM and SIGHUP write a "
        "checkpoint first."
    )
    provoked_by = "`--resume`, or `vlmdsl eval`, with an empty folder"


class RepeatedSetting(Problem):
    code = "V0817"
    template = "`{name}` is given twice"
    summary = "A mapping of the run configuration has the same key twice."
    explanation = (
        "Many YAML readers silently keep the last of two equal keys, which hides mistakes such as two `train:` sections "
        "in one file. Here it is an error. Put the settings of one section together and give each once; to change a "
        "setting for one run, use `--set`, which comes after the file."
    )
    provoked_by = "a `--config` file with two `train:` sections"


class ResumeMismatch(Problem):
    code = "V0818"
    template = "the run in `{path}` was started with another {what}"
    summary = "A resumed run would differ from the one it continues."
    explanation = (
        "A resumed run gives the same result as an uninterrupted one, which requires the same recipe, hyper-parameters "
        "and settings that affect the numbers. Without further arguments `--resume FOLDER` takes all of them from the "
        "folder. Only the settings that do not affect the result may change: `train.checkpoint_every`, `train.keep`, "
        "`train.log_every`, `train.term_gradients_every`, `train.device`, `train.compile`, `data.workers`, `evaluation` and "
        "`tracking`. A run can be continued to another number of steps where that changes nothing about the steps that are "
        "done: the learning rate after the warm-up is constant (`schedule.final=1`), and no ramp of the recipe follows the "
        "length of the run; else the notes say what would have been different. To train differently, start a new run, with "
        "`model.init=FOLDER` from the weights of this one."
    )
    provoked_by = "`--resume FOLDER --set train.seed=1`, where the run had another seed"


class EpochsUnknown(Problem):
    code = "V0847"
    template = "`train.epochs` cannot be counted: {reason}"
    summary = "The length of an epoch is not known, or there is not one epoch."
    explanation = (
        "`train.epochs` is turned into `train.steps` when the data is opened: so many times the number of full batches of"
        " an epoch. A stream has no length that is known before it has been read, and where a recipe has several stages "
        "or flows, each of them has epochs of its own. Set `train.steps` there, or `stages.NAME.train.steps`."
    )
    provoked_by = "`--set train.epochs=3 --set data.stream=true`"


class LossNotFinite(Problem):
    code = "V0819"
    template = "{what} is not finite at step {step}"
    summary = "A term of the loss or a gradient became infinite or not a number during training."
    explanation = (
        "The run stops before the optimiser step, so the weights and the last checkpoint are intact. The message names "
        "the first term that is not finite; if all terms are finite, it is the gradient. The usual causes are a learning "
        "rate that is too high (try a third of it, or more `schedule.warmup_steps`), a temperature without an upper bound "
        "(`learned(0.07, max_scale=100)` has one), damaged images in the data, or a negative `weight=` of a sample in a "
        "loss of tokens, which makes it NaN (`max(w, 0)` has none). `metrics.jsonl` shows what the loss, "
        "the gradient norm and the temperature did before: a gradient norm that grows over many steps points to the "
        "learning rate, a sudden jump to the data.\n\n"
        "The file `not-finite-step-N.json` in the run folder describes the step. `first_module` is the first module whose "
        "output was not finite although its inputs were. If there is none, the objective or the gradient is the cause: "
        "look at `terms` and `metrics`. `batch` has shape, range and mean of every tensor that was loaded (a `largest` far "
        "from that of other images, or a `not_finite` above 0, points to the data), `samples.keys` are the names of the "
        "samples, and `weights` and `gradients` name those that are not finite. To take the steps before it again with "
        "everything logged, and a checkpoint right before it, resume the run: `vlmdsl train --resume FOLDER --set "
        "train.log_every=1 --set train.checkpoint_every=1`. The same seed gives the same samples, views and dropout, on a "
        "CPU bit for bit."
    )
    provoked_by = "`--set optimizer.learning_rate=1e6` with `--set train.clip_gradient_norm=null`"
