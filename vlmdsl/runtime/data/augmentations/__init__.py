"""Random augmentations of one image, drawn from a given generator; `vlmdsl.primitives.pipelines` says which there are."""

from vlmdsl.runtime.data.augmentations.crops import crop_box, cropped
from vlmdsl.runtime.data.augmentations.run import augmented

__all__ = ["augmented", "crop_box", "cropped"]
