"""How long an engine takes for a picture, on as many threads as it runs on."""

import statistics
import time

from training.evaluation.bars import Row, not_run
from training.evaluation.vl.pictures import Shown
from training.evaluation.vl.tasks import DEADLINE_S, LANGUAGES, usual_tasks
from vl_service.backend import Backend, Deadline
from vl_service.worker.describe import answer

SECONDS = "VL: seconds a picture: caption, prompt, suggestions and an answer in one language"
MOST_S, TIMED_PICTURES = 2.0, 8


def seconds_row(engine: Backend, pictures: list[Shown]) -> Row:
    """The median over some pictures of what the default flow asks for and more."""
    spent = []
    for number, shown in enumerate(pictures[:: max(1, len(pictures) // TIMED_PICTURES)][:TIMED_PICTURES]):
        tasks = usual_tasks(LANGUAGES[number % 2])
        started = time.monotonic()
        answer(engine, shown.picture, tasks, Deadline(at=started + DEADLINE_S), started)
        spent.append(time.monotonic() - started)
    bar = f"≤ {MOST_S:.0f} s"
    if not spent:
        return not_run(SECONDS, bar, "no pictures")
    middle = statistics.median(spent)
    return Row(measure=SECONDS, bar=bar, value=middle, held=middle <= MOST_S,
               found=f"{middle:.2f} s in the middle, {max(spent):.2f} s the longest of {len(spent)}")
