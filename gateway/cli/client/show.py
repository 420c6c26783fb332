"""How a job looks on the terminal: a bar while it runs, then its words and where the time went."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from contracts.jobs import Job


class JobView(Protocol):
    """Something that shows a job each time it changes."""

    def update(self, job: Job) -> None: ...


class _Bar:
    """A live bar, for a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("sending", total=1.0, detail="")

    def update(self, job: Job) -> None:
        self._progress.update(
            self._task, completed=job.progress.fraction, description=_where(job), detail=_detail(job)
        )


class _Lines:
    """One line per change of stage or step, for a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""

    def update(self, job: Job) -> None:
        step = f" step {job.progress.step}/{job.progress.num_steps}" if job.progress.num_steps else ""
        line = f"{_where(job)}{step}"
        if line != self._said:
            self._console.print(f"{line} ({job.progress.fraction:.0%})", highlight=False)
            self._said = line


@contextmanager
def job_view(console: Console) -> Iterator[JobView]:
    """Show a job's progress on `console` until the block ends."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)


@contextmanager
def start_view(console: Console) -> Iterator[Callable[[Mapping[str, Sequence[str]]], None]]:
    """Show what each service still lacks, a spinner on a terminal and a line per change elsewhere."""
    began = time.monotonic()
    status = console.status("Starting …")

    def on_change(lacks: Mapping[str, Sequence[str]]) -> None:
        waiting = waiting_for(lacks)
        if not waiting:
            console.print(f"Ready after {time.monotonic() - began:.1f} s", highlight=False)
        elif console.is_terminal:
            status.update(Text(f"Waiting for {waiting}"))
        else:
            console.print(f"Waiting for {waiting}", highlight=False, markup=False, soft_wrap=True)

    with status:
        yield on_change


def waiting_for(lacks: Mapping[str, Sequence[str]]) -> str:
    """Which services are not ready, each with its reasons; empty when all are."""
    named = {name: reasons for name, reasons in lacks.items() if reasons}
    if named.get("gateway") and len(named) > 1:
        named["gateway"] = ["for the others"]  # its own reasons would only repeat theirs
    return "; ".join(f"{name} ({', '.join(reasons)})" for name, reasons in named.items())


def show_outcome(console: Console, job: Job) -> None:
    """Print the warnings, what was seen, the job's id, what was asked of the model, and the seconds of each stage."""
    for warning in job.warnings:
        console.print(Text(f"Note: {warning}", style="yellow"))
    words = Table.grid(padding=(0, 2))
    words.add_column(style="bold")
    words.add_column()
    for name, value in (("caption", job.caption), ("prompt", job.actual_prompt)):
        if value:
            words.add_row(name, Text(value))
    words.add_row("job", Text(job.id))
    used = job.parameters
    words.add_row("made with", Text(
        f"{used.model}, {used.width}x{used.height}, {used.num_frames} frames at {used.fps} per second, "
        f"{used.steps} steps, seed {used.seed}"
    ))
    console.print(words)
    if job.timings:
        console.print(_timings(job.timings))


def _timings(timings: dict[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in timings.items():
        table.add_row(stage, f"{seconds:.2f}")
    return table


def _where(job: Job) -> str:
    return (job.progress.stage or "starting") if job.state == "running" else job.state


def _detail(job: Job) -> str:
    progress = job.progress
    parts = []
    if job.state == "queued" and progress.queue_position:
        parts.append(f"{progress.queue_position} before it")
    if progress.num_steps:
        parts.append(f"step {progress.step}/{progress.num_steps}")
    if progress.eta_s is not None:
        parts.append(f"about {progress.eta_s:.0f} s left")
    return ", ".join(parts)
