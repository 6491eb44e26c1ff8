"""What the small runs of `evidence.py` feed the fields of recipes from: columns of each data set, and stand-ins."""

SHAPES_COLUMNS = {
    "superpixels": "superpixels(image)",
    "summary": "caption",
    "attributes": "template(phrases)",
    "first": "text",
    "second": "clean_text",
    "translation": "text_ko",
    "document": "clean_text",
    "prompt": "template(source)",
    "concepts": "template(phrases)",
    "target": "text",
}
"""Field -> column of the built-in scenes, or what stands in for what only a model could make."""
OPENMOJI_COLUMNS = {
    "text_rewrites": "tags,cldr_en,keywords_en",
    "label": "group",
    "caption": "template(tags)",
    "text_ko": "cldr_ko",
    "superpixels": "superpixels(image)",
    "regions": "grid(image)",
    "summary": "summarize(text)",
    "attributes": "template(tags)",
    "first": "text",
    "second": "template(tags)",
    "translation": "keywords_ko",
    "knowledge": "template(keywords_en)",
    "document": "tags",
    "prompt": "template(group)",
    "concepts": "template(tags)",
    "target": "text",
}
"""Field -> column of OpenMoji: other words for a drawing as its rewrites, its group as its class; and stand-ins."""
OPENMOJI_SCENES_COLUMNS = {"boxes": "boxes_xyxy_px"}
"""The same for its composed scenes: several drawings on a canvas, with a box and a name for each."""
