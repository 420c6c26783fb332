"""Noise to latents: one loop, whichever sampler steps it."""

from collections.abc import Sequence
from typing import Protocol

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from video_service.catalog import Sampling
from video_service.layers.umt5 import TextCondition
from video_service.render.progress import Report
from video_service.render.schedules import (
    NUM_TRAIN_TIMESTEPS,
    RCM_SIGMA_MAX_I2V,
    RCM_SIGMA_MAX_T2V,
    euler_sigmas,
    rcm_times,
)
from video_service.weights.load import LoadedModel


class Solver(Protocol):
    """One sampler at work on one clip."""

    timesteps: list[float]
    """What the network is told at each step, 0 to 1000."""

    def start(self, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        """The state before the first step, from float32 noise."""
        ...

    def step(self, index: int, velocity_BCTHW: torch.Tensor, state_BCTHW: torch.Tensor) -> torch.Tensor:
        """The state after step `index`, from the float32 velocity (noise minus data) at the state before it."""
        ...


class EulerSolver:
    """Flow-matching Euler."""

    def __init__(self, steps: int, shift: float) -> None:
        self._sigmas = euler_sigmas(steps, shift)
        self.timesteps = [NUM_TRAIN_TIMESTEPS * sigma for sigma in self._sigmas[:-1]]

    def start(self, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        return noise_BCTHW

    def step(self, index: int, velocity_BCTHW: torch.Tensor, state_BCTHW: torch.Tensor) -> torch.Tensor:
        return state_BCTHW + (self._sigmas[index + 1] - self._sigmas[index]) * velocity_BCTHW


class UniPCSolver:
    """diffusers' UniPC on flow sigmas, with the settings that Wan ships."""

    def __init__(self, steps: int, shift: float) -> None:
        self._scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
            num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        )
        self._scheduler.set_timesteps(steps)
        self._scheduler.set_begin_index(0)  # without it the step is looked up by timestep, a sync on a GPU
        self.timesteps = [float(t) for t in self._scheduler.timesteps]

    def start(self, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        return noise_BCTHW

    def step(self, index: int, velocity_BCTHW: torch.Tensor, state_BCTHW: torch.Tensor) -> torch.Tensor:
        timestep = self._scheduler.timesteps[index]
        return self._scheduler.step(velocity_BCTHW, timestep, state_BCTHW, return_dict=False)[0]


class RcmSolver:
    """rCM (TurboDiffusion), 1 to 4 steps with the state in float64; with a generator the SDE form, else the ODE."""

    def __init__(self, steps: int, sigma_max: float, generator: torch.Generator | None) -> None:
        self._times = rcm_times(steps, sigma_max)
        self._generator = generator
        self.timesteps = [NUM_TRAIN_TIMESTEPS * time for time in self._times[:-1]]

    def start(self, noise_BCTHW: torch.Tensor) -> torch.Tensor:
        return noise_BCTHW.double() * self._times[0]

    def step(self, index: int, velocity_BCTHW: torch.Tensor, state_BCTHW: torch.Tensor) -> torch.Tensor:
        time, after = self._times[index], self._times[index + 1]
        if self._generator is None:
            return state_BCTHW - (time - after) * velocity_BCTHW.double()
        fresh = draw_noise(state_BCTHW.shape, self._generator).to(state_BCTHW)
        return (1 - after) * (state_BCTHW - time * velocity_BCTHW.double()) + after * fresh


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Float32 noise on the CPU, so that a seed means the same clip on each device."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def make_solver(sampling: Sampling, *, shift: float, has_picture: bool, generator: torch.Generator) -> Solver:
    """The solver that `sampling` asks for."""
    match sampling.sampler:
        case "euler":
            return EulerSolver(sampling.steps, shift)
        case "unipc":
            return UniPCSolver(sampling.steps, shift)
        case "ode" | "sde":
            sigma_max = RCM_SIGMA_MAX_I2V if has_picture else RCM_SIGMA_MAX_T2V
            return RcmSolver(sampling.steps, sigma_max, generator if sampling.sampler == "sde" else None)


def denoise(
    model: LoadedModel, text: TextCondition, condition_BCTHW: torch.Tensor | None, solver: Solver,
    noise_BCTHW: torch.Tensor, guidance_scale: float, report: Report,
) -> torch.Tensor:
    """Run `solver` from noise to normalised latents, float32 [1, z_dim, k + 1, h, w].

    Args:
        condition_BCTHW: the channels beside the noise, or None for a model without them.
        noise_BCTHW: float32 on the CPU.
        guidance_scale: above 1, `text.negative_BLC` must be set; each step then runs the network twice.
        report: told after each step; may raise `RenderCanceled`.
    """
    state = solver.start(noise_BCTHW.to(model.device))
    report("denoise", 0, len(solver.timesteps))
    for index, timestep in enumerate(solver.timesteps):
        parts = [state.float()] if condition_BCTHW is None else [state.float(), condition_BCTHW]
        model_input = torch.cat(parts, dim=1).to(model.dtype)
        velocity = _velocity(model, model_input, timestep, text, guidance_scale)
        state = solver.step(index, velocity, state)
        report("denoise", index + 1, len(solver.timesteps))
    return state.float()


def _velocity(
    model: LoadedModel, input_BCTHW: torch.Tensor, timestep: float, text: TextCondition, guidance_scale: float
) -> torch.Tensor:
    time_B = torch.tensor([timestep], dtype=torch.float32, device=model.device)
    velocity = model.transformer(input_BCTHW, time_B, text.prompt_BLC, return_dict=False)[0]
    if text.negative_BLC is not None:
        without = model.transformer(input_BCTHW, time_B, text.negative_BLC, return_dict=False)[0]
        velocity = without + guidance_scale * (velocity - without)
    return velocity.float()
