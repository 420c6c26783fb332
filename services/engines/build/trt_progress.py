"""How far TensorRT's builder is, as one fraction; an interruption while it works ends the build and is not lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines.run.trt_protocol import TensorRT

Progress = Callable[[str, float], None]
"""Called with the phase's name and the fraction done, 0 to 1, many times a second."""


@dataclass(slots=True)
class _Phase:
    name: str
    steps: int
    done: int = 0


class Monitor:
    """Wraps `progress` as the library's `IProgressMonitor`, which is `part`."""

    def __init__(self, api: TensorRT, progress: Progress) -> None:
        self._progress = progress
        self._phases: list[_Phase] = []
        self._told = 0.0
        self.interruption: BaseException | None = None
        self.part: Any = _part(api, self)

    def start(self, name: str, steps: int) -> None:
        self._phases.append(_Phase(name, max(1, steps)))

    def step(self, name: str, index: int) -> bool:
        """False asks the builder to stop."""
        for phase in self._phases:
            if phase.name == name:
                phase.done = index + 1
        self._tell(name)
        return self.interruption is None

    def finish(self, name: str) -> None:
        self._phases = [phase for phase in self._phases if phase.name != name]
        if not self._phases:
            self._tell(name)

    def _tell(self, name: str) -> None:
        if self.interruption is None:
            # Between a phase's end and the next step of the phase around it, the fraction would fall.
            self._told = max(self._told, self._fraction() if self._phases else 1.0)
            try:
                self._progress(name, self._told)
            except BaseException as error:  # an exception that leaves this call would end the process, in C++
                self.interruption = error

    def _fraction(self) -> float:
        """Each phase is one step of the phase around it."""
        done, width = 0.0, 1.0
        for phase in self._phases:
            done += width * min(phase.done, phase.steps) / phase.steps
            width /= phase.steps
        return min(done, 1.0)


def _part(api: TensorRT, monitor: Monitor) -> Any:
    class Part(api.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            monitor.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return monitor.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            monitor.finish(phase_name)

    return Part()
