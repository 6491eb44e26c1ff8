"""V0850 to V0859: the files of a run folder, who may work in it, and processes that train together."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["CheckpointMismatch", "FolderUnusable", "ProcessesDiffer", "RunFileDamaged", "RunInUse"]


class RunFileDamaged(Problem):
    code = "V0850"
    template = "the file `{path}` of the run cannot be used: {reason}"
    summary = "A file of a run folder is missing, cut off, altered, or not what a run writes."
    explanation = (
        "What a run wrote is checked before it is used: checkpoints, the configuration, `run.json` and the recipe by their "
        "SHA-256, all others by their form. Nothing is guessed in place of what is damaged. If the newest checkpoint is "
        "damaged, the one before it is taken, and a line says so; this message means that none is sound, or that another "
        "file is at fault. Fetch the file again from where the folder came from. `evaluation.json` and `untrained.json` "
        "may be removed: what they hold is measured anew. Symbolic links, and anything else that is neither a plain file "
        "nor a folder, are not followed in a run folder, because it may come from a stranger."
    )
    provoked_by = "`--resume` with a run folder whose `run.json` was cut off while it was copied"


class RunInUse(Problem):
    code = "V0851"
    template = "another process works in `{path}`"
    summary = "Two processes would train in one run folder at once."
    explanation = (
        "A run writes its metrics and checkpoints alone, so its folder is locked while it trains. The note names the "
        "process that holds the lock (the file `.lock`). A lock ends with its process, however that ends, so one that is "
        "left over from a crash never stands in the way. The lock is one of the file system (POSIX, `fcntl`): it holds "
        "between machines on network file systems that pass locks on (NFS with its lock service, Lustre mounted with "
        "`flock`), and only within one machine on those that do not."
    )
    provoked_by = "`--resume FOLDER` twice at the same time"


class ProcessesDiffer(Problem):
    code = "V0852"
    template = "the processes of this run were given different {what}"
    summary = "Processes that train one model together were started with different arguments or read different data."
    explanation = (
        "Each process computes its share of one batch, so all of them need the same recipe, settings, seed and data. This "
        "is compared before the first step, and every process ends with this message. The notes say which process has "
        "what. The usual causes are a launch script that gives each machine its own arguments, a data folder that was not "
        "copied completely to one of the machines, or an older version installed on one of them."
    )
    provoked_by = "two processes that `torchrun` started on two machines with different `--seed`"


class CheckpointMismatch(Problem):
    code = "V0853"
    template = "the checkpoint `{path}` does not fit this run: {reason}"
    summary = "A sound checkpoint belongs to another recipe, other settings or towers of another width."
    explanation = (
        "The names and shapes of all weights and of all moments of the optimiser are compared with the model's before any "
        "of them is loaded, and the checkpoint notes which run wrote it. Another recipe, another `model.dimension` or a "
        "checkpoint that was copied from another run is told here. Put the run's own checkpoints back, or start a new run."
    )
    provoked_by = "`--resume FOLDER` after a checkpoint of another run was copied into `FOLDER/checkpoints`"


class FolderUnusable(Problem):
    code = "V0854"
    template = "`{path}` cannot be a run folder: {reason}"
    summary = "The path after `--out` or `--resume` is none that can name a folder."
    explanation = (
        "A path has no NUL character, is text in UTF-8, has names of at most 255 bytes, and leads through folders only. "
        "Give another `--out`, or none at all: the first free `runs/RECIPE-N` is then taken."
    )
    provoked_by = "`--out notes.txt/run`, where `notes.txt` is a file"
