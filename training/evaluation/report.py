"""Tells what was measured of rendered clips: JSON, Markdown tables, and contact sheets."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.evaluation.bars import UNJUDGED, Row, table, video_rows
from training.evaluation.judge import MOTIONS
from training.evaluation.measuring import Measured
from training.evaluation.set import ASKS

Frames = NDArray[np.uint8]
SHEET_FRAMES = 8
THUMBNAIL_PX = 168
CAPTION_PX = 16


def _mean(results: list[Measured], value: Callable[[Measured], float | None]) -> float:
    values = [found for result in results if (found := value(result)) is not None]
    return round(float(np.mean(values)), 4) if values else 0.0


def _group(results: list[Measured]) -> dict[str, float]:
    return {
        "clips": len(results), "motion_accuracy": _mean(results, lambda r: r.right),
        "psnr_db": _mean(results, lambda r: r.psnr_db), "ssim": _mean(results, lambda r: r.ssim),
        "mean_flow_px": _mean(results, lambda r: r.mean_flow_px), "flicker": _mean(results, lambda r: r.flicker),
        "flicker_ratio": _mean(results, lambda r: r.flicker_ratio),
        "laplacian_kept": _mean(results, lambda r: r.laplacian_kept),
        "sharpness_kept": _mean(results, lambda r: r.sharpness_kept), "seconds": _mean(results, lambda r: r.seconds),
    }


def summarise(results: list[Measured], setup: dict[str, Any], vision: list[Row] | None = None) -> dict[str, Any]:
    """Everything measured: the table, then overall, by motion (worst first), by picture, by ask, and clip by clip.

    `vision` are the rows of the vision-language evaluation. Groups leave out the clips of many steps, which are there
    for comparison only.
    """
    usual = [result for result in results if result.case.asked != "many_steps"]
    by_motion = {m: _group(group) for m in MOTIONS if (group := [r for r in usual if r.case.motion == m])}
    pictures = dict.fromkeys(result.case.picture for result in usual)
    by_ask = {ask: [r for r in results if r.case.asked == ask] for ask in ASKS}
    rows = video_rows(results, setup) + (vision or [])
    return {
        "setup": setup,
        "table": [asdict(row) for row in rows],
        "overall": _overall(usual) if usual else None,
        "by_motion": dict(sorted(by_motion.items(), key=lambda item: item[1]["motion_accuracy"])),
        "by_picture": {name: _group([r for r in usual if r.case.picture == name]) for name in pictures},
        "by_ask": {name: _group(group) for name, group in by_ask.items() if group},
        "wrong": [{**asdict(r.case), "seen": r.seen} for r in results if not r.right],
        "clips": [asdict(result) for result in results],
    }


def _overall(results: list[Measured]) -> dict[str, float | None]:
    hold = [result.mean_flow_px for result in results if result.case.motion == "hold"]
    return {
        **_group(results), "psnr_db_min": round(min(result.psnr_db for result in results), 3),
        "ssim_min": round(min(result.ssim for result in results), 4),
        "hold_flow_px_max": round(max(hold), 4) if hold else None,
    }


def _groups(title: str, groups: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"| {title} | clips | motion | PSNR dB | SSIM | flow px | flicker ratio | sharpness kept | s |",
             "|---|---|---|---|---|---|---|---|---|"]
    return lines + [
        f"| {name} | {g['clips']} | {100 * g['motion_accuracy']:.0f} % | {g['psnr_db']:.1f} | {g['ssim']:.3f} | "
        f"{g['mean_flow_px']:.2f} | {g['flicker_ratio']:.2f} | {g['laplacian_kept']:.2f} | {g['seconds']:.1f} |"
        for name, g in groups.items()
    ] + [""]


def markdown(summary: dict[str, Any]) -> str:
    """The summary as a page for people: the table of bars, then per motion, worst first."""
    overall, setup = summary["overall"], summary["setup"]
    lines = [f"# Evaluation of {setup['model']}", "", ", ".join(f"{key} {value}" for key, value in setup.items()), "",
             *table([Row(**row) for row in summary["table"]]), f"Motions {UNJUDGED}.", ""]
    if overall is not None:
        lines += [
            f"Motion as asked: **{100 * overall['motion_accuracy']:.1f} %** of {overall['clips']} clips in all.",
            f"First frame at worst: {overall['psnr_db_min']:.2f} dB, SSIM {overall['ssim_min']:.3f}.", "",
            *_groups("motion, worst first", summary["by_motion"]), *_groups("picture", summary["by_picture"]),
            *_groups("asked", summary["by_ask"]),
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


def write_report(summary: dict[str, Any], folder: Path, vision_failures: list[str]) -> str:
    """Write `report.json` and `report.md` into `folder` and return the page; the failures are lines of Markdown."""
    page = "\n".join([markdown(summary), *vision_failures])
    (folder / "report.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "report.md").write_text(page, encoding="utf-8")
    return page
