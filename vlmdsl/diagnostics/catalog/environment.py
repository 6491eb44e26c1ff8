"""V0901 to V0909: what the environment does not have: packages, pretrained models, room on a disk, other processes."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["CannotWrite", "LoadingProcessLost", "PackageMissing", "PretrainedModelMissing", "ProcessLost"]


class PackageMissing(Problem):
    code = "V0901"
    template = "{what} needs the package `{package}`, which is not installed"
    summary = "An optional package is needed for what was asked."
    explanation = (
        "What every run needs is installed with vlmdsl. Adapters to other libraries are extras, so that nobody has to "
        "install what they do not use: `pip install 'vlmdsl[hf]'` adds `transformers` for encoders and tokenizers named "
        "`hf:...`, `pip install 'vlmdsl[ann]'` adds `faiss-cpu` for reference sets that faiss is to search "
        "(`data.reference_search=faiss`). If the package is installed, it is probably in another environment than the "
        "`vlmdsl` that ran; `python -m pip show vlmdsl` and `python -m pip show PACKAGE` must name the same folder."
    )
    provoked_by = "`--set model.image_encoder=hf:google/vit-base-patch16-224` without transformers installed"


class PretrainedModelMissing(Problem):
    code = "V0902"
    template = "the pretrained model `{name}` cannot be loaded"
    summary = "A model named `hf:...` was not found, or its files cannot be used."
    explanation = (
        "`hf:NAME` names a folder on this machine, or else a model of the Hugging Face hub, which is taken from the local "
        "cache or downloaded. Without a connection only folders and cached models can be used; a private model needs a "
        "login first. The folder needs a `config.json` and weights in the safetensors format; weights in the older pickle "
        "format are refused, because reading them can run any code, and so are models that bring code of their own. The "
        "note under the message is what `transformers` said."
    )
    provoked_by = "`--set model.text_encoder=hf:./nowhere`"


class CannotWrite(Problem):
    code = "V0903"
    template = "cannot write `{path}`: {reason}"
    summary = "The disk is full, a quota is reached, or the folder may not be written to."
    explanation = (
        "A file of a run could not be written, so the run ended: going on without its metrics and checkpoints would lose "
        "them. What was written before is sound: checkpoints are written beside the old ones, flushed to the disk and only "
        "then take their name, and an older one is removed after that. Make room and go on with `--resume FOLDER`; the "
        "result is the same as that of a run that was never interrupted. `train.keep` and `train.checkpoint_every` say how "
        "much room checkpoints take."
    )
    provoked_by = "a run whose checkpoints no longer fit on the disk"


class ProcessLost(Problem):
    code = "V0904"
    template = "the processes of this run cannot work together: {reason}"
    summary = "Another process of a run with several ended, never started, or cannot be reached."
    explanation = (
        "Several processes train one model together, and one that is missing stops all of them. The message of the process "
        "that ended first says why it did; look for it in the output of each. Processes that `torchrun` starts find each "
        "other by themselves. Those started by hand need `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, and wait "
        "five minutes for each other. After the cause is mended, go on with `--resume FOLDER`."
    )
    provoked_by = "two processes started by hand, of which one ends at once because its `--data` is not there"


class LoadingProcessLost(Problem):
    code = "V0905"
    template = "a process that loads samples has ended: {reason}"
    summary = "One of the `data.workers` was killed, most often for want of memory."
    explanation = (
        "With `data.workers` samples are loaded by processes of their own. One that is killed, as systems do where "
        "memory runs out, or containers where shared memory does (`--shm-size`), cannot hand over its batch, so the run "
        "stops; what was saved can be gone on with (`--resume`). Use fewer workers, or none: batches are the same for "
        "any number. Images that take much memory can be left out with a smaller `data.max_image_pixels`."
    )
    provoked_by = "a machine without memory for `--set data.workers=64`"
