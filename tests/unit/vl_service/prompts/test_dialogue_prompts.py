"""The prompt that a dialogue led to: filled in field by field where the model can, said by rules."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from contracts.chat import ChatOptions, TextPart, Turn
from contracts.models import VLModelInfo
from vl_service.backend import CannotReplyError, ChatWork, Deadline, Description, Piece, Pieces
from vl_service.worker.dialogue import reply

SHOT = {"subject": "a ginger cat", "motions": ["turns its head slowly", "blinks"], "secondary_motion": [],
        "light": "dusk", "camera": "fast zoom in", "avoid": ["people"]}
TEXT = "A ginger cat turns its head slowly, then blinks. Dusk. The camera stays fixed."


class Said:
    """A backend that says what it is told to, in two pieces each."""

    concurrent = False
    info = VLModelInfo(id="said", revision="1", engine="test", dtype="none", tasks=[], languages=[], profiles=[])

    def __init__(self, *texts: str | None) -> None:
        """None: what it is asked for it cannot say."""
        self.texts, self.asked = list(texts), list[ChatOptions]()

    def describe(self, picture: Any, tasks: Any, deadline: Deadline) -> Description:
        raise NotImplementedError

    def chat(
        self, turns: Sequence[Turn], images: Sequence[Any], options: ChatOptions, deadline: Deadline
    ) -> Pieces:
        self.asked.append(options)
        text = self.texts.pop(0)
        if text is None:
            raise CannotReplyError("no JSON")
        half = len(text) // 2
        yield Piece(text=text[:half], prompt_tokens=5, completion_tokens=3)
        yield Piece(text=text[half:], prompt_tokens=5, completion_tokens=6, finish="stop")


def replied(backend: Said, *wishes: str, profile: str = "wan2.2") -> tuple[str, list[str], int]:
    """The prompt, the pieces that were told, and the tokens that it cost."""
    turns = tuple(Turn(role="user", content=(TextPart(text=wish),)) for wish in wishes)
    work = ChatWork(turns=turns, options=ChatOptions(kind="prompt", profile=profile), images=(), due=0.0)
    told: list[str] = []
    end = reply(backend, work, Deadline(at=time.monotonic() + 60), told.append).end
    return end.text, told, end.completion_tokens


@pytest.mark.parametrize(("said", "text", "pieces", "cost"), [
    pytest.param([json.dumps(SHOT)], "A ginger cat turns its head slowly, then blinks. Dusk.", 1, 6, id="at once"),
    pytest.param(["{}", json.dumps(SHOT)], "A ginger cat turns its head slowly, then blinks. Dusk.", 1, 12, id="again"),
    pytest.param(["{}", "no", TEXT], TEXT, 2, 18, id="text after two tries"),
    pytest.param([None, TEXT], TEXT, 2, 6, id="text where JSON cannot be had"),
])
def test_a_prompt_is_filled_in_or_else_written(
    said: list[str | None], text: str, pieces: int, cost: int
) -> None:
    backend = Said(*said)
    found, told, tokens = replied(backend, "Bring it to life", "slower, and dusk")
    assert (found, len(told), tokens) == (text, pieces, cost)
    assert "".join(told) == text, "what is no prompt yet is told to nobody"
    assert not backend.texts
    assert (backend.asked[-1].json_schema is None) == (pieces == 2)


@pytest.mark.parametrize(("wishes", "camera"), [
    (["Bring it to life"], False), (["The camera pans left.", "slower"], "pans left"),
    (["The camera pans left.", "No: the camera zooms in."], "zooms in"), (["A fast cat", "Zoom in fast"], "zoom in")])
def test_the_camera_moves_as_was_wished_last_or_not_at_all(wishes: list[str], camera: str | bool) -> None:
    text, _, _ = replied(Said(json.dumps(SHOT | {"camera": "" if camera else "slow pan"})), *wishes)
    assert (camera.lower() in text.lower()) if isinstance(camera, str) else "pan" not in text.replace("camera", "")


def test_a_profile_without_fields_is_written_as_text() -> None:
    backend = Said(TEXT)
    _, told, cost = replied(backend, "Bring it to life", profile="embedded")
    assert ("".join(told), len(told), cost) == (TEXT, 2, 6)
    assert backend.asked[0].json_schema is None
