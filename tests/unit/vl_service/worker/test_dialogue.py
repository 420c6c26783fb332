"""A reply is cut where a stop begins."""

import pytest

from vl_service.backend import Piece
from vl_service.worker.dialogue import until_stop


@pytest.mark.parametrize(("stops", "said", "finish"), [
    (("c de",), "ab ", "stop"), (("x",), "ab c def", "length"), (("def", "b c"), "a", "stop"),
    (("zz", "f"), "ab c de", "stop"), (("defg",), "ab c def", "length"), ((), "ab c def", "length"),
])
def test_a_reply_ends_before_the_first_stop_however_it_is_cut_in_pieces(
    stops: tuple[str, ...], said: str, finish: str
) -> None:
    for cuts in (["ab c def"], list("ab c def"), ["ab c", " def"], ["ab ", "c d", "ef"]):
        pieces = [Piece(text=cut, prompt_tokens=1, completion_tokens=1) for cut in cuts]
        told = list(until_stop(iter([*pieces, Piece(prompt_tokens=1, completion_tokens=1, finish="length")]), stops))
        assert "".join(piece.text for piece in told) == said
        assert told[-1].finish == finish
