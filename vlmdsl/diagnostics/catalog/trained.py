"""V0860 to V0869: the use of trained models, and the beginning of new ones."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "CannotBegin",
    "CannotExport",
    "FeaturesOfOthers",
    "FormatUnknown",
    "InputUnusable",
    "NoInitialWeights",
    "NotLearned",
]


class InputUnusable(Problem):
    code = "V0860"
    template = "{count} of {total} {inputs} cannot be used: {which} ({reason})"
    summary = "An image or a text that a trained model is to encode cannot be used."
    explanation = (
        "An image is a path, encoded bytes, a Pillow image, an array `uint8 [H, W, 3]`, or a tensor `[3, H, W]` or "
        "`[n, 3, H, W]` of numbers in [0, 1] or of `uint8` levels. A path that leads to no image, a damaged or empty file, "
        "and a picture larger than the limit cannot be encoded; a text must not be empty. The message names the first one. "
        "`vlmdsl classify` and `vlmdsl encode` skip such files, and count and name them."
    )
    provoked_by = '`model.encode_image(["missing.png"])`'


class NotLearned(Problem):
    code = "V0861"
    template = "the model of `{recipe}` {lack}"
    summary = "A trained model is asked for what its recipe does not train."
    explanation = (
        "What a trained model can do depends on its recipe: images are compared with texts, classified and searched by "
        "words only where the objective compares images with texts; a recipe of images alone, `mae` or `simclr`, encodes "
        "images. The recipe of a run is in its folder, and `vlmdsl recipes` lists what each bundled one trains."
    )
    provoked_by = "`vlmdsl classify RUN PICTURES --classes dog,cat` for a run of `simclr`"


class FormatUnknown(Problem):
    code = "V0862"
    template = "features are written to NAME.npy or NAME.parquet, and this file is `{file}`"
    summary = "`vlmdsl encode --out` names a file of another format."
    explanation = (
        "Features are written in the format of numpy, `float32 [n, D]`, one row per sample: `numpy.load(NAME, "
        'mmap_mode="r")` reads them without loading all of them. The names of the samples are in `NAME.npy.keys.jsonl`, one '
        "per line. A file NAME.parquet (`pip install 'vlmdsl[arrow]'`) has them in one table."
    )
    provoked_by = "`vlmdsl encode RUN PICTURES --out features.txt`"


class NoInitialWeights(Problem):
    code = "V0863"
    template = "no weights can be taken from `{path}`: {reason}"
    summary = "The setting `model.init` names a run without weights for this recipe."
    explanation = (
        "`--set model.init=RUN` begins with the weights of another run: those of towers, heads, fusion modules, decoders "
        "and learned numbers that both have under one name, and with its tokenizers. Data, recipe, optimiser and schedules "
        "are those of the new run; queues and running means begin empty. Towers are called what the recipe calls them: "
        "`vision` and `language` unless it says otherwise. A weight of another shape is V0853: repeat the settings of the "
        "other run that shape towers, such as `model.dimension`."
    )
    provoked_by = "`--set model.init=runs/clip-1` where `runs/clip-1` was stopped before its first checkpoint"


class CannotBegin(Problem):
    code = "V0864"
    template = "the recipe `{name}` cannot be begun: {reason}"
    summary = "`vlmdsl new` cannot write the files of a new recipe."
    explanation = (
        "`vlmdsl new NAME --from clip` writes NAME.vlo, test_NAME.py and NAME.yaml into the working folder, or the one that "
        "`--folder` names, which must exist. It never replaces a file. The recipe that is copied has a `recipe NAME(...)` "
        "line; an expression alone has none."
    )
    provoked_by = "`vlmdsl new mine` twice in the same folder"


class CannotExport(Problem):
    code = "V0865"
    template = "the model of `{recipe}` cannot be exported: {reason}"
    summary = "A trained model has no form in the format that was asked for."
    explanation = (
        "`vlmdsl export RUN OUT` writes into a new folder. `--format safetensors` is possible for every run: the weights, "
        "the recipe and the settings, which `vlmdsl.load(OUT)` loads. The other formats hold an image and a text tower, "
        "so they are refused for recipes that compare tokens (`filip`) and for those that encode an image with the help of "
        "other samples (`ra_clip`). `--format torch-export` and `--format onnx` write one program for images and one for "
        "texts, each a tower with its heads. `--format hf` and `--format open_clip` write a model of that library, so both "
        "towers must have an architecture that the library has, and no heads: `vit:tiny_patch4`, `vit:tiny_patch8`, "
        "`vit:small` or `vit:base` with a `transformer:` tower, and for transformers also its own models (`hf:...`) that "
        "have a pooled output. `vit:tiny` and `vit:tiny_convolution4` embed patches by convolutions, which neither library "
        "has."
    )
    provoked_by = "`vlmdsl export RUN out --format torch-export` for a run of `filip`"


class FeaturesOfOthers(Problem):
    code = "V0866"
    template = "`{file}` is not replaced: it is not what this run makes of this data"
    summary = "`vlmdsl encode --out` names a file that exists and has other features."
    explanation = (
        "Features can take hours, so that a finished file is replaced only by the same features again: of the same weights, "
        "data, columns and size of a batch. `NAME.source.json` beside the file has a digest of these; a file without it was "
        "written by something else. Name another file, or delete the old one first."
    )
    provoked_by = "`vlmdsl encode OTHER_RUN PICTURES --out features.npy` where `features.npy` is of another run"
