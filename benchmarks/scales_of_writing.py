"""The scales of recipes that write texts or match them with images, with decoders and fusion: see `scales.py`."""

from __future__ import annotations

from typing import Any

from scale import PAIRS, Before, Scale

__all__ = ["CAPTION", "DRAWN_AGAIN", "SCALES_OF_WRITING"]

TURNS_OVER = "queue and teacher turn over within 300 steps"
DRAWN_AGAIN = {"matching": "negatives are drawn again in each step, and three minutes leave few steps for it"}
CAPTION = 13
"""The tokens of the longest `caption`, of three objects, with its special tokens."""
WRITES = "it writes captions and tells no pairs apart"
CAPTIONS: dict[str, Any] = {
    "overfits": (),
    "aim": WRITES,
    "settings": {
        "optimizer.learning_rate": 3e-3,
        "model.image_encoder": "vit:tiny_patch4",
        "model.text_length": CAPTION,
    },
    "columns": {"text": "caption"},
    "steps": {"learns": 1000},
}
"""Short captions of plain words, in which objects can be counted."""
SMALL_DECODER = {"depth": 2, "width": 64}
FUSED = {"depth": 2, "out": 64, "size": 512, "momentum": 0.99, "pipeline": "flava"}
SLOW_TEMPERATURE: dict[str, Any] = {
    "optimizer.learning_rate": 3e-3,
    "optimizer.objective_learning_rate": 4.3e-3,
    "train.batch": 32,
    "model.text_encoder": "transformer:tiny_bidirectional",
    "model.text_length": CAPTION,
    "evaluation.batch": PAIRS,
}
"""A temperature that is learned itself fell from 0.07 to 0.007 in 20 steps of the rate of a logarithm, and matching began to
be learned after 400 steps; this rate, times the temperature's start, is 3e-4 per step."""
SCALES_OF_WRITING = {
    "albef": Scale(
        FUSED,
        f"small fusion; {TURNS_OVER}; crops of nine tenths, since smaller ones leave out objects that the caption names; "
        "steps of 32 pairs, of which there are more in three minutes, and a text tower like BERT's; a temperature that "
        "changes slowly, since with the usual rate matching did not leave the base rate for 400 steps; the authors' image "
        "tower is pretrained: here it is that of a captioner",
        (),
        "negatives are drawn again in each step, and momentum and queues are for long runs",
        SLOW_TEMPERATURE | {"optimizer.objective_learning_rate": 1.4e-3},
        columns={"text": "caption"},
        pair_columns={"text": "caption"},
        steps={"overfit": 50, "learns": 750},
        before=(Before("coca", 600),),
        not_by_heart=DRAWN_AGAIN,
        tried=7,
    ),
    "blip": Scale(
        {name: value for name, value in FUSED.items() if name != "depth"},  # that of the text tower
        f"{TURNS_OVER}; crops of nine tenths, since smaller ones leave out objects that the "
        "caption names; steps, text tower and temperature as for `albef`; the authors' image tower is pretrained: here it "
        "is that of a captioner; after 900 of its steps and 1,000 own ones 34 % of captions had the right shapes, after "
        "1,600 and 700 42 %, on other scenes than the result's",
        (),
        "negatives are drawn again in each step, and momentum and queues are for long runs",
        SLOW_TEMPERATURE | {"model.text_length": 20},
        columns={"text": "caption"},
        pair_columns={"text": "caption"},
        steps={"overfit": 60, "learns": 900},
        before=(Before("coca", 1600, settings={"model.text_length": 20}),),
        not_by_heart=DRAWN_AGAIN,
        tried=4,
        reported=300,
    ),
    "cappa": Scale(SMALL_DECODER, "a small decoder", **{**CAPTIONS, "steps": {"overfit": 250, "learns": 1000}}, tried=2),
    "coca": Scale(
        {"depth": 1, "width": 64, "heads": 4, "queries": 16},
        "a small decoder of two blocks with heads of 16 features, and as many queries as patches; with patches of 4 pixels "
        "1,000 steps, which take as long as 1,600 of the tower with a convolutional stem, reached 82 % of next tokens; "
        "two of the settings were measured on the scenes of the result before this one",
        **{
            **CAPTIONS,
            "aim": "short captions are alike for different scenes",
            "settings": {**CAPTIONS["settings"], "model.image_encoder": "vit:tiny"},
            "steps": {"overfit": 200, "learns": 2000, "openmoji": 100},
        },
        measures_drawings="captions",
        tried=13,
        reported=300,
    ),
    "nlip": Scale(
        {"target": "none", "pixels_depth": 2, "pixels_width": 64, "pixels_heads": 2, "share": 0.25, "captions_weight": 2}
        | SMALL_DECODER,
        "small decoders; pixels as for `mae`; a quarter of the patches is dropped, whose share is a reading of the recipe; "
        "concepts are numbers of writers, which say nothing of the image, so that captions are not copied from them; they "
        "are what the second stage is for, and in the other two the captioner sees a part of each image",
        **{
            **CAPTIONS,
            "aim": "short captions are alike for different scenes",
            "columns": {"text": "caption", "concepts": "template(source)"},
            "steps": {"overfit": 20, "learns": 1000},
        },
        stages={"pretraining": 400, "captioner": 650, "completion": 50},
        stages_of_pairs={"pretraining": 20, "captioner": 150},
        asked_of={"captions": "captioner"},
        not_asked={"dropped patches": "captions show what it is for, and 400 steps do not reach what `mae` is asked for"},
        tried=1,
    ),
    "pali": Scale(
        {**SMALL_DECODER, "heads": 4},
        "a small decoder with heads of 16 features; prompts are numbers of writers, which say nothing of the image; the "
        "authors' image tower is pretrained, and the first stage freezes it: here it is that of a captioner; before, an "
        "untrained one was tried, with stages of 600 and 1,000 steps; after 700 steps of the captioner 42 % of "
        "the captions of the first stage had the right shapes, on other scenes than the result's",
        **{
            **CAPTIONS,
            "pair_columns": {"target": "caption"},
            "columns": {"target": "caption", "prompt": "template(source)"},
            "steps": {"overfit": 80, "learns": 150},
        },
        stages={"language": 600, "all": 150},
        before=(Before("cappa", 900),),
        tried=5,
        reported=500,
    ),
    "simvlm": Scale(
        {**SMALL_DECODER, "heads": 4},
        "a small decoder with heads of 16 features; documents are captions of scenes without their images; half of a text "
        "is a prefix, and not predicted, so that it takes more steps than others; after the 1,000 steps that were tried "
        "before, 21.8 % of written captions had all objects right",
        **{
            **CAPTIONS,
            "columns": {"text": "caption", "document": "clean_text"},
            "settings": {**CAPTIONS["settings"], "model.image_encoder": "vit:tiny", "model.text_length": 20},
            "steps": {"overfit": 200, "learns": 1800, "openmoji": 300},
        },
        measures_drawings="captions",
        tried=4,
    ),
}
