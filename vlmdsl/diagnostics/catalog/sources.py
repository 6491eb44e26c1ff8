"""V0842 to V0846: the choice of data sources: their names, options and weights, and what `vlmdsl data` reads and writes."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["DataOption", "NamedDataUnusable", "NoColumnToRead", "ShardsExist", "WeightsUnusable", "WrittenWhereItIsRead"]


class NamedDataUnusable(Problem):
    code = "V0842"
    template = "the data set `{name}` cannot be loaded"
    summary = "A data set named `hf:NAME` was not found, or the library `datasets` cannot read it."
    explanation = (
        "`hf:NAME` is loaded by the library `datasets` (`pip install 'vlmdsl[datasets]'`): from a local folder, from its "
        "cache, or from the Hugging Face hub, which data is downloaded from only because the name says so. "
        "`hf:NAME,split=validation` chooses another split than `train`, `,config=NAME` a configuration, `,revision=COMMIT` "
        "a version. With `--set data.stream=true` it is read as a stream, without a copy. A data set that needs code of its "
        "own is refused by the library. Without a connection, save it elsewhere with `save_to_disk`, and name the folder of "
        "the split. The note below the message is the error of `datasets`."
    )
    provoked_by = "`--data hf:./nowhere`"


class DataOption(Problem):
    code = "V0843"
    template = "`{option}` of `{given}` cannot be used: {reason}"
    summary = "An option behind a path of data does not fit the data."
    explanation = (
        "A path may be followed by `,images=FOLDER`, the folder that the paths of images in the file start from and may not "
        "leave: `coco:annotations/captions_val2017.json,images=val2017`. A data set named `hf:NAME` has the options "
        "`,split=NAME`, `,config=NAME` and `,revision=COMMIT`. The format before the path is only needed where the file's "
        "name does not show it."
    )
    provoked_by = "`--data captions.csv,images=nowhere`"


class WeightsUnusable(Problem):
    code = "V0844"
    template = "the weights of the training sources cannot be used: {reason}"
    summary = "`data.weights` does not fit `data.train`, or the recipe."
    explanation = (
        "`data.weights` has a positive number for each specification of `data.train`: with `[3, 1]` three samples of four "
        "are of the first one, on average. No sample comes twice in an epoch, so an epoch ends when one source has been "
        "read; of the others each epoch has another random part. A recipe with `batch one_source` has its own rule for what "
        "is in a batch, and a stream has no sources of known length, so neither takes weights."
    )
    provoked_by = "`--data a.tar --data b.tar --set 'data.weights=[1]'`"


class ShardsExist(Problem):
    code = "V0845"
    template = "there are shards in `{path}` already"
    summary = "`vlmdsl data convert` does not overwrite shards."
    explanation = (
        "Shards are written as `shard-000000.tar` and so on, and a folder with shards of an earlier conversion would be "
        "data of both. Name another folder, or remove the shards that are not needed. A conversion that was interrupted "
        "left whole shards only: remove them, and begin again."
    )
    provoked_by = "`vlmdsl data convert pictures.csv --out shards` a second time"


class NoColumnToRead(Problem):
    code = "V0846"
    template = "{name} has neither an image nor a text"
    summary = "`vlmdsl data` looks at images and texts, and the data has no column for either."
    explanation = (
        "`vlmdsl data check`, `preview` and `convert` read the fields `image` and `text`, from the columns of these or the "
        "usual names (`file_name`, `caption`, ...; `vlmdsl explain V0801`). `--map image=COLUMN` and `--map text=COLUMN` "
        "name others. The message lists the columns."
    )
    provoked_by = "`vlmdsl data check numbers.csv` with a column `x` only"


class WrittenWhereItIsRead(Problem):
    code = "V0870"
    template = "{option} `{out}` is in the place that is read, `{place}`"
    summary = "A command would write into the file or folder that it reads."
    explanation = (
        "What is written among data is data the next time: a grid of pictures in a folder of images is one of its images, "
        "and shards beside shards are matched by the same pattern. Written over the data itself, it would replace it "
        "while it is read. In the folder of a run it may replace what the run needs. So no command writes into the file or "
        "the folder that it reads, or below it; it stops before anything is written. Choose a place beside it."
    )
    provoked_by = "`vlmdsl data convert pictures --out pictures`"
