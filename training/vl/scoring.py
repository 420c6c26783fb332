"""How much of the decoder's records is right on pictures with known facts."""

import torch
from torch import Tensor

from training.vl.gather import Gallery
from training.vl.implants import Implants, image_tokens
from training.vl.texts.sight import Sight, record_of
from vl_service.embedded.model.decoder import Decoder
from vl_service.embedded.model.tokens import Tokenizer


@torch.inference_mode()
def records(
    model: Decoder, gallery: Gallery, implants: Implants, weight_KC: Tensor, pictures: Tensor, tokenizer: Tokenizer
) -> list[list[str]]:
    """The records that the decoder says of pictures, greedily, as pieces."""
    model.eval()
    said: list[list[str]] = []
    for some in pictures.split(128):
        image = image_tokens(gallery, implants, weight_KC, some, torch.full_like(some, -1))
        prefix = model.prefix(image)
        hidden, cache = model.hidden(prefix, None)
        token, tokens = model.logits(hidden[:, -1]).argmax(-1), []
        for place in range(28):
            tokens.append(token)
            states = model.embed(token[:, None], torch.full_like(token[:, None], place))
            hidden, cache = model.hidden(states, None, cache)
            token = model.logits(hidden[:, -1]).argmax(-1)
        said += [[tokenizer.pieces[number] for number in row] for row in torch.stack(tokens, 1).tolist()]
    return said


def score(said: list[list[str]], sights: list[Sight]) -> dict[str, float]:
    """Shares of pictures whose record has the right name, kind, number, colour, place and setting."""

    def field(record: list[str], start: str) -> list[str]:
        if start not in record:
            return []
        rest = record[record.index(start) + 1 :]
        return rest[: next((number for number, piece in enumerate(rest) if piece.startswith("<")), len(rest))]

    found: dict[str, list[bool]] = {}
    for pieces, sight in zip(said, sights, strict=True):
        wanted = record_of(sight)
        found.setdefault("subject", []).append(pieces[: wanted.index("<kind>")] == wanted[: wanted.index("<kind>")])
        for name in ("kind", "count", "colour", "place", "setting"):
            found.setdefault(name, []).append(field(pieces, f"<{name}>") == field(wanted, f"<{name}>"))
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}
