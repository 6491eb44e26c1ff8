"""V0101 to V0111: bytes, characters, numbers and strings; nothing here knows of statements."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BadEscape", "ForeignSyntax", "MalformedNumber", "NotText", "NumberOutOfRange", "TooDeep", "TooLarge", "UnclosedString",
    "UnknownCharacter", "UnknownUnit", "WrongQuotes",
]  # fmt: skip


class NotText(Problem):
    code = "V0101"
    template = "this file is not UTF-8 text"
    summary = "The bytes of the file are not UTF-8 text."
    explanation = (
        "A recipe is a UTF-8 text file. The byte shown is not valid UTF-8, so the file was not read. Usually the path "
        "names another kind of file: an image, an archive, a checkpoint, or a text that an editor saved in an older "
        "encoding such as Latin-1 or UTF-16. Save the file as UTF-8, or check the path. A byte order mark at the start is "
        "accepted and ignored, and so are Windows line endings."
    )
    provoked_by = "a file whose bytes are not UTF-8"


class TooLarge(Problem):
    code = "V0102"
    template = "this file has {size}; the limit for a recipe is {limit}"
    summary = "The file is larger than any recipe may be."
    explanation = (
        "Recipes are downloaded and run, so every size is limited: a file of more than one million bytes, or of more than "
        "thirty thousand words, symbols and line breaks, is rejected before it is parsed. The recipes of published "
        "methods have about two thousand bytes. A file of this size is usually not a recipe, or was generated: replace "
        "copies of an expression with calls of a `def`."
    )
    provoked_by = "a file of more than a million bytes"


class TooDeep(Problem):
    code = "V0103"
    template = "this expression is nested more than {limit} levels deep"
    summary = "An expression is nested deeper than the limit."
    explanation = (
        "Brackets, calls, operators and `let ... in` may be nested a hundred levels deep in one expression; a sum of a "
        "hundred terms is nested a hundred levels deep too, as `a + b + c` means `(a + b) + c`. The limit keeps a "
        "downloaded recipe from exhausting the machine before it is checked. Name parts of the expression with `let`, or "
        "repeat a pattern with `def`: the levels of each named part are counted separately."
    )
    bad = f"minimize {'(' * 101}contrast(image, text){')' * 101}\n"
    good = "minimize (contrast(image, text))\n"


class UnknownCharacter(Problem):
    code = "V0104"
    template = "{character} has no meaning in a recipe"
    summary = "A character that the language does not use."
    explanation = (
        "Outside strings and comments a recipe consists of ASCII letters, digits, underscores, blanks and the symbols `+ "
        "- * / < > = ! ( ) [ ] { } , : . | % #` and the double quote. Names are ASCII too: write `tau` for the Greek "
        "letter. Characters pasted from a paper or a web page often only look like these: a long dash instead of a minus "
        "sign, a multiplication sign instead of `*`, a no-break space instead of a blank. The message names the character "
        "and, if there is one, its replacement."
    )
    bad = "minimize 0.5 × contrast(image, text)\n"
    good = "minimize 0.5 * contrast(image, text)\n"


class WrongQuotes(Problem):
    code = "V0105"
    template = "strings are written in straight double quotes"
    summary = "A string in single or typographic quotes."
    explanation = (
        'A string is written in straight double quotes: `cite "arXiv:2103.00020"`. Single quotes, and the curved quotes '
        "that word processors and web pages make of straight ones, are not accepted, so that there is one way to write a "
        'string. `vlmdsl check --fix` replaces them. A double quote inside a string is written `\\"`.'
    )
    bad = "recipe mine(image: Image, text: Text)\ncite 'arXiv:2103.00020'\n\nminimize contrast(image, text)\n"
    good = 'recipe mine(image: Image, text: Text)\ncite "arXiv:2103.00020"\n\nminimize contrast(image, text)\n'


class UnclosedString(Problem):
    code = "V0106"
    template = "this string has no closing quote"
    summary = "A string that is not closed on its line."
    explanation = (
        "A string ends with a double quote on the line on which it begins; it cannot continue on the next line. Add the "
        'closing quote. A double quote inside a string is written `\\"`, a line break `\\n`. A backslash just before the '
        "closing quote escapes it: write `\\\\` for a backslash."
    )
    bad = 'recipe mine(image: Image, text: Text)\ncite "arXiv:2103.00020\n\nminimize contrast(image, text)\n'
    good = 'recipe mine(image: Image, text: Text)\ncite "arXiv:2103.00020"\n\nminimize contrast(image, text)\n'


class BadEscape(Problem):
    code = "V0107"
    template = "`{escape}` is not an escape sequence"
    summary = "A backslash in a string is followed by a character that cannot be escaped."
    explanation = (
        'In a string, `\\n` is a line break, `\\t` a tab, `\\"` a double quote, `\\\\` a backslash, and `\\uXXXX` the '
        "character with that hexadecimal number. Any other character after a backslash is an error, because it is rarely "
        "intended: in a path or a LaTeX formula, double the backslashes. Non-ASCII characters need no escape in a string."
    )
    bad = 'recipe mine(image: Image, text: Text)\ncite "\\tau and \\sigma"\n\nminimize contrast(image, text)\n'
    good = 'recipe mine(image: Image, text: Text)\ncite "\\\\tau and \\\\sigma"\n\nminimize contrast(image, text)\n'


class MalformedNumber(Problem):
    code = "V0108"
    template = "`{text}` is not a valid number"
    summary = "Something that begins like a number but is not a valid one."
    explanation = (
        "A number begins with a digit: `3`, `0.07`, `1e-3`. It has digits on both sides of the decimal point, so write "
        "`0.5` for `.5` and `1.0` for `1.`. Digits cannot be grouped with underscores, and there are no hexadecimal "
        "numbers. A multiplier, a percent sign or a unit may follow: `32k`, `2M`, `15%`, `2000 steps`, `10 epochs`."
    )
    bad = "minimize .5 * contrast(image, text)\n"
    good = "minimize 0.5 * contrast(image, text)\n"


class NumberOutOfRange(Problem):
    code = "V0109"
    template = "this number cannot be represented"
    summary = "A number is too large, too small, or has too many digits."
    explanation = (
        "Numbers are 64-bit floating point. A number above about 1.8e308 would be infinite, one below about 5e-324 would "
        "be zero, and a whole number above 9007199254740992 (2 to the 53rd) would lose its last digits. None of these is "
        "what its author meant, so they are rejected rather than rounded. Write a large scale with an exponent (`1e20`), "
        "and leave out a limit instead of giving a very large number for it."
    )
    bad = "minimize 1e999 * contrast(image, text)\n"
    good = "minimize 1e3 * contrast(image, text)\n"


class UnknownUnit(Problem):
    code = "V0110"
    template = "`{unit}` is not a unit"
    summary = "A word directly after a number is not a unit."
    explanation = (
        "A number may be followed by a percent sign (`15%` is 0.15), a multiplier (`32k` is 32000, `2M` is 2000000), or a "
        "duration: `2000 steps`, `10 epochs`, directly or after one blank. Any other word after a number is an error. To "
        "multiply, write an asterisk: `2 * tau`, not `2 tau`. Separate two arguments with a comma."
    )
    bad = "minimize ramp(0, 1, over=10 parsecs) * contrast(image, text)\n"
    good = "minimize 0.5 * contrast(image, text)\n"


class ForeignSyntax(Problem):
    code = "V0111"
    template = "`{text}` is {origin}; recipes do not have it"
    summary = "A construct of Python or another language that recipes do not have."
    explanation = (
        "A recipe only states what is minimised, so it has no loops, control flow, imports, anonymous functions or "
        "assignments. Use instead: `let name = value` to name a value, `def f(a, b) = expression` for a function, "
        "`where(condition, x, y)` to choose per sample, `use name` for another recipe, `exp` and `log` for powers. "
        "Statements end with their line, so there are no semicolons. The message states which of these to use."
    )
    bad = "let square = score(image, text) ** 2\n\nminimize contrast(image, text, weight=square)\n"
    good = "let s = score(image, text)\nlet square = s * s\n\nminimize contrast(image, text, weight=square)\n"
