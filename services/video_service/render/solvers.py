"""From noise to latents, a step at a time, and the noise itself."""

from collections.abc import Sequence
from typing import Self

import torch

from contracts.models import IntRange
from video_service.render.schedules import MAX_RCM_STEPS, NUM_TRAIN_TIMESTEPS, euler_sigmas, rcm_times

RCM_STEPS = {name: IntRange(minimum=1, maximum=MAX_RCM_STEPS, default=MAX_RCM_STEPS) for name in ("ode", "sde")}
"""`ModelSpec.sampler_steps` of a model that takes the rCM samplers, which know no guidance."""


class Noise:
    """Float32 noise for a batch: each clip's own, by default drawn on the CPU, where a seed means the same for every
    device."""

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device, *, drawn_on: torch.device | str = "cpu"
    ) -> None:
        """`shape` is that of one clip's latents, without the batch."""
        self._drawn_on = drawn_on
        self._generators = [torch.Generator(drawn_on).manual_seed(seed) for seed in seeds]
        self._shape = tuple(shape)
        self._device = device

    def draw(self) -> torch.Tensor:
        """The next noise [B, *shape]; drawing again goes on in each clip's sequence."""
        drawn = [torch.randn((1, *self._shape), generator=generator, device=self._drawn_on)
                 for generator in self._generators]
        return torch.cat(drawn).to(self._device)

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the clips at these places alone."""
        self._generators = [self._generators[place] for place in places]


class NoisySolver:
    """A solver with no other state than its noise."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def keep(self, places: Sequence[int]) -> Self:
        self._noise.keep(places)
        return self


class EulerSolver(NoisySolver):
    """Flow-matching Euler."""

    def __init__(self, noise: Noise, steps: int, shift: float) -> None:
        super().__init__(noise)
        self._sigmas = euler_sigmas(steps, shift)
        self.timesteps = [NUM_TRAIN_TIMESTEPS * sigma for sigma in self._sigmas[:-1]]

    def start(self) -> torch.Tensor:
        return self._noise.draw()

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return state + (self._sigmas[index + 1] - self._sigmas[index]) * prediction


class RcmSolver(NoisySolver):
    """rCM (TurboDiffusion), 1 to 4 steps with the state in float64; the SDE form draws fresh noise at every step."""

    def __init__(self, noise: Noise, steps: int, sigma_max: float, *, sde: bool) -> None:
        super().__init__(noise)
        self._times = rcm_times(steps, sigma_max)
        self._sde = sde
        self.timesteps = [NUM_TRAIN_TIMESTEPS * time for time in self._times[:-1]]

    def start(self) -> torch.Tensor:
        return self._noise.draw().double() * self._times[0]

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        time, after = self._times[index], self._times[index + 1]
        if not self._sde:
            return state - (time - after) * prediction.double()
        return (1 - after) * (state - time * prediction.double()) + after * self._noise.draw().double()
