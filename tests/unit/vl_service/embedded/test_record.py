"""The record that the decoder says is read as it was meant, also where it is spelt or broken off."""

import pytest

from vl_service.embedded.model.record import Record, read_record

WHOLE = ("<sure> tabby cat <kind> animal <count> 3 <colour> dark brown <place> top left <size> small "
         "<setting> under water <end>")


def read(text: str) -> Record:
    return read_record(text.split(), 0.8)


def test_every_field_is_read() -> None:
    assert read(WHOLE) == Record(
        sureness="sure", name="tabby cat", kind="animal", count=3, colour="dark brown", level="top", side="left",
        size="small", setting="under water", confidence=0.8)


def test_words_that_are_spelt_are_words() -> None:
    record = read("<unsure> <kind> <spell> u n k n o w n </spell> <count> 1 <colour> <spell> u n k n o w n </spell>")
    assert (record.kind, record.colour) == ("", "")
    assert read("<sure> big <spell> o x </spell> cart <kind> <spell> c a r t </spell> <end>").name == "big ox cart"


def test_an_unsure_record_has_no_name() -> None:
    assert read("<unsure> cat <kind> animal <end>").name == ""


@pytest.mark.parametrize("length", range(1, len(WHOLE.split())))
def test_a_record_that_breaks_off_is_read_as_far_as_it_goes(length: int) -> None:
    record = read_record(WHOLE.split()[:length], 0.8)
    assert record.count in (1, 3)
    assert record.level in ("top", "middle")
    assert record.side in ("left", "centre")
