"""V0122 to V0135: statements, their words and their order."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BadCount", "EditionUnknown", "EmptyBlock", "EmptyFile", "FieldWithoutType", "MinimizeMissing", "MissingEquals",
    "NamelessTerm", "RepeatedStatement", "ReservedWord", "StatementOrder", "StrayExpression", "UnknownStatement",
    "UnmarkedDefinition",
]  # fmt: skip


class UnknownStatement(Problem):
    code = "V0122"
    template = "`{word}` begins no statement"
    summary = "A line begins with a word that is no statement of the language."
    explanation = (
        "A statement begins with one of the words `vlo`, `recipe`, `cite`, `status`, `batch`, `use`, `encoder`, `let`, "
        "`def` and `minimize`. A word that is close to one of them is most often a slip, and `vlmdsl check --fix` "
        "mends it. The words are written in lower case, and `minimize` with a z."
    )
    bad = "minimise contrast(image, text)\n"
    good = "minimize contrast(image, text)\n"


class UnmarkedDefinition(Problem):
    code = "V0123"
    template = "`{name}` is defined without `{word}`"
    summary = "A name is given a value without `let`, or a function without `def`."
    explanation = (
        "A name is defined once, by `let name = value`; a function by `def name(parameters) = expression`. The "
        "word makes it plain that this is a definition and no assignment: a name never changes its value, and "
        "every use of it in the file means the same thing. `vlmdsl check --fix` adds the word."
    )
    bad = "tau = learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"
    good = "let tau = learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"


class MissingEquals(Problem):
    code = "V0124"
    template = "`=` is missing after {what}"
    summary = "A definition without its equals sign."
    explanation = (
        "Definitions are written with an equals sign: `let name = value`, `def name(parameters) = expression`, "
        "`encoder name = expression`. There is no body in braces or after a colon, no `return`, and no type after "
        "the name of a `let`: types are inferred, and shown by the editor."
    )
    bad = "let tau learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"
    good = "let tau = learned(0.07, max_scale=100)\n\nminimize contrast(image, text, temperature=tau)\n"


class ReservedWord(Problem):
    code = "V0125"
    template = "`{word}` is a word of the language and cannot be a name"
    summary = "A name that is one of the words of the language."
    explanation = (
        "The words `vlo`, `recipe`, `cite`, `status`, `batch`, `use`, `as`, `encoder`, `let`, `in`, `def` and `minimize` "
        "belong to the language and name nothing else: no value, function, parameter, argument, term or field. "
        "Choose another name; a field of the data whose column has such a name is mapped to another on the "
        "command line, `--map text=recipe`."
    )
    bad = "recipe use(image: Image, text: Text)\n\nminimize contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class EditionUnknown(Problem):
    code = "V0126"
    template = "this vlmdsl knows the editions of the language up to {known}"
    summary = "The file is written for an edition that this compiler does not know."
    explanation = (
        "The first line of a recipe names the edition of the language it is written in, `vlo 1`. Editions are "
        "whole numbers from 1. A newer vlmdsl reads all older editions, but an older one cannot guess what a "
        "newer edition means, so it stops here instead of reporting errors that are none. Install a newer vlmdsl, "
        "or write the recipe in the edition that is known."
    )
    bad = "vlo 2\n\nminimize contrast(image, text)\n"
    good = "vlo 1\n\nminimize contrast(image, text)\n"


class StatementOrder(Problem):
    code = "V0127"
    template = "`{word}` must come before {others}"
    summary = "The edition comes first, then the signature of the recipe."
    explanation = (
        "A file begins with its edition, `vlo 1`, and then, if it has one, its `recipe` statement; everything "
        "else may use the fields and knobs that the signature declares and comes after it. Comments may stand "
        "anywhere. Move the statement up; nothing else in the file has to change."
    )
    bad = "let two = 2\nrecipe mine(image: Image, text: Text)\n\nminimize two * contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\nlet two = 2\n\nminimize two * contrast(image, text)\n"


class RepeatedStatement(Problem):
    code = "V0128"
    template = "a file has one `{word}`, and this is the second"
    summary = "A statement that a file may have once stands in it twice."
    explanation = (
        "`vlo`, `recipe`, `status`, `batch` and `minimize` may each occur once in a file: a recipe is one objective with "
        "one signature. Several losses are terms of one `minimize { name: loss ... }` block and are added. A "
        "second recipe goes into its own file and is taken in by `use`."
    )
    bad = "minimize contrast(image, text)\nminimize contrast(text, image)\n"
    good = "minimize {\n  there: contrast(image, text)\n  back: contrast(text, image)\n}\n"


class EmptyFile(Problem):
    code = "V0129"
    template = "there is no program here"
    summary = "The file has no statement."
    explanation = (
        "The text is empty, or has nothing but comments and an edition. The smallest program is an expression "
        "alone, such as `contrast(image, text)`; it is minimised over the default fields `image` and `text`. "
        "`vlmdsl recipes` lists the bundled recipes to start from."
    )
    bad = "# a recipe will come here\n"
    good = "# the smallest recipe\ncontrast(image, text)\n"


class MinimizeMissing(Problem):
    code = "V0130"
    template = "nothing is minimised here"
    summary = "A recipe without a `minimize` statement."
    explanation = (
        "A recipe ends with what it minimises: `minimize expression`, or `minimize { name: expression ... }` for "
        "several terms. An expression alone is a whole program only if nothing else stands beside it; with a "
        "`recipe`, `let` or `use` in the file the word `minimize` is needed, and `vlmdsl check --fix` adds it "
        "where one expression stands alone. A file of `def`s only is a library: it can be used by others, but not "
        "trained."
    )
    bad = "recipe mine(image: Image, text: Text)\n\ncontrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class EmptyBlock(Problem):
    code = "V0131"
    template = "this `minimize` block has no terms"
    summary = "`minimize { }` with nothing in it."
    explanation = (
        "A `minimize` block lists at least one term, each with the name under which it is logged: `minimize { "
        "pairs: contrast(image, text) }`. Terms are separated by line breaks or commas. To switch a term off for "
        "an experiment, give it the weight 0: it is removed from the program, with the parameters that only it "
        "uses."
    )
    bad = "minimize {\n}\n"
    good = "minimize {\n  pairs: contrast(image, text)\n}\n"


class StrayExpression(Problem):
    code = "V0132"
    template = "this expression is not used for anything"
    summary = "An expression stands alone as a line of a larger file."
    explanation = (
        "An expression alone is a program, but beside other statements a line must say what is done with its "
        "expression: `let name = ...` names it, `minimize ...` minimises it. A second loss becomes a term of the "
        "`minimize { ... }` block. A line that was meant to continue the one before needs brackets around both."
    )
    bad = "minimize contrast(image, text)\n\ncontrast(text, image)\n"
    good = "minimize {\n  there: contrast(image, text)\n  back: contrast(text, image)\n}\n"


class NamelessTerm(Problem):
    code = "V0133"
    template = "this term has no name"
    summary = "A term of a `minimize` block without `name:` in front."
    explanation = (
        "Every term of a `minimize { ... }` block has a name, under which its value is logged and returned: "
        "`pairs: contrast(image, text)`. A term stands on one line unless its line breaks are inside of brackets. "
        "One term alone needs no name when it is written without braces: `minimize contrast(image, text)`. Names "
        "and terms are joined by a colon, as the equals sign is for definitions."
    )
    bad = "minimize {\n  contrast(image, text)\n}\n"
    good = "minimize {\n  pairs: contrast(image, text)\n}\n"


class BadCount(Problem):
    code = "V0134"
    template = "a count in a type is a whole number from 1"
    summary = "`Text[...]` or `Image{...}` with something else than a whole number."
    explanation = (
        "`Text[4]` is a field with four texts a sample, `Image{2}` a set of two views. The count is a plain whole "
        "number, at least 1, without a unit. It is part of the type and cannot depend on a knob: the data either "
        "has that many columns or not."
    )
    bad = "recipe mine(image: Image, text: Text[0])\n\nminimize contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"


class FieldWithoutType(Problem):
    code = "V0135"
    template = "`{name}` needs a type, or a default value"
    summary = "A parameter of a recipe that is neither a field nor a knob."
    explanation = (
        "The parameters of a `recipe` are the fields of a batch, written with their type (`image: Image`, `text: "
        "Text`), and its knobs, written with their default (`weight = 2.0`). One with neither could be either. "
        "Only the parameters of a `def` may be bare names."
    )
    bad = "recipe mine(image, text: Text)\n\nminimize contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n"
