"""Views: crops and distortions of one sample, in two parts: the random decisions (plans) and the pixels rendered from them.

A plan is drawn with NumPy from the generator of the sample's position, for ``V`` views of one kind together. From the same plans,
:mod:`.views_2d` and :mod:`.views_3d` render pixels with NumPy, SciPy and Pillow in loader threads; :mod:`.views_2d_torch` and
:mod:`.views_3d_torch` render them for a whole batch on the device.

The parameters are PCRLv2's (RL4M/PCRLv2: data.py, utils.py, luna_preprocess.py, datasets/lunaDataset.py); our changes are stated
where they are made. Pixels are float32 in unit range, (H, W) or (D, H, W).
"""

from __future__ import annotations

from crossdim.training.data.views.source import Floats, image_of, normalise
from crossdim.training.data.views.views_2d import random_resized_crop

__all__ = ["Floats", "image_of", "normalise", "random_resized_crop"]
