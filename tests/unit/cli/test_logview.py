"""What the children say stays readable on a terminal and parseable elsewhere."""

import io
import json

from rich.console import Console

from gateway.cli.serving.logview import json_sink, readable_sink

RECORD = json.dumps({
    "time": "2026-01-02T03:04:05.678+00:00", "level": "WARNING", "service": "video_service", "logger": "x",
    "message": "worker lost [bold]", "reason": "killed",
})


def test_a_json_line_is_shown_as_time_level_words_and_fields_and_its_brackets_are_no_markup() -> None:
    stream = io.StringIO()
    readable_sink(Console(file=stream, width=200))("video", RECORD)
    assert stream.getvalue() == "video       03:04:05 WARNING worker lost [bold] reason=killed\n"


def test_a_line_that_is_no_json_is_kept_word_for_word() -> None:
    stream = io.StringIO()
    write = readable_sink(Console(file=stream, width=20))
    for line in ("Loading weights: 100% and a long tail", '{"half": ', "{}"):
        write("video", line)
    assert [line[12:] for line in stream.getvalue().splitlines()] == [
        "Loading weights: 100% and a long tail", '{"half": ', "{}",
    ]


def test_for_a_collector_every_line_is_one_json_object_that_names_its_service() -> None:
    stream = io.StringIO()
    write = json_sink(stream)
    write("video", RECORD)
    write("vl", "plain words")
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert records[0]["message"] == "worker lost [bold]"
    assert records[1] == {"service": "vl", "message": "plain words"}
