"""V0122 to V0140: statements, their words and their order."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BadCount", "BlockOutOfPlace", "EditionUnknown", "EmptyBlock", "EmptyFile", "FieldWithoutType", "MinimizeMissing",
    "MissingEquals", "NamelessTerm", "NothingInBlock", "RepeatedStatement", "ReservedWord", "ShareOutOfRange",
    "SharesDoNotSum", "StatementOrder", "StrayExpression", "TwoKindsOfObjective", "UnknownStatement", "UnmarkedDefinition",
]  # fmt: skip


class UnknownStatement(Problem):
    code = "V0122"
    template = "`{word}` does not begin a statement"
    summary = "A line begins with a word that is not a statement of the language."
    explanation = (
        "A statement begins with one of the keywords `vlo`, `recipe`, `cite`, `status`, `batch`, `use`, `encoder`, `let`, "
        "`def`, `minimize`, `stage` and `flow`. If a word is a misspelling of one of them, `vlmdsl check --fix` corrects it."
        " Keywords are written in lower case, and `minimize` with a z."
    )
    bad = "minimise contrast(image, text)\n"
    good = "minimize contrast(image, text)\n"


class UnmarkedDefinition(Problem):
    code = "V0123"
    template = "`{name}` is defined without `{word}`"
    summary = "A name is given a value without `let`, or a function without `def`."
    explanation = (
        "A name is defined once, by `let name = value`; a function by `def name(parameters) = expression`. The keyword "
        "shows that this is a definition and not an assignment: a name never changes its value, and every use of it in "
        "the file means the same. `vlmdsl check --fix` adds the keyword."
    )
    bad = "tau = learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"
    good = "let tau = learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"


class MissingEquals(Problem):
    code = "V0124"
    template = "`=` is missing after {what}"
    summary = "A definition without its equals sign."
    explanation = (
        "Definitions are written with an equals sign: `let name = value`, `def name(parameters) = expression`, `encoder "
        "name = expression`. There is no body in braces or after a colon, no `return`, and no type after the name of a "
        "`let`: types are inferred."
    )
    bad = "let tau learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"
    good = "let tau = learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"


class ReservedWord(Problem):
    code = "V0125"
    template = "`{word}` is a keyword and cannot be used as a name"
    summary = "A name that is a keyword of the language."
    explanation = (
        "The keywords `vlo`, `recipe`, `cite`, `status`, `batch`, `use`, `as`, `encoder`, `let`, `in`, `def` and "
        "`minimize` are reserved: they cannot name a value, function, parameter, argument, term or field. Choose another "
        "name; if a column of the data has such a name, map it to a field on the command line, `--map text=recipe`."
    )
    bad = "recipe use(image: Image, text: Text)\n\nminimize contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class EditionUnknown(Problem):
    code = "V0126"
    template = "this version of vlmdsl supports editions of the language up to {supported}"
    summary = "The file is written in an edition that this compiler does not support."
    explanation = (
        "The first line of a recipe names the edition of the language it is written in, `vlo 1`. Editions are whole "
        "numbers from 1. A newer vlmdsl reads all older editions; an older one does not know what a newer edition means, "
        "so it stops here instead of reporting misleading errors. Install a newer vlmdsl, or write the recipe in a "
        "supported edition."
    )
    bad = "vlo 2\n\nminimize contrast(image, text)\n"
    good = "vlo 1\n\nminimize contrast(image, text)\n"


class StatementOrder(Problem):
    code = "V0127"
    template = "`{word}` must come before {others}"
    summary = "The edition comes first, then the signature of the recipe."
    explanation = (
        "A file begins with its edition, `vlo 1`, and then, if it has one, its `recipe` statement; everything else may "
        "use the fields and hyper-parameters of the signature and comes after it. Comments can be anywhere. Move the "
        "statement up; nothing else in the file has to change."
    )
    bad = "let two = 2\nrecipe mine(image: Image, text: Text)\n\nminimize two * contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\nlet two = 2\n\nminimize two * contrast(image, text)\n"


class RepeatedStatement(Problem):
    code = "V0128"
    template = "{where} has one `{word}`, and this is the second"
    summary = "A statement that is allowed once per file occurs twice."
    explanation = (
        "`vlo`, `recipe`, `status`, `batch` and `minimize` are each allowed once per file: a recipe is one objective with "
        "one signature, and a `stage` or `flow` one `minimize` of its own. Several losses are terms of one `minimize { "
        "name: loss ... }` block and are added. A second recipe goes into its own file, to be included with `use`."
    )
    bad = "minimize contrast(image, text)\nminimize contrast(text, image)\n"
    good = "minimize {\n  there: contrast(image, text)\n  back: contrast(text, image)\n}\n"


class EmptyFile(Problem):
    code = "V0129"
    template = "there is no program here"
    summary = "The file has no statement."
    explanation = (
        "The text is empty, or consists of comments and an edition only. The smallest program is a single expression, "
        "such as `contrast(image, text)`; it has the default fields `image` and `text`. `vlmdsl recipes` lists bundled "
        "recipes to start from."
    )
    bad = "# a recipe will come here\n"
    good = "# the smallest recipe\ncontrast(image, text)\n"


class MinimizeMissing(Problem):
    code = "V0130"
    template = "this recipe has no `minimize`"
    summary = "A recipe without a `minimize` statement."
    explanation = (
        "A recipe ends with what it minimises: `minimize expression`, or `minimize { name: expression ... }` for several "
        "terms. A bare expression is a whole program only if the file has no other statement; with a `recipe`, `let` or "
        "`use` in the file the keyword `minimize` is required, and `vlmdsl check --fix` adds it if there is exactly one "
        "bare expression. A file with only `def`s is a library: others can use it, but it cannot be trained."
    )
    bad = "recipe mine(image: Image, text: Text)\n\ncontrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class EmptyBlock(Problem):
    code = "V0131"
    template = "this `minimize` block has no terms"
    summary = "A `minimize { }` block is empty."
    explanation = (
        "A `minimize` block lists at least one term, each with the name under which it is logged: `minimize { pairs: "
        "contrast(image, text) }`. Terms are separated by line breaks or commas. To switch off a term for an experiment, "
        "give it the weight 0: it is removed from the program, with the parameters that only it uses."
    )
    bad = "minimize {\n}\n"
    good = "minimize {\n  pairs: contrast(image, text)\n}\n"


class StrayExpression(Problem):
    code = "V0132"
    template = "this expression is not used for anything"
    summary = "A bare expression is a line of a larger file."
    explanation = (
        "A file with other statements has to state what an expression is for: `let name = ...` names it, `minimize ...` "
        "minimises it. A second loss becomes a term of the `minimize { ... }` block. If the line was meant to continue "
        "the previous one, put both in brackets."
    )
    bad = "minimize contrast(image, text)\n\ncontrast(text, image)\n"
    good = "minimize {\n  there: contrast(image, text)\n  back: contrast(text, image)\n}\n"


class NamelessTerm(Problem):
    code = "V0133"
    template = "this term has no name"
    summary = "A term of a `minimize` block without `name:` in front."
    explanation = (
        "Every term of a `minimize { ... }` block has a name, under which its value is logged and returned: `pairs: "
        "contrast(image, text)`. A term is written on one line unless its line breaks are inside brackets. A single term "
        "without braces needs no name: `minimize contrast(image, text)`. The name is followed by a colon, not by an "
        "equals sign as in a definition."
    )
    bad = "minimize {\n  contrast(image, text)\n}\n"
    good = "minimize {\n  pairs: contrast(image, text)\n}\n"


class BadCount(Problem):
    code = "V0134"
    template = "a count in a type must be a positive integer"
    summary = "`Text[...]` or `Image{...}` with something else than a positive integer."
    explanation = (
        "`Text[4]` is a field with four texts per sample, `Image{2}` a set of two views. The count is a positive integer "
        "without a unit. It is part of the type and cannot depend on a hyper-parameter: the data either has that many "
        "columns or not."
    )
    bad = "recipe mine(image: Image, text: Text[0])\n\nminimize contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class FieldWithoutType(Problem):
    code = "V0135"
    template = "`{name}` needs a type, or a default value"
    summary = "A parameter of a recipe is neither a field nor a hyper-parameter."
    explanation = (
        "The parameters of a `recipe` are the fields of a batch, written with their type (`image: Image`, `text: Text`), "
        "and its hyper-parameters, written with their default (`weight = 2.0`). Without either it is ambiguous. Only the "
        "parameters of a `def` may be bare names."
    )
    bad = "recipe mine(image, text: Text)\n\nminimize contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class BlockOutOfPlace(Problem):
    code = "V0136"
    template = "{what} cannot stand in a `{block}`"
    summary = "A statement inside of a `stage` or `flow` that belongs to the file."
    explanation = (
        "A `stage` holds `let`, `encoder`, and either one `minimize` or its flows; a `flow` holds `let`, `encoder` and one "
        "`minimize`. Everything else is said once for the whole file: its edition and signature, what it uses, its "
        "functions. Stages do not nest, and neither do flows."
    )
    bad = "stage first {\n  def twice(x) = 2 * x\n  minimize twice(contrast(image, text))\n}\n"
    good = "def twice(x) = 2 * x\n\nstage first {\n  minimize twice(contrast(image, text))\n}\n"


class NothingInBlock(Problem):
    code = "V0137"
    template = "the {what} `{name}` minimises nothing"
    summary = "A `stage` or `flow` without an objective."
    explanation = (
        "A `stage` says what is minimised while it lasts: by one `minimize`, or by flows that each have one. A `flow` has "
        "one `minimize`. A stage that only hands weights on is not needed: a later stage can start `from` any earlier one."
    )
    bad = "stage first {\n  let tau = learned(0.07, max_scale=100)\n}\n"
    good = "stage first {\n  minimize contrast(image, text)\n}\n"


class TwoKindsOfObjective(Problem):
    code = "V0138"
    template = "this `{word}` stands beside {others}"
    summary = "A file or stage says in two ways what is minimised."
    explanation = (
        "A file has one `minimize`, or flows, or stages. A stage has one `minimize`, or flows. With both it would be open "
        "which steps the lone `minimize` is for. Put it into a block of its own."
    )
    bad = "stage first {\n  minimize contrast(image, text)\n}\n\nminimize contrast(text, image)\n"
    good = (
        "stage first {\n  minimize contrast(image, text)\n}\n\n"
        "stage second from first {\n  minimize contrast(text, image)\n}\n"
    )


class ShareOutOfRange(Problem):
    code = "V0139"
    template = "the share of a flow must be above 0 and at most 100 %"
    summary = "`share` with a number that is not a share of the steps."
    explanation = (
        "`share 15%` says that a flow has 15 % of the steps, drawn at random. A share is above 0 and at most 100 %, and has "
        "no other unit. It is written out as a number: it is neither a hyper-parameter nor an expression. "
        "To leave a flow out of an experiment, remove it."
    )
    bad = (
        "flow pairs(image, text) share 150% {\n  minimize contrast(image, text)\n}\n\n"
        "flow texts(text) {\n  minimize mlm(mask(text, random(15%)))\n}\n"
    )
    good = (
        "flow pairs(image, text) share 85% {\n  minimize contrast(image, text)\n}\n\n"
        "flow texts(text) {\n  minimize mlm(mask(text, random(15%)))\n}\n"
    )


class SharesDoNotSum(Problem):
    code = "V0140"
    template = "the shares of the flows do not sum to 100 %: {reason}"
    summary = "The shares of the flows of a stage are not those of a whole."
    explanation = (
        "Every step runs one flow, drawn with the probabilities that the flows state as their shares. One flow may leave "
        "its share out: it takes the rest. Otherwise the shares sum to 100 %."
    )
    bad = (
        "flow pairs(image, text) share 90% {\n  minimize contrast(image, text)\n}\n\n"
        "flow texts(text) share 15% {\n  minimize mlm(mask(text, random(15%)))\n}\n"
    )
    good = (
        "flow pairs(image, text) share 85% {\n  minimize contrast(image, text)\n}\n\n"
        "flow texts(text) share 15% {\n  minimize mlm(mask(text, random(15%)))\n}\n"
    )
