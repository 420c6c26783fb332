"""Evaluates any engine behind the vision-language service's Protocol on pictures that no training shows.

    python -m training.evaluation.vl.evaluate --model embedded --out out/evaluation

The service's own polishing is part of what is judged. It writes vision.json with every text and verdict, and a sheet of
pictures with their captions; `make eval` puts the rows into its report. About 2 minutes for the rules on two cores.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from contracts.describe import Language
from training.evaluation.bars import Row, not_run, share_row
from training.evaluation.vl import verdicts
from training.evaluation.vl.pictures import (
    DATA,
    HOW_TO_FETCH,
    NEW_DRAWING,
    Shown,
    compositions,
    load_evaluation_stock,
    photographs,
    strangers,
)
from training.evaluation.vl.questions import questions_about
from training.evaluation.vl.speed import seconds_row
from training.evaluation.vl.tasks import DEADLINE_S, LANGUAGES, faults, tasks_about, title
from vl_service.backend import Backend, Deadline, Task
from vl_service.describe import answer

BARS = {
    "VL: subject named, new compositions of known subjects": 0.85,
    "VL: subject named, photographs where the tower's top-1 is ≥ 0.5": 0.90,
    "VL: subject of no known kind: a broader kind or unsure, no invention": 0.80,
    "VL: dominant colour": 0.85,
    "VL: layout word": 0.85,
    "VL: question answered": 0.80,
    "VL: right language, right length, no repetition": 1.0,
}
NAMED, PHOTOGRAPHED, STRANGE, COLOUR, LAYOUT, QUESTION, TEXTS = BARS
SHEET_TILES, TILE_PX, LINES = 24, 200, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One verdict on one text; `about` says what was asked, or what is wrong with the text."""

    measure: str
    picture: str
    language: Language
    about: str
    text: str
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """The rows, and what they were counted from."""

    engine: str
    rows: list[Row]
    checks: list[Check]


def judge_engine(engine: Backend, pictures: Iterable[tuple[str, Shown]], why_none: str = "no pictures") -> Vision:
    """Let the engine speak of each (measure of its naming, picture) and judge every text.

    `why_none` is told in the rows that have nothing to count. Raises what the engine raises.
    """
    shown = list(pictures)
    checks = [check for measure, one in shown for check in _examined(engine, measure, one)]
    info = engine.info
    rows = [*_rows(checks, why_none), seconds_row(engine, [one for _, one in shown])]
    return Vision(engine=f"{info.id} {info.revision}", rows=rows, checks=checks)


def _examined(engine: Backend, measure: str, shown: Shown) -> Iterator[Check]:
    questions = [] if shown.truth is None or measure == STRANGE else questions_about(shown)
    tasks = tasks_about(questions)
    said = answer(engine, shown.picture, tasks, Deadline(at=time.monotonic() + DEADLINE_S), time.monotonic()).results
    texts = [(task, result.text) for task, result in zip(tasks, said, strict=True)]

    def check(name: str, task: Task, about: str, text: str, right: bool) -> Check:
        return Check(measure=name, picture=shown.name, language=task.language, about=about, text=text, right=right)

    for task, text in texts:
        wrong = faults(task, text)
        yield check(TEXTS, task, f"{title(task)}: {', '.join(wrong)}".rstrip(": "), text, not wrong)
        if task.kind == "caption":
            yield check(measure, task, "caption", text, _names(measure, shown, text, task.language))
            yield check(COLOUR, task, " or ".join(sorted(shown.colours)), text,
                        verdicts.says_colour(text, set(shown.colours), task.language))
            if shown.truth is not None and shown.truth.count == 1:
                yield check(LAYOUT, task, f"x {shown.truth.x:.2f}, y {shown.truth.y:.2f}", text,
                            verdicts.says_place(text, shown.truth, task.language))
    for question, (task, text) in zip(questions, texts[len(texts) - len(questions):], strict=True):
        yield check(QUESTION, task, f"{question.about}: {question.text}", text, question.answered(text))


def _names(measure: str, shown: Shown, text: str, language: Language) -> bool:
    if measure == STRANGE and shown.concept is not None:
        return verdicts.invents_nothing(text, shown.concept, language)
    return verdicts.names_it(text, shown.words, language)


def _rows(checks: list[Check], why_none: str) -> list[Row]:
    rows = []
    for measure, least in BARS.items():
        some = [check for check in checks if check.measure == measure]
        if not some:
            rows.append(not_run(measure, f"≥ {100 * least:.0f} %", why_none))
            continue
        row = share_row(measure, least, sum(check.right for check in some), len(some))
        rows.append(Row(measure=row.measure, bar=row.bar, value=row.value, held=row.held,
                        found=f"{row.found}{_told(measure, some)}"))
    return rows


def _told(measure: str, checks: list[Check]) -> str:
    """The share by language and by what else tells where it is weak; for the texts what was wrong."""
    pictures = len({check.picture for check in checks})
    if measure == TEXTS:
        wrong = [check.about.partition(": ")[2] for check in checks if not check.right]
        counts = {name: sum(name in about for about in wrong) for name in ("language", "length", "repetition")}
        return " texts" + "".join(f", {number} wrong in {name}" for name, number in counts.items())
    groups = {name: [check.right for check in checks if check.language == name] for name in LANGUAGES}
    if measure == NAMED:
        groups |= {"new drawings": [check.right for check in checks if NEW_DRAWING in check.picture],
                   "new numbers": [check.right for check in checks if NEW_DRAWING not in check.picture]}
    if measure in (NAMED, STRANGE):
        groups["without guesses"] = [check.right and not verdicts.only_guesses(check.text, check.language)
                                     for check in checks]
    if measure == QUESTION:
        about = dict.fromkeys(check.about.partition(":")[0] for check in checks)
        groups |= {name: [check.right for check in checks if check.about.startswith(f"{name}:")] for name in about}
    shares = [f"{name} {100 * sum(some) / len(some):.0f} %" for name, some in groups.items() if some]
    return f" texts on {pictures} pictures ({', '.join(shares)})"


def evaluate_vision(model: str, out: Path, count: int, data: Path = DATA) -> Vision:
    """Judge the engine that VL_MODEL would name; `count` compositions of each sort.

    Writes `out/vision.json` and `out/sheet-vision.png`.
    """
    from vl_service.settings import Settings
    from vl_service.worker.program import load_backend

    engine = load_backend(Settings(model=model))
    pictures = list(_pictures(count, data))
    vision = judge_engine(engine, pictures, HOW_TO_FETCH)
    out.mkdir(parents=True, exist_ok=True)
    told = asdict(vision) | {"checks": [asdict(check) for check in sorted(vision.checks, key=lambda c: c.right)]}
    (out / "vision.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    _sheet([shown for _, shown in pictures], vision).save(out / "sheet-vision.png")
    return vision


def _pictures(count: int, data: Path) -> Iterator[tuple[str, Shown]]:
    from vl_service.embedded.vision.tower import ImageNetTower

    for shown in photographs(ImageNetTower()):
        yield PHOTOGRAPHED, shown
    stock = load_evaluation_stock(data)
    if stock is None:
        return
    for shown in compositions(stock, count):
        yield NAMED, shown
    for shown in strangers(stock, count):
        yield STRANGE, shown


def load_vision(file: Path) -> Vision:
    """What `evaluate_vision` wrote."""
    told = json.loads(file.read_text(encoding="utf-8"))
    return Vision(engine=told["engine"], rows=[Row(**row) for row in told["rows"]],
                  checks=[Check(**check) for check in told["checks"]])


def _sheet(pictures: list[Shown], vision: Vision) -> Image.Image:
    """Some pictures with their English captions."""
    captions = {check.picture: check.text for check in vision.checks
                if check.measure == COLOUR and check.language == "en"}
    step = max(1, len(pictures) // SHEET_TILES)
    chosen, columns = pictures[::step][:SHEET_TILES], 6
    high = TILE_PX + 13 * LINES
    sheet = Image.new("RGB", (columns * TILE_PX, -(-len(chosen) // columns) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for at, shown in enumerate(chosen):
        left, top = at % columns * TILE_PX, at // columns * high
        small = shown.picture.rgb.copy()
        small.thumbnail((TILE_PX - 4, TILE_PX - 4))
        sheet.paste(small, (left, top))
        draw.multiline_text((left, top + TILE_PX), _wrapped(captions[shown.name]), fill="black", font_size=10)
    return sheet


def _wrapped(text: str, width: int = 37) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(lines[:LINES])


def failures(vision: Vision, each: int = 4) -> list[str]:
    """Some wrong texts of each measure, as lines of Markdown."""
    lines = ["| wrong: measure | picture | wanted or asked | said |", "|---|---|---|---|"]
    for measure in BARS:
        wrong = [check for check in vision.checks if check.measure == measure and not check.right]
        for check in wrong[:: max(1, len(wrong) // each)][:each]:
            name, said = measure.removeprefix("VL: "), " ".join(check.text.split())
            lines.append(f"| {name} | {check.picture} | {check.about} | {said} |")
    return [*lines, ""] if len(lines) > 2 else []


def main() -> None:
    """Judge and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="what VL_MODEL may name")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"))
    parser.add_argument("--count", type=int, default=60, help="compositions, and as many strange things")
    options = parser.parse_args()
    vision = evaluate_vision(options.model, options.out, options.count)
    for row in vision.rows:
        print(f"{row.measure}: {row.found} ({row.bar}) {row.verdict}")


if __name__ == "__main__":
    main()
