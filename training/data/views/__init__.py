"""Views: crops and distortions of one sample, split into what chance decided (plans) and the pixels made from it.

A plan is drawn with NumPy from the generator of a sample's position, ``V`` views of one kind together. From equal plans
:mod:`.flat` and :mod:`.solid` make pixels with NumPy, SciPy and Pillow in loader threads; :mod:`.flat_torch` and
:mod:`.solid_torch` make them for a whole batch on the device.

The tables are PCRLv2's (RL4M/PCRLv2: data.py, utils.py, luna_preprocess.py, datasets/lunaDataset.py); what we changed is
said where it is. Pixels are float32 in unit range, (H, W) or (D, H, W).
"""

from __future__ import annotations

from crossdim.training.data.views.flat import crop_resized
from crossdim.training.data.views.source import Floats, image_of, normalised

__all__ = ["Floats", "crop_resized", "image_of", "normalised"]
