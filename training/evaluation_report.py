"""Measures rendered clips and tells the result: JSON, a Markdown table, and contact sheets."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.metrics import structural_similarity

from training.evaluation_set import Case
from training.judge import MOTIONS, flicker, judge, sharpness_kept

Frames = NDArray[np.uint8]
SHEET_FRAMES = 8
THUMBNAIL_PX = 168
CAPTION_PX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One clip: what was asked, what the judge saw, and how good it looks.

    `psnr_db` and `ssim` compare the first frame with the fitted input; `flicker` is in grey levels of 255.
    """

    case: Case
    seen: str
    right: bool
    psnr_db: float
    ssim: float
    mean_flow_px: float
    flicker: float
    sharpness_kept: float
    seconds: float


def measure(case: Case, fitted: Frames, frames_THWC: Frames, seconds: float) -> Measured:
    """Judge one clip; `fitted` is the input at the clip's size, [H, W, 3]."""
    verdict = judge(frames_THWC)
    return Measured(
        case=case, seen=verdict.motion, right=verdict.motion == case.motion,
        psnr_db=_psnr_db(fitted, frames_THWC[0]),
        ssim=float(np.mean(structural_similarity(fitted, frames_THWC[0], channel_axis=-1))),
        mean_flow_px=verdict.mean_flow_px, flicker=flicker(frames_THWC),
        sharpness_kept=sharpness_kept(frames_THWC), seconds=seconds,
    )


def _psnr_db(wanted: Frames, got: Frames) -> float:
    error = float(np.mean((wanted.astype(np.float64) - got) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-4)))  # at most 88 dB: equal pictures, and JSON has no infinity


def _mean(results: list[Measured], value: Callable[[Measured], float]) -> float:
    return round(float(np.mean([value(result) for result in results])), 4)


def _group(results: list[Measured]) -> dict[str, float]:
    return {
        "clips": len(results), "motion_accuracy": _mean(results, lambda r: r.right),
        "psnr_db": _mean(results, lambda r: r.psnr_db), "ssim": _mean(results, lambda r: r.ssim),
        "mean_flow_px": _mean(results, lambda r: r.mean_flow_px), "flicker": _mean(results, lambda r: r.flicker),
        "sharpness_kept": _mean(results, lambda r: r.sharpness_kept), "seconds": _mean(results, lambda r: r.seconds),
    }


def summarise(results: list[Measured], setup: dict[str, str | int]) -> dict[str, Any]:
    """Everything measured: overall, by motion (worst first), by picture, by language, and clip by clip."""
    by_motion = {m: _group(group) for m in MOTIONS if (group := [r for r in results if r.case.motion == m])}
    pictures = dict.fromkeys(result.case.picture for result in results)
    languages = {"english": [r for r in results if r.case.prompt.isascii()],
                 "chinese": [r for r in results if not r.case.prompt.isascii()]}
    hold = [result.mean_flow_px for result in results if result.case.motion == "hold"]
    return {
        "setup": setup,
        "overall": _group(results) | {
            "psnr_db_min": round(min(result.psnr_db for result in results), 3),
            "ssim_min": round(min(result.ssim for result in results), 4),
            "hold_flow_px_max": round(max(hold), 4) if hold else None,
        },
        "by_motion": dict(sorted(by_motion.items(), key=lambda item: item[1]["motion_accuracy"])),
        "by_picture": {name: _group([r for r in results if r.case.picture == name]) for name in pictures},
        "by_language": {name: _group(group) for name, group in languages.items() if group},
        "wrong": [{**asdict(r.case), "seen": r.seen} for r in results if not r.right],
        "clips": [asdict(result) for result in results],
    }


def _table(title: str, groups: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"| {title} | clips | motion | PSNR dB | SSIM | flow px | flicker | sharpness kept | s |",
             "|---|---|---|---|---|---|---|---|---|"]
    return lines + [
        f"| {name} | {g['clips']} | {100 * g['motion_accuracy']:.0f} % | {g['psnr_db']:.1f} | {g['ssim']:.3f} | "
        f"{g['mean_flow_px']:.2f} | {g['flicker']:.2f} | {g['sharpness_kept']:.2f} | {g['seconds']:.1f} |"
        for name, g in groups.items()
    ] + [""]


def markdown(summary: dict[str, Any]) -> str:
    """The summary as a page for people."""
    overall, setup = summary["overall"], summary["setup"]
    lines = [
        f"# Evaluation of {setup['model']}", "", ", ".join(f"{key} {value}" for key, value in setup.items()), "",
        f"Motion as asked: **{100 * overall['motion_accuracy']:.1f} %** of {overall['clips']} clips.",
        f"First frame against the fitted input: **{overall['psnr_db']:.2f} dB** on average, "
        f"{overall['psnr_db_min']:.2f} dB at worst; SSIM {overall['ssim']:.3f}, {overall['ssim_min']:.3f} at worst.",
        "",
        *_table("motion, worst first", summary["by_motion"]), *_table("picture", summary["by_picture"]),
        *_table("prompt", summary["by_language"]),
    ]
    if summary["wrong"]:
        lines += ["| wrong: picture | asked | prompt | seen |", "|---|---|---|---|"]
        lines += [f"| {w['picture']} | {w['motion']} | {w['prompt']} | {w['seen']} |" for w in summary["wrong"]]
    return "\n".join(lines) + "\n"


def contact_sheet(rows: list[tuple[str, Frames, Frames]]) -> Image.Image:
    """One row per (label, fitted input, frames): the input, then eight frames from first to last."""
    height, width = rows[0][1].shape[:2]
    scale = THUMBNAIL_PX / max(height, width)
    tile = round(width * scale), round(height * scale)
    sheet = Image.new("RGB", ((SHEET_FRAMES + 1) * (tile[0] + 2) + 6, len(rows) * (tile[1] + CAPTION_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, fitted, frames) in enumerate(rows):
        top = row * (tile[1] + CAPTION_PX)
        draw.text((2, top + 2), label, fill="black", font_size=CAPTION_PX - 5)
        chosen = frames[np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)]
        for column, picture in enumerate([fitted, *chosen]):
            thumbnail = Image.fromarray(picture).resize(tile, Image.Resampling.LANCZOS)
            sheet.paste(thumbnail, (column * (tile[0] + 2) + (6 if column else 0), top + CAPTION_PX))
    return sheet


def write_report(summary: dict[str, Any], folder: Path) -> None:
    """`report.json` and `report.md` in `folder`."""
    (folder / "report.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "report.md").write_text(markdown(summary), encoding="utf-8")
