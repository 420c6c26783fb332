"""Pictures with known content, and tasks."""

import numpy as np
from PIL import Image

from contracts.describe import Language, TaskKind
from vl_service.backend import Task
from vl_service.prompts.profiles import profile_named


def plain(width: int = 192, height: int = 128, colour: tuple[int, int, int] = (120, 90, 60)) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (width, height), colour)


def landscape(width: int = 240, height: int = 160, horizon: float = 0.5) -> Image.Image:
    """Blue sky over green land with a level horizon."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    row = round(height * horizon)
    pixels[:row] = (120, 180, 235)
    pixels[row:] = (60, 120, 50)
    return Image.fromarray(pixels)


def prompt_task(
    user_prompt: str | None = None, *, language: Language = "en", profile: str = "embedded", seed: int = 0,
    instruction: str | None = None, kind: TaskKind = "prompt", max_new_tokens: int = 256, question: str | None = None,
    template: str | None = None,
) -> Task:
    """A task as `resolve_tasks` would make it."""
    style = profile_named(profile)
    return Task(kind=kind, language=style.language_for(language) if kind == "prompt" else language, profile=style,
                seed=seed, max_new_tokens=max_new_tokens, user_prompt=user_prompt, instruction=instruction,
                question=question, template=template)
