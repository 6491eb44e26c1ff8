"""V04: arguments and their values."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class UnknownArgument(Problem):
    code = "V0401"
    template = "`{function}` has no argument `{argument}`"
    summary = "an argument that the function does not have"
    explanation = (
        "Unknown arguments are never ignored. `vlmdsl explain NAME` lists the arguments of a function. The closest one is "
        "suggested."
    )
    bad = "contrast(image, text, temprature=0.1)"
    good = "contrast(image, text, temperature=0.1)"


class MissingArgument(Problem):
    code = "V0402"
    template = "`{function}` is missing the argument `{argument}`"
    summary = "a call without an argument that has no default"
    explanation = (
        "Arguments without a default must be given. Only in a program that is a single expression, without a signature, "
        "do the fields `image` and `text` fill in the missing subjects of a criterion."
    )
    bad = "minimize mean(cross_entropy(similarity(image, text), targets=paired))"
    good = 'minimize mean(cross_entropy(similarity(image, text), targets=paired, along="rows"))'


class TooManyPositional(Problem):
    code = "V0403"
    template = "`{function}` takes {limit} positional argument(s), but more were given"
    summary = "too many positional arguments"
    explanation = (
        "Only the subjects of a call are positional; everything else is given by name, so that a recipe can be read "
        "without the manual."
    )
    bad = "contrast(image, text, cosine)"
    good = "contrast(image, text, sim=cosine)"


class ArgumentTwice(Problem):
    code = "V0404"
    template = "`{argument}` of `{function}` is given twice"
    summary = "an argument given by position and by name"
    explanation = "An argument may be given once: by its position, or by its name."
    bad = "contrast(image, text, a=image)"
    good = "contrast(image, text)"


class BadValue(Problem):
    code = "V0405"
    template = "`{argument}` of `{function}`: {reason}"
    summary = "a value that an argument does not accept"
    explanation = (
        "Each argument has a type and a range: an integer, a number in [0, 1], one of several strings. The page of the "
        "function lists them."
    )
    bad = "contrast(image, rewrite(text, M=0))"
    good = "contrast(image, rewrite(text, M=4))"


class NotOneOf(Problem):
    code = "V0406"
    template = "{value} is not one of {choices}"
    summary = "an option that does not exist"
    explanation = "Options of the library are quoted strings from a short list; the message lists them."
    bad = 'contrast(image, text, directions="row")'
    good = 'contrast(image, text, directions="rows")'


class BoundsDisagree(Problem):
    code = "V0407"
    template = "impossible bounds: {reason}"
    summary = "an initial value or bound that is impossible"
    explanation = (
        "`learned(0.07, max_scale=100)` keeps the log of the inverse temperature and bounds the inverse temperature "
        'itself, by `max_scale` and `min_scale`; `learned(1, form="direct")` keeps the number, bounded by `lower` and '
        "`upper`. The initial value must lie within the bounds. A temperature is greater than 0."
    )
    bad = "contrast(image, text, temperature=learned(0.001, max_scale=100))"
    good = "contrast(image, text, temperature=learned(0.07, max_scale=100))"


class NotStatic(Problem):
    code = "V0408"
    template = "`{argument}` of `{function}` must be a constant, not {found}"
    summary = "a computed value where a constant is expected"
    explanation = (
        "Counts, options and structural numbers shape the graph, so they must be known when the recipe is compiled: "
        "literals, hyper-parameters or arithmetic on these, but nothing that depends on the batch or is learned."
    )
    bad = "contrast(image, normalize(text, epsilon=learned(0.1)))"
    good = "contrast(image, normalize(text, epsilon=0.1))"


class HyperparameterValue(Problem):
    code = "V0409"
    template = "hyper-parameter `{name}`: {reason}"
    summary = "a hyper-parameter whose value has another type than its default"
    explanation = (
        "The value of a hyper-parameter has the type of its default: a number or a string. `50%` and `32k` are numbers."
    )
    bad = (
        "# param: tau=warm\n"
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, tau = 0.07)\n"
        "minimize contrast(image, text, temperature=tau)"
    )
    good = (
        "# param: tau=0.1\n"
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, tau = 0.07)\n"
        "minimize contrast(image, text, temperature=tau)"
    )


class DivisionByZero(Problem):
    code = "V0410"
    template = "division by zero"
    summary = "a number divided by zero"
    explanation = "The divisor is a constant, and it is 0. A temperature must be greater than 0."
    bad = "contrast(image, text, temperature=0)"
    good = "contrast(image, text, temperature=0.07)"


class NotANumber(Problem):
    code = "V0411"
    template = "this number is not finite: {reason}"
    summary = "constant arithmetic that overflows"
    explanation = "Constants are computed in double precision when the recipe is compiled, and this one exceeds its range."
    bad = "(1e308 * 10) * contrast(image, text)"
    good = "10 * contrast(image, text)"


class DurationWhereNumber(Problem):
    code = "V0412"
    template = "a plain number is expected here, not a number of {unit}"
    summary = "`steps` or `epochs` behind a number"
    explanation = (
        "A number may have the unit `steps` or `epochs` in the arguments `over` and `after` of a schedule, as in `ramp(0, "
        "1, over=2 epochs)`; everywhere else a plain number is expected. How long a run is belongs to its configuration: "
        "`--steps 1000`, `--set schedule.warmup_steps=100`. Remove the unit if a number was meant."
    )
    bad = "contrast(image, text, temperature=10 steps)"
    good = "contrast(image, text, temperature=10)"


class NotATemperature(Problem):
    code = "V0413"
    template = "similarities are divided by {value:g}{start}, but a temperature must be {least}"
    summary = "a temperature of zero or less"
    explanation = (
        "A number that similarities are divided by is a temperature: it cannot be 0, and with a negative one the least "
        "similar candidate would win. A learned one stays positive because the log of its inverse is stored, "
        '`learned(0.07)`; with `form="direct"` it needs an initial value and a `lower` bound above 0. To invert a '
        "similarity, multiply it by a negative number."
    )
    bad = 'contrast(image, text, temperature=learned(0, form="direct"))'
    good = 'contrast(image, text, temperature=learned(0.07, form="direct", lower=0.01))'


class NotKeptPerSample(Problem):
    code = "V0414"
    template = "`{function}` needs numbers that are kept for all samples of the data set"
    summary = "a score of this batch only, where one of all samples is needed"
    explanation = (
        "A mixture is fitted after every epoch to a number per sample of the data set, so these numbers must outlive "
        'the step. `running_mean(score, per="sample", momentum=0)` keeps the latest score of each sample, and with another '
        "momentum a mean of its scores. Pass that, not something computed from it."
    )
    bad = "contrast(image, text, weight=mixture(score(image, text)))"
    good = 'contrast(image, text, weight=mixture(running_mean(score(image, text), per="sample", momentum=0), start=1))'
