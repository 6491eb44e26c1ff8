"""V02: names, and the files that `use` brings in."""

from __future__ import annotations

from vlmdsl.diagnostics.cells import controls
from vlmdsl.diagnostics.diagnostic import Diagnostic
from vlmdsl.diagnostics.problem import Problem
from vlmdsl.source import Span


class UnknownName(Problem):
    code = "V0201"
    template = "`{name}` is not defined"
    summary = "a name that nothing defines"
    explanation = (
        "A name in an expression must be a field or hyper-parameter of the signature, a `let`, `def` or `encoder` of this "
        "file, a used recipe, a function of the library in `recipes/std`, or a primitive. Names are case-sensitive. The "
        "closest existing name is suggested. `vlmdsl explain NAME` shows the page of a name."
    )
    bad = "contrast(image, text, sim=tokenmx)"
    good = "contrast(image, text, sim=tokenmax)"


class UnknownRecipe(Problem):
    code = "V0202"
    template = "there is no recipe `{name}`"
    summary = "a recipe or file that cannot be found"
    explanation = (
        '`use NAME` looks up a bundled recipe, `use "./file.vlo" as NAME` a file relative to the one with the `use`. On '
        "the command line a recipe is a bundled name, a path to a `.vlo` file, or `-e 'EXPRESSION'`. `vlmdsl recipes` "
        "lists the bundled ones. No other place is searched."
    )
    bad = "vlo 1\nrecipe mine(image: Image, text: Text)\nuse clipp\nminimize clipp(image, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nuse clip\nminimize clip(image, text)"


class CyclicUse(Problem):
    code = "V0203"
    template = "`{name}` uses itself: {chain}"
    summary = "files that use each other in a cycle"
    explanation = (
        "A recipe is expanded where it is used, so a cycle would never end. Move what both files need into a third one, "
        "and `use` it in both."
    )
    bad = (
        "# file: mine.vlo\n"
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        'use "./mine.vlo" as other\n'
        "minimize other(image, text)"
    )
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nuse clip\nminimize clip(image, text)"


class DefinedTwice(Problem):
    code = "V0204"
    template = "`{name}` is defined twice"
    summary = "two definitions of one name"
    explanation = (
        "Fields, hyper-parameters, `let`, `def`, `encoder` and `use` of one file share one namespace, so that every name "
        "is unambiguous. Rename one of the two. (The parameters of a `def` and the name of a `let ... in` may shadow.)"
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        "let tau = 0.07\n"
        "let tau = 0.1\n"
        "minimize contrast(image, text, temperature=tau)"
    )
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nlet tau = 0.1\nminimize contrast(image, text, temperature=tau)"


class Recursion(Problem):
    code = "V0205"
    template = "`{name}` calls itself: {chain}"
    summary = "a definition that refers to itself"
    explanation = (
        "Functions are expanded where they are called and `let`s are values, so neither may refer to itself, directly or "
        "through others. The language has no loops by design: evaluating a recipe always terminates. For several views of "
        "a field, use a set of views."
    )
    bad = "vlo 1\nrecipe mine(image: Image, text: Text)\ndef f(x) = f(x)\nminimize f(contrast(image, text))"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\ndef f(x) = 2 * x\nminimize f(contrast(image, text))"


class UnusedDefinition(Problem):
    code = "V0206"
    template = "`{name}` is never used"
    summary = "a definition that nothing uses"
    explanation = (
        "A `let`, `def`, `encoder` or `use` that nothing uses is often a mistake: a misspelt name elsewhere, or a "
        "leftover of an earlier version. It has no effect on the objective. Remove it, or use it."
    )
    bad = "vlo 1\nrecipe mine(image: Image, text: Text)\nlet tau = 0.1\nminimize contrast(image, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nlet tau = 0.1\nminimize contrast(image, text, temperature=tau)"
    severity = "warning"


class UseTooDeep(Problem):
    code = "V0207"
    template = "{reason}"
    summary = "too many files, or too long a chain of them"
    explanation = (
        "Recipes are downloaded and run, so every size is limited: the length of a chain of files that use each other, "
        "and their number. The limits are in `vlmdsl/source/limits.py`; the bundled recipes are far below them."
    )
    provoked_by = "a chain of more files than the limit"


class UsedFileIsWrong(Problem):
    code = "V0208"
    template = "the recipe `{name}` that is used here has errors"
    summary = "a used recipe that has errors itself"
    explanation = (
        "The file that is used here has errors, which are reported at their own places. This diagnostic only shows which "
        "file uses it."
    )
    provoked_by = "a used file with a syntax error"


class NothingMinimized(Problem):
    code = "V0209"
    template = "this recipe minimizes nothing"
    summary = "no `minimize`"
    explanation = (
        "A recipe needs one `minimize`: an expression, or named terms in braces. A file that only defines functions is "
        "a library: it can be used, but not trained."
    )
    bad = "vlo 1\nrecipe mine(image: Image, text: Text)\ndef half(x) = x / 2"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\ndef half(x) = x / 2\nminimize half(contrast(image, text))"


class UnknownHyperparameter(Problem):
    code = "V0210"
    template = "`{recipe}` has no hyper-parameter `{name}`"
    summary = "a `--param` or keyword that the recipe does not have"
    explanation = (
        "Hyper-parameters are the parameters with a default in the recipe's signature. `--param NAME=VALUE` on the "
        "command line, or a keyword of `vlmdsl.compile`, sets one. `vlmdsl explain RECIPE` lists them with their defaults."
    )
    bad = (
        "# param: epsilon=0.2\n"
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, tau = 0.07)\n"
        "minimize contrast(image, text, temperature=tau)"
    )
    good = (
        "# param: tau=0.2\n"
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, tau = 0.07)\n"
        "minimize contrast(image, text, temperature=tau)"
    )


class UnknownMember(Problem):
    code = "V0211"
    template = "{type} has no member `{name}`"
    summary = "a member that a value does not have"
    explanation = (
        "An encoded stream has `.pooled` and `.tokens`. A field is encoded by the encoder of its type when a member is "
        "accessed. Other values have no members."
    )
    bad = "contrast(image.poled, text)"
    good = "contrast(image.pooled, text)"


class UnknownBatchPolicy(Problem):
    code = "V0212"
    template = "there is no batch policy `{name}`"
    summary = "a `batch` statement with an unknown policy"
    explanation = (
        "`batch` states which samples may be together in a batch, where that is part of the method. `mixed`, the default, "
        "draws them from all data. `one_source` fills each batch from one source, such as one of several `--data` "
        "specifications, so that the negatives of a sample come from its own source (ZeroVL's debiased sampling). The "
        "batch size is not part of the recipe: set it with `--set train.batch=...`."
    )
    bad = "vlo 1\nrecipe mine(image: Image, text: Text)\nbatch one_sorce\nminimize contrast(image, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nbatch one_source\nminimize contrast(image, text)"


class InputNameTwice(Problem):
    code = "V0213"
    template = "two inputs of the objective would be called `{name}`"
    summary = "a field or a draw with the name of another input"
    explanation = (
        "Every input of an objective is named after what it is: the pooled features of a stream have its name, its tokens "
        "are `NAME_tokens` with the padding mask `NAME_mask`, and the logits and labels of a masked text are "
        "`NAME_vocabulary` and `NAME_targets`; a label, flag or number, and a draw, has the name that the recipe gives "
        "it. Rename a field that has one of those names; `--map NEW=column` reads the same column."
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, text_mask: Flag)\n"
        "minimize contrast(image, text, sim=tokenmax, keep=text_mask)"
    )
    good = (
        "vlo 1\nrecipe mine(image: Image, text: Text, valid: Flag)\nminimize contrast(image, text, sim=tokenmax, keep=valid)"
    )


class ControlInPath(Problem):
    code = "V0214"
    template = "the path `{path}` contains {characters}, which a path in a recipe may not"
    summary = "a path with control characters"
    explanation = (
        "Line ends and other control characters, halves of surrogate pairs, and characters that turn the direction of "
        "writing make a path look like another one wherever it is displayed. Such a file is not read, even if it exists. "
        "Rename it."
    )
    bad = 'vlo 1\nrecipe mine(image: Image, text: Text)\nuse "./other.vlo\\n" as other\nminimize other(image, text)'
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nuse clip\nminimize clip(image, text)"

    @classmethod
    def of(cls, path: str, span: Span) -> Diagnostic | None:
        """The diagnostic of a path that is named at `span`; None for one that holds no such character."""
        strange = ", ".join(dict.fromkeys(f"U+{ord(character):04X}" for character in controls(path)))
        return cls.at(span, help=("rename the file",), path=path, characters=strange) if strange else None


class ReservedInput(Problem):
    code = "V0215"
    template = "a field cannot be called `{name}`"
    summary = "a field whose name Python reserves"
    explanation = (
        "The fields of a recipe become keywords of the compiled objective: `objective(image=..., text=...)`. `self` is "
        "not available: it is the objective. Give the field another name; `--map FIELD=self` still reads the column "
        "`self`."
    )
    bad = "vlo 1\nrecipe mine(self: Image, text: Text)\nminimize contrast(self, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nminimize contrast(image, text)"


class UnfitPlugin(Problem):
    code = "V0216"
    template = "the primitive `{name}` of {origin} {problem}"
    summary = "a function that cannot be a primitive"
    explanation = (
        "`@vlmdsl.primitive` makes a function of a plug-in a word of the language: a similarity, a criterion, a target, a "
        "mask or a module. Each kind has a form: the positional parameters are what it is computed from, keyword-only "
        "parameters have an annotation and a default, and the first line of the docstring is displayed to users. What a "
        "function returns is tried on a few random samples when a recipe that uses it is compiled. "
        "`help(vlmdsl.primitive)` describes the kinds. If the plug-in is not yours, tell its authors."
    )
    provoked_by = "a criterion of a plug-in that returns one number instead of one per sample"
