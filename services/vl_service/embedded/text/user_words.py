"""What a user asks of a prompt, read once: words that must stay, motions asked for or ruled out, the manner."""

import unicodedata
from dataclasses import dataclass, replace

from vl_service.backend import Task
from vl_service.embedded.text.languages import Knows, is_unread
from vl_service.embedded.text.motions import Motion, Request, read_request


@dataclass(frozen=True, slots=True, kw_only=True)
class UserWords:
    """What the user asked of a prompt."""

    words: str
    """The user's own words, to the letter, where they must stay; empty where a canonical sentence says the same."""
    unread: bool
    """Whether they are in a language that the model does not know: nobody knows what they ask for."""
    request: Request
    motions: tuple[Motion, ...]
    """Asked for, to say in the trained words."""
    instruction: str
    template: str
    """Its words, to the letter, where they are to be said: the user asked for no motion of the vocabulary, and they for
    no camera move of it."""

    @property
    def asks_motion(self) -> bool:
        """Whether somebody asked for a motion, or for none, or may have."""
        return self.request.says_motion or bool(self.request.refused or self.template) or self.unread

    @property
    def leaves_motion_open(self) -> bool:
        """Whether a motion may be chosen: none was asked for."""
        return not (self.motions or self.request.says_motion or self.template or self.unread)

    @property
    def wants_stillness(self) -> bool:
        """Whether nothing is to move."""
        return any(motion.name == "hold_still" for motion in self.motions)


def read_user_words(task: Task, knows: Knows) -> UserWords:
    """What a prompt task's `user_prompt`, `instruction` and `template` ask for."""
    words = (task.user_prompt or "").strip()
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
    template = "" if motions else (task.template or "").strip()
    if moves := _camera_moves(template):
        motions, template = tuple(move for move in moves if move.name not in asked.refused), ""
        asked = replace(asked, motions=motions, says_motion=asked.says_motion or bool(motions))
    own = "" if request.only_motion else words
    return UserWords(
        words=own, unread=is_unread(own, knows), request=asked, motions=motions, instruction=instruction,
        template=template)


def _camera_moves(template: str) -> tuple[Motion, ...]:
    """Those that the template asks for; "the camera stays fixed" is said beside what else is to move."""
    return tuple(motion for motion in read_request(template).motions
                 if motion.kind == "camera" and motion.name != "hold_still")


def as_sentence(words: str) -> str:
    """The words to the letter, with a full stop behind them where they end in a letter, a digit or a bracket."""
    last = unicodedata.category(words[-1]) if words else ""
    if last[:1] not in ("L", "N", "M") and last != "Pe":
        return words
    return words + ("。" if unicodedata.name(words[-1], "").startswith(("CJK", "HIRAGANA", "KATAKANA")) else ".")
