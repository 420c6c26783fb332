"""What a whole run's modules import, imported at a lower price."""

import gc
import importlib
from contextlib import suppress

import coverage

from tests.uncounted import uncounted

_LIBRARIES = (
    "torch", "diffusers.pipelines.wan.pipeline_wan_i2v", "diffusers.models.unets.unet_i2vgen_xl", "onnxscript",
    "onnxruntime", "transformers.models.umt5.modeling_umt5", "scipy.ndimage", "skimage.data", "sqlalchemy.orm",
    "openai", "av", "cv2",
)


def import_uncounted() -> None:
    """Import the libraries of a run whose lines are counted, with the counting paused: their own lines are not.

    A run that is not counted imports what its tests need.
    """
    if coverage.Coverage.current() is not None:
        for name in _LIBRARIES:
            with suppress(ImportError):
                uncounted(importlib.import_module)(name)


def collect_garbage_seldom() -> None:
    """After collection: what was imported stays, so it is never looked through again, and the rest seldom.

    Looking through a million objects took a sixth of the time of imports and a fifth of that of exports.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
