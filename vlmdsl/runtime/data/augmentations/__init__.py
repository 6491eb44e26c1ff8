"""Random augmentations of one image, drawn from a given generator; `vlmdsl.primitives.pipelines` says which there are."""

from vlmdsl.runtime.data.augmentations.crops import crop_box, cropped
from vlmdsl.runtime.data.augmentations.places import Place
from vlmdsl.runtime.data.augmentations.run import augmented, augmented_at

__all__ = ["Place", "augmented", "augmented_at", "crop_box", "cropped"]
