"""The table that the evaluation ends in: each measure against its bar, held, missed, or not run and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation.measuring import Measured
from training.evaluation.set import MANY_STEPS, Ask

STEPS_GAP = 0.03
FULL_CLIPS = {(size, 33) for size in ("256x256", "320x192", "192x320")}
NO_CLIPS = "no such clips were rendered"
UNJUDGED = (
    "not judged, because no judge of them exists: handheld, orbits, motions of objects (drift, rise, fall, bounce, "
    "sway, spin, pulse), ambience (ripple, flicker, rain, snow, fog, dusk, dawn), pairs and speeds"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure; `value` and `held` are None where it was not run, and then `found` says why."""

    measure: str
    bar: str
    found: str
    value: float | None
    held: bool | None

    @property
    def verdict(self) -> str:
        """held, missed or not run."""
        return "not run" if self.held is None else "held" if self.held else "**missed**"


def not_run(measure: str, bar: str, why: str) -> Row:
    """A row without a number."""
    return Row(measure=measure, bar=bar, found=f"not run: {why}", value=None, held=None)


def share_row(measure: str, least: float, right: int, of: int, why: str = NO_CLIPS) -> Row:
    """How many of some cases were right, against a least share in 0..1."""
    bar = f"≥ {100 * least:.0f} %"
    if not of:
        return not_run(measure, bar, why)
    return Row(measure=measure, bar=bar, found=f"{100 * right / of:.1f} % of {of}", value=right / of,
               held=right / of >= least)


def video_rows(results: Sequence[Measured], setup: dict[str, Any]) -> list[Row]:
    """The rows on clips: picture, motion, steadiness, steps, time."""
    usual = [result for result in results if result.case.asked != "many_steps"]
    return [
        _bounded("first frame against the fitted input, PSNR", usual, lambda r: r.psnr_db, least=27, unit=" dB"),
        _bounded("first frame against the fitted input, SSIM", usual, lambda r: r.ssim, least=0.82),
        _accuracy("motion as asked: single motions", results, "single", 0.92),
        _accuracy("motion as asked: paraphrases never trained", results, "paraphrase", 0.85),
        _accuracy("motion as asked: Chinese never trained", results, "chinese", 0.85),
        _hold(usual),
        _bounded("flicker: warping error over that of a plain warp of the input", usual, lambda r: r.flicker_ratio,
                 most=1.5),
        _bounded("sharpness (Laplacian variance) of the last frame over the first", usual,
                 lambda r: r.laplacian_kept, least=0.6),
        _steps(results),
        _seconds(usual, setup),
    ]


def _bounded(
    measure: str, results: Sequence[Measured], value: Callable[[Measured], float | None], *, least: float | None = None,
    most: float | None = None, unit: str = "",
) -> Row:
    """The mean over the clips against one bound; the worst clip is told beside it."""
    bar = f"≥ {least}{unit}" if least is not None else f"≤ {most}{unit}"
    values = [found for result in results if (found := value(result)) is not None]
    if not values:
        return not_run(measure, bar, NO_CLIPS)
    mean = float(np.mean(values))
    worst = min(values) if least is not None else max(values)
    return Row(measure=measure, bar=bar, found=f"{mean:.2f}{unit}, worst {worst:.2f}{unit}, {len(values)} clips",
               value=mean, held=mean >= least if least is not None else mean <= (most or 0))


def _accuracy(measure: str, results: Sequence[Measured], asked: Ask, least: float) -> Row:
    right = [result.right for result in results if result.case.asked == asked]
    return share_row(measure, least, sum(right), len(right))


def _hold(results: Sequence[Measured]) -> Row:
    measure, bar = "hold still, asked in plain words: mean flow", "< 0.3 px a frame"
    # a paraphrase that is not understood counts in its own row
    flows = [result.mean_flow_px for result in results
             if result.case.motion == "hold" and result.case.asked == "single"]
    if not flows:
        return not_run(measure, bar, NO_CLIPS)
    mean = float(np.mean(flows))
    return Row(measure=measure, bar=bar, found=f"{mean:.3f} px, worst {max(flows):.3f} px, {len(flows)} clips",
               value=mean, held=mean < 0.3)


def _steps(results: Sequence[Measured]) -> Row:
    """The same pictures, prompts and seeds with few steps and with many."""
    measure, bar = f"few steps against {MANY_STEPS}: motion as asked", f"within {100 * STEPS_GAP:.0f} points"
    many = {_same(result): result.right for result in results if result.case.asked == "many_steps"}
    few = {key: result.right for result in results if result.case.asked == "single" and (key := _same(result)) in many}
    if not few:
        return not_run(measure, bar, NO_CLIPS)
    gap = (sum(many[key] for key in few) - sum(few.values())) / len(few)
    found = (f"{100 * sum(few.values()) / len(few):.1f} % against "
             f"{100 * sum(many[key] for key in few) / len(few):.1f} %, {len(few)} clips each")
    return Row(measure=measure, bar=bar, found=found, value=gap, held=gap <= STEPS_GAP + 1e-9)


def _same(result: Measured) -> tuple[str, str, str, int]:
    case = result.case
    return case.picture, case.motion, case.prompt, case.seed


def _seconds(results: Sequence[Measured], setup: dict[str, Any]) -> Row:
    measure, bar = "one clip on two cores, all stages", "≤ 12 s"
    if not results:
        return not_run(measure, bar, NO_CLIPS)
    if setup.get("engine") != "service":
        return not_run(measure, bar, "these clips were not rendered by the service")
    if (setup.get("size"), setup.get("frames")) not in FULL_CLIPS:
        return not_run(measure, bar, "these clips are not of the full size and length")
    middle = float(np.median([result.seconds for result in results]))
    load = [result.load for result in results if result.load is not None]
    busy = f", load average {np.median(load):.1f}" if load else ""
    return Row(measure=measure, bar=bar, value=middle, held=middle <= 12,
               found=f"{middle:.1f} s (median of {len(results)}; {setup.get('cores', 'unknown')} cores{busy})")


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines of Markdown."""
    lines = ["| measure | bar | found | |", "|---|---|---|---|"]
    return [*lines, *(f"| {row.measure} | {row.bar} | {row.found} | {row.verdict} |" for row in rows), ""]
