"""A codebook: images to codes, the entries that a masked image model predicts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmdsl.backends.torch.ops import pixels
from vlmdsl.backends.torch.search import load_faiss
from vlmdsl.ir.modules import CodebookSettings

__all__ = ["Codebook"]

_ROUNDS = 25
"""Of k-means: faiss's own default."""
_AT_ONCE = 1 << 24
"""Distances that are held at one time."""


class Codebook(nn.Module):
    """The number of the nearest centre to each patch of an image: codes `[b, P]`, row by row.

    The centres `[V, 3 patch^2]` are those of k-means on the patches of the data (`fit`), or a file's (`load`); they never
    learn.
    """

    centres: Tensor
    ready: Tensor

    def __init__(self, settings: CodebookSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("centres", torch.zeros(settings.size, 3 * settings.patch**2))
        self.register_buffer("ready", torch.tensor(False))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Codes `int64 [b, P]` of images `[b, 3, H, W]`; of equally near centres the first. RuntimeError before there are
        any."""
        if not self.ready.is_meta and not self.ready:
            raise RuntimeError("this codebook has no centres yet: fit it, or load them")
        patches = self._patches(images)
        lengths = self.centres.square().sum(dim=1)
        at_once = max(1, _AT_ONCE // len(self.centres))
        codes = [(lengths - 2 * part @ self.centres.T).argmin(dim=1) for part in patches.flatten(0, 1).split(at_once)]
        return torch.cat(codes).view(patches.shape[:2])

    @torch.no_grad()
    def fit(self, images: Iterable[Tensor], *, seed: int = 0, patches_per_centre: int = 64) -> None:
        """Centres by faiss's k-means on the first `size * patches_per_centre` patches of batches of images `[b, 3, H, W]`.

        ValueError where there are fewer patches than centres; `DiagnosticError` (V0901) without faiss.
        """
        faiss = load_faiss("a codebook that is fitted", "load the centres from a file")
        size, enough, parts, count = self.settings.size, self.settings.size * patches_per_centre, [], 0
        for batch in images:
            parts.append(self._patches(batch).flatten(0, 1).float().cpu())
            count += len(parts[-1])
            if count >= enough:
                break
        if count < size:
            raise ValueError(f"a codebook of {size} centres needs at least as many patches, and there are {count}")
        points = torch.cat(parts)[:enough]
        clustering = faiss.Kmeans(
            points.shape[1], size, niter=_ROUNDS, seed=seed, min_points_per_centroid=1,
            max_points_per_centroid=patches_per_centre,
        )  # fmt: skip
        clustering.train(points.numpy())
        self._take(torch.from_numpy(clustering.centroids))

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Centres from the tensor `centres` of a safetensors file; ValueError where it is not one, or of another shape.

        Files that a pickle is in are not read: loading one can run code.
        """
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        try:
            centres = load_file(path).get("centres")
        except (OSError, SafetensorError) as fault:
            raise ValueError(f"{path} is not a safetensors file: {fault}") from None
        if centres is None or centres.shape != self.centres.shape:
            shape = "no tensor `centres`" if centres is None else f"centres {list(centres.shape)}"
            raise ValueError(f"{path} has {shape}; this codebook has centres {list(self.centres.shape)}")
        if not centres.is_floating_point() or not bool(centres.isfinite().all()):
            raise ValueError(f"{path} has centres that are not finite numbers")
        self._take(centres)

    def _patches(self, images: Tensor) -> Tensor:
        return pixels(images, self.settings.patch, normalised=self.settings.normalised).to(self.centres.dtype)

    def _take(self, centres: Tensor) -> None:
        self.centres.copy_(centres)
        self.ready.fill_(True)
