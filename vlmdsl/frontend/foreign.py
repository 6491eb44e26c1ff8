"""Names in papers and other libraries for things with another name here."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "NAMES", "known_elsewhere"]

NAMES = {
    **dict.fromkeys(("infonce", "nce", "clip_loss", "cliploss", "itc", "contrastive", "contrastive_loss"), "`contrast`"),
    **dict.fromkeys(("ntxent", "nt_xent_loss", "simclr_loss"), "`nt_xent`"),
    **dict.fromkeys(("siglip_loss", "sigmoid", "bce"), "`sigmoid_contrast`"),
    **dict.fromkeys(("triplet", "triplet_loss", "margin_loss", "ranking_loss", "vse"), "`hinge`"),
    **dict.fromkeys(("mse", "l2"), "`regress`"),
    "mae": "",
    **dict.fromkeys(("ce", "crossentropy", "softmax_cross_entropy"), "`cross_entropy`"),
    **dict.fromkeys(("kl_div", "kldiv", "kullback_leibler"), "`kl`"),
    **dict.fromkeys(("label_smoothing", "smoothing"), "`smooth(paired, epsilon=0.1)`, as `targets` of `contrast`"),
    **dict.fromkeys(("detach", "stopgrad", "stop_gradient", "sg"), "`stop`"),
    **dict.fromkeys(("l2_normalize", "l2norm", "normalise"), "`normalize`"),
    **dict.fromkeys(("momentum_encoder", "teacher", "momentum"), "`ema`"),
    **dict.fromkeys(("memory_bank", "memorybank", "bank"), "`queue`"),
    **dict.fromkeys(("projector", "projection", "mlp"), "`project`"),
    **dict.fromkeys(("predictor",), "`predict`"),
    **dict.fromkeys(("sinkhorn", "optimal_transport"), "`transport`"),
    **dict.fromkeys(("maxsim", "late_interaction"), "`tokenmax`"),
    **dict.fromkeys(("cos", "cosine_similarity", "cos_sim"), "`cosine`"),
    **dict.fromkeys(("sum_over", "avg", "average"), "`mean`"),
    **dict.fromkeys(("caption", "captions", "txt", "sentence"), "`text`"),
    **dict.fromkeys(("img", "images", "picture", "pixels"), "`image`"),
}
"""Lower-case names of losses, operations and fields -> the equivalent here; "" if there is none."""

ARGUMENTS = {
    **dict.fromkeys(("tau", "t", "temp", "logit_scale", "scale", "sigma"), "temperature"),
    **dict.fromkeys(("similarity", "metric", "distance", "similarity_fn"), "sim"),
    **dict.fromkeys(("label_smoothing", "labels", "target", "label", "smoothing"), "targets"),
    **dict.fromkeys(("weights", "w", "sample_weight"), "weight"),
    **dict.fromkeys(("mask", "valid", "ignore"), "keep"),
    **dict.fromkeys(("queue_size", "length", "capacity"), "size"),
    **dict.fromkeys(("n_views", "num_views", "views"), "n"),
    **dict.fromkeys(("dim", "out_dim", "output_dim", "d"), "out"),
    **dict.fromkeys(("hidden_dim", "hidden_size"), "hidden"),
    **dict.fromkeys(("m", "ema", "beta"), "momentum"),
    **dict.fromkeys(("eps", "alpha"), "epsilon"),
    **dict.fromkeys(("reduction",), "combine"),
}
"""Names of arguments in other libraries -> names here."""

_HOW = {"label_smoothing": "targets=smooth(paired, epsilon=0.1)", "smoothing": "targets=smooth(paired, epsilon=0.1)"}


def known_elsewhere(argument: str, names: list[str]) -> str:
    """The help for an argument with another name here, among the `names` of a function's arguments; "" for any other."""
    own = ARGUMENTS.get(argument.lower())
    if own is None or own not in names:
        return ""
    return f"write `{_HOW.get(argument.lower(), f'{own}=...')}`"
