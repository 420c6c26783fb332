"""Every family; a new one is a line here."""

from video_service.families.anyflow import AnyFlow
from video_service.families.base import Family
from video_service.families.fastwan import FastWan21
from video_service.families.i2vgen_xl import I2VGenXL
from video_service.families.turbowan import TurboWan21, TurboWan22
from video_service.families.wan.wan21 import Wan21
from video_service.families.wan.wan21_flf2v import Wan21FLF2V
from video_service.families.wan.wan22_a14b import Wan22A14B
from video_service.families.wan.wan22_ti2v import Wan22TI2V
from video_service.weights.checkpoint import CheckpointFiles
from web.worker.errors import ModelUnavailable

FAMILIES: list[Family] = [
    TurboWan21(), TurboWan22(), FastWan21(), Wan21FLF2V(), Wan21(), Wan22A14B(), Wan22TI2V(), AnyFlow(),
    I2VGenXL(),
]


def family_of(files: CheckpointFiles) -> Family:
    """The family that the checkpoint is of; raises `ModelUnavailable` where none claims it."""
    for family in FAMILIES:
        if family.claims(files):
            return family
    kind = files.find_json("model_index.json").get("_class_name", "model of unknown kind")
    raise ModelUnavailable(
        f"{files.name} is a {kind}; this service renders checkpoints of {', '.join(f.name for f in FAMILIES)}. "
        "Set VIDEO_MODEL to one of those, in the layout in which it is published."
    )
