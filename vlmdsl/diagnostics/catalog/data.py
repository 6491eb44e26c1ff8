"""V0801 to V0809, V0820 to V0829 and V0835: data sources, their mapping to fields, and what is made of the samples."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BatchLargerThanData",
    "CannotLoad",
    "DataNotFound",
    "FieldLacksColumn",
    "FolderOfSplits",
    "FontUnreadable",
    "MalformedMapping",
    "NamesWithDots",
    "NoUsableSample",
    "NotDivisible",
    "ShapesKnob",
    "ShardUnreadable",
    "SynonymsUnreadable",
    "TableUnreadable",
    "TokenizerUnusable",
    "TooManyUnusable",
    "UnknownColumn",
    "UnknownDataForm",
    "UnknownField",
    "UnknownStandIn",
]


class FieldLacksColumn(Problem):
    code = "V0801"
    template = "the data has no column for the field `{field}`"
    summary = "A field that the recipe reads has no column in the data."
    explanation = (
        "Every field of a recipe is fed from a column of the data. The column of the same name is taken by itself; `text` "
        "is also found under `caption` or `txt`, `label` under `cls`, and an image in whatever image file the sample "
        "has. Where names differ, `--map FIELD=COLUMN` says which column it is. A view such as `rewrite(text, M=4)` reads "
        "one more field, `text_rewrites`: the alternatives of the text, a list in one column or several columns joined "
        "by commas, as in `--map text_rewrites=tags,cldr_en`. What a method's authors had made (summaries, regions) may "
        "have a stand-in, to be chosen by name: `--map summary=summarize(text)`. This is checked before the first step, on "
        "the columns of up to 64 samples spread over the data."
    )
    provoked_by = "a recipe with a `label` field on shards that hold images and captions only"


class UnknownColumn(Problem):
    code = "V0802"
    template = "the data has no column `{column}`"
    summary = "`--map` names a column that the data does not have."
    explanation = (
        "The columns of a tar shard are the endings of a sample's files (`txt`, `cls`, and `image` for any image) and the "
        "keys of its `json` file; those of a table are its header. The message lists what was found and suggests the "
        "nearest name. Names are compared exactly, capitals included. What is found is learned from up to 64 samples "
        "spread over the data, so a column that hardly any sample has may be missed: fill it with null in the others."
    )
    provoked_by = "`--map text=captoin`"


class MalformedMapping(Problem):
    code = "V0803"
    template = "`--map` takes FIELD=COLUMN, not `{given}`"
    summary = "A mapping without a field, an equals sign or a column."
    explanation = (
        "A mapping names a field of the recipe, then `=`, then the column of the data that feeds it: `--map "
        "text=caption`. Several columns are joined by commas. For a text the first column that has a value is taken, and "
        "of a list of texts the first, or with `--set data.captions=draw` one that is drawn anew in each epoch; for "
        "alternatives, such as `text_rewrites`, all of them are gathered into one list. Give `--map` once for each field."
    )
    provoked_by = "`--map text`"


class UnknownField(Problem):
    code = "V0804"
    template = "nothing reads a field `{field}`"
    summary = "`--map` names a field that neither the recipe nor the evaluation reads."
    explanation = (
        "The left side of a mapping is a field of the recipe's signature, or the alternatives of one of its texts "
        "(`text_rewrites`), or what the evaluation reads: `label` and `class_name`. A mapping that nothing reads is most "
        "often a misspelt field, or one with its two sides swapped, so it is an error and not silently ignored."
    )
    provoked_by = "`--map caption=text` with a recipe that reads `image` and `text`"


class DataNotFound(Problem):
    code = "V0805"
    template = "no data at `{given}`"
    summary = "A data specification names nothing that exists, or a place without samples."
    explanation = (
        "A specification is `shapes` (the built-in scenes), the path of a tar shard, of a table (`.csv`, `.tsv`, "
        "`.jsonl`, `.json`) or of a folder, or a pattern: `*` and `?` match as in a shell, `{000..003}` counts. Paths "
        "are relative to the folder in which the command runs. A pattern in quotes is expanded by the program, so both "
        "forms work. A folder must hold shards or images (in subfolders or not), and a shard at least one sample."
    )
    provoked_by = "`--data 'nowhere-*.tar'`"


class UnknownDataForm(Problem):
    code = "V0806"
    template = "`{given}` is no form of data that can be read"
    summary = "A file whose ending belongs to no known form of data."
    explanation = (
        "Read are webdataset shards (`.tar`), tables (`.csv`, `.tsv`, `.jsonl`, `.json`) with a column of image paths, and "
        "folders of images. Samples are read in an order that depends on nothing but the seed and the epoch, so a file must "
        "allow reading from the middle; a compressed shard (`.tar.gz`) does not and has to be unpacked first with "
        "`gunzip`. The images inside are compressed already, so little is lost. Parquet files can be turned into a table "
        "and a folder of images, or into shards."
    )
    provoked_by = "`--data pictures.tar.gz`"


class ShardUnreadable(Problem):
    code = "V0807"
    template = "the shard `{path}` cannot be read: {reason}"
    summary = "A tar shard is cut off, damaged, or not a tar file."
    explanation = (
        "All shards are indexed before the first step, which reads the headers of their members and not the images. A "
        "shard that ends in the middle (usually a download that was interrupted) is told here, by name, rather than hours "
        "later. Fetch it again, or leave it out. A damaged image or a missing caption inside a sound shard is no such "
        "fault: the sample is skipped, counted and named at the end."
    )
    provoked_by = "`--data cut-off.tar`"


class ShapesKnob(Problem):
    code = "V0808"
    template = "`{knob}` of the built-in data {problem}"
    summary = "A knob of the built-in data that does not exist or has an impossible value."
    explanation = (
        "The built-in scenes are set with knobs behind a colon: `shapes:samples=500,noise=0.3`. `samples` is how many "
        "there are, `scenes` how many of them differ in content, `size` the height and width in pixels, `objects` the "
        "most objects of a scene (1 to 3), `noise` the share of samples whose text does not fit the image, "
        "`single_template=true` gives the training texts one fixed phrasing, `label` says what the classes are (`object`: "
        "colour and shape of the main object, `colour` or `shape` alone, or `count`), `seed` makes another set. The "
        "held-out scenes share no scene with the training set and always have clean texts."
    )
    provoked_by = "`--data shapes:nose=0.3`"


class BatchLargerThanData(Problem):
    code = "V0809"
    template = "the data has {samples} samples, fewer than one batch of {batch}"
    summary = "There are not enough samples to fill one batch."
    explanation = (
        "The batch is the set in which samples are each other's negatives, so it is never filled up with repeated samples "
        "and never cut short: both would change what the loss means. Use a smaller `train.batch` or more data."
    )
    provoked_by = "`--data shapes:samples=10` with a batch of 128"


class NoUsableSample(Problem):
    code = "V0820"
    template = "none of the {samples} samples can be used"
    summary = "Every sample of the data was skipped."
    explanation = (
        "A sample whose image is damaged or whose caption is missing or empty is skipped, counted and replaced by "
        "another. Here no sample was left. The notes name the reasons and the first samples of each. If all of them miss "
        "the same field, the mapping is probably at fault: look at `--map`, and at the folder that image paths are "
        "relative to (the one the table is in)."
    )
    provoked_by = "a table whose image paths point nowhere"


class NotDivisible(Problem):
    code = "V0821"
    template = "a batch of {batch} cannot be shared out evenly among {world} processes"
    summary = "The global batch is no multiple of the number of processes."
    explanation = (
        "`train.batch` is the batch over all processes, and each takes an equal share of it, so that a recipe means the "
        "same on one process and on many. Choose a batch that the number of processes divides."
    )
    provoked_by = "`--set train.batch=100` under `torchrun --nproc-per-node 8`"


class TokenizerUnusable(Problem):
    code = "V0822"
    template = "the tokenizer `{given}` cannot be used: {reason}"
    summary = "A tokenizer file or name that cannot be loaded."
    explanation = (
        "A tokenizer is trained on the texts of the data unless one is named: the path of a `tokenizer.json` of the "
        "`tokenizers` library, or `hf:NAME`, which is loaded through `transformers` (install `vlmdsl[hf]`) from its "
        "cache, a folder, or the hub. Only tokenizers that have such a file are used, since it is kept in the checkpoint, "
        "and a checkpoint must be complete without code from elsewhere."
    )
    provoked_by = "`--set model.tokenizer=nowhere.json`"


class CannotLoad(Problem):
    code = "V0823"
    template = "the data pipeline cannot make {what}"
    summary = "A recipe asks for a kind of field or view that data loading does not provide."
    explanation = (
        "Data loading makes images, texts, regions, labels, flags and numbers, one a sample, and the bundled views. A "
        "recipe that uses more still compiles, and can be used from Python with inputs that your own code prepares; only "
        "`vlmdsl train` needs all of it from the data. A `Scalar` of the signature is a number that the caller gives at "
        "each step, such as the scale of a host program: a run by itself has no source for it."
    )
    provoked_by = "training a recipe with a field of type `Text[4]`, or with a `Scalar`"


class TableUnreadable(Problem):
    code = "V0824"
    template = "the table `{path}` cannot be read: {reason}"
    summary = "A CSV, TSV, JSONL or JSON file is not what its ending says."
    explanation = (
        "A `.csv` or `.tsv` file is UTF-8 text whose first line names the columns, each by a name of its own; a `.jsonl` "
        "file has one JSON object on each line, and a `.json` file one array of objects. A cell that begins with a quote "
        "ends with one, and has quotes inside it written twice. One column holds the path of the image, relative to the "
        "folder of the table and inside it (or in one of `data.allowed_folders`): `image`, `filepath`, `file_name`, "
        "`path` or `image_path` is found by itself, another is named with `--map image=COLUMN`. A single bad line of a "
        "`.jsonl` file is skipped and counted like any other damaged sample."
    )
    provoked_by = "`--data table.csv` with an empty file"


class SynonymsUnreadable(Problem):
    code = "V0825"
    template = "the synonyms in `{path}` cannot be used: {reason}"
    summary = "The file that `data.synonyms` names is missing, no text, or holds no synonyms."
    explanation = (
        "The view `eda` replaces words by synonyms, or inserts synonyms of them, if the run gives it some: "
        "`data.synonyms` names a UTF-8 text file with a set of synonyms on each line and commas between, as in `large, big, "
        "huge`; `#` begins a comment. It is the plain form of the synonym files of search engines. vlmdsl brings no "
        "thesaurus and downloads none. DeCLIP takes WordNet: with nltk and its corpus, write the lemmas of each synset "
        "on a line, and leave out short words such as `a` and `in`, which WordNet knows as units. Without a file, `eda` "
        "draws among the operations that need no synonyms, and the report of the run says how often."
    )
    provoked_by = "`--set data.synonyms=nowhere.txt`"


class FontUnreadable(Problem):
    code = "V0826"
    template = "the font `{path}` cannot be used: {reason}"
    summary = "The file that `data.font` names is missing or no font."
    explanation = (
        "The view `render` makes images of texts, as CLIPPO's tower takes them. `data.font` names the TrueType or OpenType "
        "file with the letters; without it they are DejaVu Sans, which is installed with vlmdsl and has the Latin, Greek "
        "and Cyrillic scripts among others, and no Chinese, Japanese or Korean. CLIPPO's authors use GNU Unifont, which has "
        "a glyph for nearly every character and can be downloaded from its own site. Texts with characters that the font "
        "lacks are counted in the report of the run."
    )
    provoked_by = "`--set data.font=nowhere.ttf`"


class UnknownStandIn(Problem):
    code = "V0827"
    template = "`{given}` is no stand-in: {reason}"
    summary = "`--map` asks for a stand-in that does not exist, or without the columns that it is made of."
    explanation = (
        "A stand-in takes the place of a field that the data lacks and that no model of ours makes. There are five: "
        "`summarize(TEXT)`, the first sentence of a text; `template(WORDS)`, `a picture of A, B and C` from words or lists "
        "of them; `grid(IMAGE)`, the nine fields of an image cut in thirds, where a detector's regions are lacking; "
        "`crops(IMAGE,BOXES)`, what annotated boxes hold, as regions too; `hash(TEXT)`, a class for each distinct "
        "text. None is as good as what the authors had, so each is chosen by name, kept with the run in `config.yaml` and "
        "`run.json`, and told in its report."
    )
    provoked_by = "`--map summary=sumarize(text)`"


class TooManyUnusable(Problem):
    code = "V0828"
    template = "{bad} of {samples} samples cannot be used, {problem}"
    summary = "Too many samples of the data are damaged or lack something."
    explanation = (
        "A few bad samples are skipped, counted and replaced by others. A batch is never filled with the same sample "
        "twice, since copies would be each other's negatives, so there must be as many good samples as a batch has; and "
        "if more than the share `data.max_bad_share` of the samples cannot be used (half of them, unless it is set), "
        "something is wrong with the data rather than with a sample. The first samples are looked at before the first "
        "step, and the share is watched while the run goes on: a shard that is overwritten meanwhile stops it. The notes "
        "name the reasons and the first samples of each."
    )
    provoked_by = "a shard of 12 samples of which 11 images are damaged, with a batch of 4"


class FolderOfSplits(Problem):
    code = "V0829"
    template = "the subfolders of `{path}` are splits, not classes: {splits}"
    summary = "A folder of images is divided into `train`, `val` or `test`."
    explanation = (
        "In a folder of images each subfolder is a class. One whose subfolders are called `train`, `val`, `test` and the "
        "like is divided into splits, and training on all of them would train on what is held out. Name the folder of "
        "each split: `--data pictures/train --val pictures/val`. Should these be classes after all, give their folders "
        "other names."
    )
    provoked_by = "`--data pictures` with images in `pictures/train/cat` and `pictures/val/cat`"


class NamesWithDots(Problem):
    code = "V0835"
    template = "{count} images of {name} are taken for columns of a sample, not for samples: their names have dots in them"
    summary = "The members of a shard have names with dots, so different images belong to one sample."
    explanation = (
        "The name of a sample in a tar shard ends at the first dot of its members' names, and the rest says what each of "
        "them is: `7.png` and `7.txt` are the image and the text of the sample `7`, and `7.depth.png` is its image "
        "column `depth`. This is the rule of the webdataset library. So `img.v0.jpg` and `img.v1.jpg` are two columns of "
        "one sample `img`. If most samples have such a column it is taken as meant; if there are many of them, each in a "
        "few samples only, rename the members so that only their endings have dots."
    )
    provoked_by = "a shard of `img.v0.jpg`, `img.v1.jpg` and so on up to `img.v19.jpg`"
