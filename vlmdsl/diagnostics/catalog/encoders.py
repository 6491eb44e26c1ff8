"""V0830 to V0839: the encoders of a run, and whether they fit the recipe and the data."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["DroppedPatchesLeak", "EncoderDoesNotFit", "TowerDoesNotFit", "TowerNotPerSample", "UnknownEncoder"]


class UnknownEncoder(Problem):
    code = "V0830"
    template = "there is no {kind} encoder called `{name}`"
    summary = "The run configuration names an encoder that does not exist."
    explanation = (
        "An encoder is named by its family and a preset or a place: `vit:tiny`, `vit:small` and `vit:base` are the "
        "built-in image encoders, and so are `groupvit:tiny` and `groupvit:small`, which group patches. "
        "`transformer:tiny`, `transformer:tiny_bidirectional`, `transformer:small` and `transformer:base` are the text "
        "encoders, and `hf:NAME-OR-FOLDER` loads a pretrained model of either kind through the `transformers` library, "
        "`timm:NAME-OR-FOLDER` an image model of `timm`, and `open_clip:MODEL/WEIGHTS` or `open_clip:FOLDER` one half of "
        "a model of `open_clip`. With `model.pretrained=false` they begin with new weights. The image encoder is set with"
        " `model.image_encoder`, the text encoder with `model.text_encoder`; neither can replace the other."
    )
    provoked_by = "`--set model.image_encoder=vit:tinny`"


class EncoderDoesNotFit(Problem):
    code = "V0831"
    template = "the encoder `{name}` {problem}"
    summary = "An encoder cannot process the inputs of this run."
    explanation = (
        "An image encoder cuts images into patches, so `model.image_size` must be a multiple of its patch size; a "
        "pretrained one expects the image size that it was trained with. Images of a stage may have another size "
        "(`stages.NAME.model.image_size`) where the encoder takes other sizes with the same weights. A text encoder takes "
        "texts up to its maximum length (`model.text_length`; those of a stage, `stages.NAME.model.text_length`, may be "
        "shorter), which has to leave room for at least one token beside the special tokens, and the token ids of its own "
        "vocabulary: a pretrained text encoder uses the tokenizer that comes with it unless "
        "`model.tokenizer` names another. A model of another library is tried with small inputs before the run: it is "
        "rejected if it fails on them, if its features change from call to call, if all texts have the same features with "
        "this tokenizer, or if its image processor does more than resize, crop and standardise. The message states which "
        "of these is violated, and the help which setting to change."
    )
    provoked_by = "`--set model.image_size=30` with `vit:tiny`, whose patches are 8 pixels wide"


class TowerDoesNotFit(Problem):
    code = "V0832"
    template = "the tower `{tower}` {problem}"
    summary = "The encoders do not output what the recipe's objective compares."
    explanation = (
        "A recipe encodes its fields with towers: `vision` for images and `language` for texts, or encoders that it "
        "declares. Each tower needs one encoder that accepts the field's type and outputs what the recipe compares: one "
        "pooled feature per sample, or one feature per token where the similarity is token-wise, as in FILIP. All towers "
        "must have the same feature dimension, because features are compared by their inner products. `vlmdsl explain "
        "RECIPE` lists the requirements of a recipe."
    )
    provoked_by = "`VisionLanguageModel` from Python with encoders of 64 and 128 dimensions"


class TowerNotPerSample(Problem):
    code = "V0833"
    template = "the tower `{tower}` cannot run in micro-batches: its `{module}` takes statistics of the batch"
    summary = "A tower with batch statistics was to run in chunks of the batch."
    explanation = (
        "With `train.micro` the towers run in chunks of the batch, and the gradient is that of the whole batch. That is "
        "exact where a tower treats samples one by one. A batch norm does not: the features of a chunk would be normalised "
        "by that chunk's statistics, so they would be other features, and nothing would say so. Leave `train.micro` out, "
        "freeze the tower, whose norms then use their running statistics, or take one with layer norms. Heads may have "
        "batch norms: they run on the features of the whole batch at once."
    )
    provoked_by = "`--set train.micro=8` with an encoder that has batch norms"


class DroppedPatchesLeak(Problem):
    code = "V0834"
    template = "the tower `{tower}` sees pixels of dropped or replaced patches, which the recipe predicts"
    summary = "Dropped or replaced patches that are to be predicted leak into the others."
    explanation = (
        "A recipe that predicts dropped or replaced patches learns from what the others say of them. Where a tower embeds "
        "patches by overlapping convolutions, an embedded patch holds pixels of its neighbours, those included, and "
        "copying these along the edges is easier than learning what images look like. Take a tower whose patches are "
        "embedded one by one. Runs do so by themselves: the built-in towers have a plain patch stem wherever such patches "
        "are to be predicted. Recipes that drop patches only to see fewer of them, such as FLIP, are not concerned."
    )
    provoked_by = '`VisionLanguageModel` from Python with `VisionConfig(..., stem="convolution")` and the recipe `mae`'
