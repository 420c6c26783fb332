"""What a user asks of a prompt, read once: words that must stay, motions asked for or ruled out, the manner."""

import re
from dataclasses import dataclass

from vl_service.backend import Task
from vl_service.embedded.text.motions import Motion, Request, read_request


@dataclass(frozen=True, slots=True, kw_only=True)
class UserWords:
    """What the user asked of a prompt."""

    words: str
    """The user's own words where they must stay; empty where a canonical sentence says the same."""
    request: Request
    motions: tuple[Motion, ...]
    """Asked for, to say in the trained words."""
    instruction: str

    @property
    def asks_motion(self) -> bool:
        """Whether somebody asked for a motion, or for none."""
        return self.request.says_motion or bool(self.request.refused)

    @property
    def leaves_motion_open(self) -> bool:
        """Whether a motion may be chosen: none was asked for."""
        return not self.motions and not self.request.says_motion

    @property
    def wants_stillness(self) -> bool:
        """Whether nothing is to move."""
        return any(motion.name == "hold_still" for motion in self.motions)


def read_user_words(task: Task) -> UserWords:
    """The user_words in a prompt task's `user_prompt` and `instruction`."""
    words = " ".join((task.user_prompt or "").split())
    instruction = task.instruction or ""
    request = read_request(words)
    asked = request
    if not (request.says_motion or request.refused) and instruction:
        asked = read_request(instruction)  # "slow zoom out" may as well come as an instruction
    motions = asked.motions
    if words and not request.only_motion:
        # an object that moves is named in the user's own words; "the cat falls" is not said by "snow falls"
        motions = tuple(motion for motion in motions if motion.kind != "object")
    elif not motions and asked.refused:
        motions = (Motion(name="hold_still"),)  # every motion named was ruled out
    return UserWords(
        words="" if not words or request.only_motion else _as_sentence(words), request=asked, motions=motions,
        instruction=instruction,
    )


def _as_sentence(words: str) -> str:
    if words[-1] not in ".!?…。！？\"”」』'":
        words += "。" if re.search(r"[一-鿿]$", words) else "."
    return words[0].upper() + words[1:]
