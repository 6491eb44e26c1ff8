"""V0801 to V0809, V0820 to V0841: data sources, their mapping to fields, and what is made of the samples."""

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
    "ShapesOption",
    "ShardUnreadable",
    "StreamUnusable",
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
        "Every field of a recipe is read from a column of the data, by default the column of the same name; `text` also "
        "matches `caption` and `txt`, `label` matches `cls`, and an image any image file of the sample. Where names "
        "differ, `--map FIELD=COLUMN` names the column. A view such as `rewrite(text, M=4)` reads one more field, "
        "`text_rewrites`: the alternatives of the text, a list in one column or several columns joined by commas, as in "
        "`--map text_rewrites=tags,cldr_en`. For data that a method's authors produced with other models (summaries, "
        "regions) there may be a stand-in, chosen by name: `--map summary=summarize(text)`. This is checked before the "
        "first step, on the columns of up to 64 samples spread over the data."
    )
    provoked_by = "a recipe with a `label` field on shards that hold images and captions only"


class UnknownColumn(Problem):
    code = "V0802"
    template = "the data has no column `{column}`"
    summary = "`--map` names a column that the data does not have."
    explanation = (
        "The columns of a tar shard are the endings of a sample's files (`txt`, `cls`, and `image` for any image) and the "
        "keys of its `json` file; those of a table are its header. The message lists the columns and suggests the closest "
        "name. Names are case-sensitive. Columns are collected from up to 64 samples spread over the data, so a column "
        "that very few samples have may be missed: fill it with null in the others."
    )
    provoked_by = "`--map text=captoin`"


class MalformedMapping(Problem):
    code = "V0803"
    template = "`--map` expects FIELD=COLUMN, not `{given}`"
    summary = "A mapping lacks its field, equals sign or column."
    explanation = (
        "A mapping names a field of the recipe, then `=`, then the column of the data that it is read from: `--map "
        "text=caption`. Several columns are joined by commas. A text is read from the first column that has a value; of a "
        "list of texts a random one is used in each epoch, or with `--set data.captions=first` always the first; for "
        "alternatives, such as `text_rewrites`, all of them are gathered into one list. Give `--map` once for each field."
    )
    provoked_by = "`--map text`"


class UnknownField(Problem):
    code = "V0804"
    template = "no field `{field}` is read"
    summary = "`--map` names a field that neither the recipe nor the evaluation reads."
    explanation = (
        "The left side of a mapping is a field of the recipe's signature, or the alternatives of one of its texts "
        "(`text_rewrites`), or what the evaluation reads: `label` and `class_name`. A mapping that nothing reads is "
        "usually a misspelt field, or has its two sides swapped, so it is an error rather than silently ignored."
    )
    provoked_by = "`--map caption=text` with a recipe that reads `image` and `text`"


class DataNotFound(Problem):
    code = "V0805"
    template = "no data at `{given}`"
    summary = "A data specification matches nothing, or a place without samples."
    explanation = (
        "A specification is `shapes` (the built-in scenes), the path of a tar shard, of a table (`.csv`, `.tsv`, "
        "`.jsonl`, `.json`, `.parquet`, `.arrow`), of captions of COCO or Flickr or of a folder, or a pattern: `*` and `?` "
        "match as in a shell, `{000..003}` counts. Paths are relative to the folder in which the command runs. A quoted "
        "pattern is expanded by vlmdsl, so both forms work. A folder must hold shards, Parquet files or images (in "
        "subfolders or not), and a shard at least one sample. `hf:NAME` is a data set that the library `datasets` loads."
    )
    provoked_by = "`--data 'nowhere-*.tar'`"


class UnknownDataForm(Problem):
    code = "V0806"
    template = "unsupported data format: `{given}`"
    summary = "A file whose ending belongs to no known form of data."
    explanation = (
        "Read are webdataset shards (`.tar`), tables (`.csv`, `.tsv`, `.jsonl`, `.json`, `.parquet`, `.arrow`) with a "
        "column of images or their paths, captions of COCO (`.json`) and Flickr (`.token`), folders of images, folders that "
        "`datasets` saved, and `hf:NAME`. A format before the path reads a file with another ending: `csv:captions.txt`. "
        "Samples are read in an order that depends on nothing but the seed and the epoch, so a file must "
        "allow reading from the middle: compressed shards (`.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz`, `.tar.zst`), and those "
        "at a URL, are copied to `data.cache` first, once; other compressed files have to be unpacked. The images inside "
        "are compressed already, so little is lost."
    )
    provoked_by = "`--data pictures.csv.gz`"


class ShardUnreadable(Problem):
    code = "V0807"
    template = "the shard `{path}` cannot be read: {reason}"
    summary = "A tar shard is cut off, damaged, or not a tar file."
    explanation = (
        "All shards are indexed before the first step, which reads the headers of their members and not the images. A "
        "truncated shard (usually an interrupted download) is reported here, by name, rather than hours later; with "
        "`data.stream=true` it is reported when it is reached. Download it again, or leave it out. A damaged image or a "
        "missing caption inside an intact shard is not such an error: the sample is skipped, counted and reported at the "
        "end."
    )
    provoked_by = "`--data cut-off.tar`"


class ShapesOption(Problem):
    code = "V0808"
    template = "`{option}` of the built-in data {problem}"
    summary = "An option of the built-in data does not exist or has an invalid value."
    explanation = (
        "The built-in scenes have options after a colon: `shapes:samples=500,noise=0.3`. `samples` is their number, "
        "`scenes` the number of different scenes among them, `size` the height and width in pixels, `objects` the maximum "
        "number of objects in a scene (1 to 3); with `equal_sizes=true` all of an image have the same size and no text "
        "states it, with `distinct=true` no two have the same name, and with `plain_ground=true` all images have the same "
        "ground and their pixels no noise. `colours` is the number of colours of objects (2 to 16, usually 8), "
        "`noise` the share of samples whose text does not match the image, "
        "`single_template=true` gives the training texts one fixed phrasing, `label` selects the classes (`object`: "
        "colour and shape of the main object, `colour` or `shape` alone, or `count`), and another `seed` generates "
        "another set. The held-out split shares no scene with the training split, and its texts always match."
    )
    provoked_by = "`--data shapes:nose=0.3`"


class BatchLargerThanData(Problem):
    code = "V0809"
    template = "the data has {samples} samples, fewer than one batch of {batch}"
    summary = "There are not enough samples to fill one batch."
    explanation = (
        "The samples of a batch are each other's negatives, so a batch is never filled up with repeated samples and never "
        "truncated: both would change the meaning of the loss. Use a smaller `train.batch` or more data."
    )
    provoked_by = "`--data shapes:samples=10` with a batch of 128"


class NoUsableSample(Problem):
    code = "V0820"
    template = "none of the {samples} samples can be used"
    summary = "Every sample of the data was skipped."
    explanation = (
        "A sample whose image is damaged or whose caption is missing or empty is skipped, counted and replaced by "
        "another. Here no sample was left. The notes list the reasons, with the first samples of each. If all of them "
        "lack the same field, the mapping is probably wrong: check `--map`, and the folder that image paths are relative "
        "to (the table's)."
    )
    provoked_by = "a table whose image paths do not exist"


class NotDivisible(Problem):
    code = "V0821"
    template = "a batch of {batch} cannot be split evenly among {world} processes"
    summary = "The global batch is not a multiple of the number of processes."
    explanation = (
        "`train.batch` is the global batch, over all processes, and each takes an equal part of it, so that a recipe "
        "means the same on one process and on many. Choose a batch size that is divisible by the number of processes."
    )
    provoked_by = "`--set train.batch=100` under `torchrun --nproc-per-node 8`"


class TokenizerUnusable(Problem):
    code = "V0822"
    template = "the tokenizer `{given}` cannot be used: {reason}"
    summary = "A tokenizer file or name cannot be loaded."
    explanation = (
        "By default a tokenizer is trained on the texts of the data. To use another, give the path of a `tokenizer.json` "
        "of the `tokenizers` library, or `hf:NAME`, which `transformers` (install `vlmdsl[hf]`) loads from its cache, a "
        "folder, or the hub. Only tokenizers with such a file are supported, because it is stored in the checkpoint, and "
        "a checkpoint has to be complete without external code."
    )
    provoked_by = "`--set model.tokenizer=nowhere.json`"


class CannotLoad(Problem):
    code = "V0823"
    template = "data loading does not support {what}"
    summary = "A recipe has a kind of field or view that data loading does not support."
    explanation = (
        "Data loading provides images, texts, regions, labels, flags and numbers, one per sample, and the bundled views. "
        "A recipe that uses more still compiles, and can be used from Python with inputs that your own code prepares; "
        "only `vlmdsl train` has to read all of them from the data. A `Scalar` of the signature is a number that the "
        "caller passes at each step, such as the scale of a host program: a run has no source for it."
    )
    provoked_by = "training a recipe with a field of type `Text[4]`, or with a `Scalar`"


class TableUnreadable(Problem):
    code = "V0824"
    template = "the table `{path}` cannot be read: {reason}"
    summary = "A CSV, TSV, JSONL or JSON file does not have the format of its extension."
    explanation = (
        "A `.csv` or `.tsv` file is UTF-8 text whose first line names the columns, without duplicates; a `.jsonl` file "
        "has one JSON object per line, and a `.json` file one array of objects. A cell that begins with a quote ends with "
        "one, and quotes inside it are doubled. One column holds the path of the image, relative to the folder of the "
        "table and inside it (or in one of `data.allowed_folders`): `image`, `filepath`, `file_name`, `path` or "
        "`image_path` is recognised, any other is named with `--map image=COLUMN`. A single bad line of a `.jsonl` file "
        "is skipped and counted like any other damaged sample."
    )
    provoked_by = "`--data table.csv` with an empty file"


class SynonymsUnreadable(Problem):
    code = "V0825"
    template = "the synonyms in `{path}` cannot be used: {reason}"
    summary = "The file that `data.synonyms` names is missing, is not text, or contains no synonyms."
    explanation = (
        "The view `eda` replaces words with synonyms, or inserts synonyms of them, if the run provides some: "
        "`data.synonyms` names a UTF-8 text file with one comma-separated set of synonyms per line, as in `large, big, "
        "huge`; `#` begins a comment. This is the plain format of the synonym files of search engines. vlmdsl does not "
        "include or download a thesaurus. DeCLIP uses WordNet: with nltk and its corpus, write the lemmas of each synset "
        "on a line, and leave out short words such as `a` and `in`, which WordNet lists as units. Without a file, `eda` "
        "draws among the operations that need no synonyms, and the report of the run states how often."
    )
    provoked_by = "`--set data.synonyms=nowhere.txt`"


class FontUnreadable(Problem):
    code = "V0826"
    template = "the font `{path}` cannot be used: {reason}"
    summary = "The file that `data.font` names is missing or is not a font."
    explanation = (
        "The view `render` draws texts as images, the input of CLIPPO's tower. `data.font` names a TrueType or OpenType "
        "file; the default is DejaVu Sans, which is installed with vlmdsl and covers the Latin, Greek and Cyrillic "
        "scripts among others, but not Chinese, Japanese or Korean. CLIPPO's authors use GNU Unifont, which has a glyph "
        "for nearly every character and can be downloaded from its website. The report of the run counts texts with "
        "characters that the font lacks."
    )
    provoked_by = "`--set data.font=nowhere.ttf`"


class UnknownStandIn(Problem):
    code = "V0827"
    template = "`{given}` is not a stand-in: {reason}"
    summary = "`--map` names a stand-in that does not exist, or lacks the columns that it needs."
    explanation = (
        "A stand-in replaces a field that the data lacks and that would need a model to produce. There are five: "
        "`summarize(TEXT)`, the first sentence of a text; `template(WORDS)`, `a picture of A, B and C` from words or "
        "lists of them; `grid(IMAGE)`, the cells of a 3 x 3 grid over the image, in place of a detector's regions; "
        "`crops(IMAGE,BOXES)`, the contents of annotated boxes, as regions; `hash(TEXT)`, a class for each distinct text. "
        "None is as good as what the authors had, so each has to be chosen by name, is recorded with the run in "
        "`config.yaml` and `run.json`, and is listed in its report."
    )
    provoked_by = "`--map summary=sumarize(text)`"


class TooManyUnusable(Problem):
    code = "V0828"
    template = "{bad} of {samples} samples cannot be used, {problem}"
    summary = "Too many samples of the data are damaged or incomplete."
    explanation = (
        "A few bad samples are skipped, counted and replaced by others. A batch never contains the same sample twice, "
        "since copies would be each other's negatives, so the data needs at least as many usable samples as a batch has; "
        "and if more than the share `data.max_bad_share` of the samples cannot be used (by default half of them), "
        "something is wrong with the data rather than with a sample. The first samples are checked before the first step, "
        "and the share is monitored during the run: a shard that is overwritten meanwhile stops it. The notes list the "
        "reasons, with the first samples of each."
    )
    provoked_by = "a shard of 12 samples of which 11 images are damaged, with a batch of 4"


class FolderOfSplits(Problem):
    code = "V0829"
    template = "the subfolders of `{path}` are splits, not classes: {splits}"
    summary = "A folder of images is divided into `train`, `val` or `test`."
    explanation = (
        "In a folder of images each subfolder is a class. Subfolders called `train`, `val`, `test` and the like are taken "
        "for splits, and training on all of them would train on the held-out data. Name the folder of each split: `--data "
        "pictures/train --val pictures/val`. If these are classes after all, rename their folders."
    )
    provoked_by = "`--data pictures` with images in `pictures/train/cat` and `pictures/val/cat`"


class NamesWithDots(Problem):
    code = "V0835"
    template = "{count} images of {name} are read as columns of one sample, not as samples: their names contain dots"
    summary = "The members of a shard have dots in their names, so different images belong to one sample."
    explanation = (
        "The name of a sample in a tar shard ends at the first dot of its members' names, and the rest names the column: "
        "`7.png` and `7.txt` are the image and the text of the sample `7`, and `7.depth.png` is its image column `depth`. "
        "This is the rule of the webdataset library. So `img.v0.jpg` and `img.v1.jpg` are two columns of one sample "
        "`img`. If most samples have such a column, it is taken as intended; if there are many such columns, each in a "
        "few samples only, rename the members so that only their extensions have dots."
    )
    provoked_by = "a shard of `img.v0.jpg`, `img.v1.jpg` and so on up to `img.v19.jpg`"


class StreamUnusable(Problem):
    code = "V0837"
    template = "the training data cannot be read as a stream: {reason}"
    summary = "`data.stream` is set for data or a recipe that needs random access."
    explanation = (
        "With `--set data.stream=true` tar shards, Parquet files, or those of one data set named `hf:NAME`, are read from "
        "front to back, several side by side (`data.stream_lanes`), and are not indexed before the first step. Each of the "
        "shards that are read side by side gives the same number of samples to every batch, and each is read by one "
        "process: their number must divide the batch, and the number of processes must divide it. Other tables and folders "
        "of images are read with random access only. So is data for a recipe with `batch one_source`, which has to know the "
        'sources of all samples, for one that keeps a number per sample (`running_mean` with `per="sample"`), and for one '
        "that retrieves from reference samples; name others for it with `data.reference`. A stream has no epochs of known "
        "length, so a `ramp` must count in steps or in shares of the run. Flows are read as streams one by one: `--set "
        "flows.texts.data.stream=true`."
    )
    provoked_by = "`--set data.stream=true` with `--data pictures.csv`"


class ConceptsUnreadable(Problem):
    code = "V0841"
    template = "the concepts in `{path}` cannot be used: {reason}"
    summary = "The file that `data.concepts` names is missing, is not text, or names no concepts."
    explanation = (
        "`prompt(phrases)` and `concepts(phrases)` add names of other things to the names of the boxes of an image. "
        "`data.concepts` names a UTF-8 text file of them: one per line, with `: ` and a definition after the name where "
        "there is one, as in `zebra: a striped animal like a horse`; `#` begins a comment. `concepts` writes the definition "
        "after the name (the concept dictionary of DetCLIP). Without a file, names are those of a part of the training data."
    )
    provoked_by = "`--set data.concepts=nowhere.txt`"
