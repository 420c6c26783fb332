"""Pure sigma mathematics: which noise levels a sampler visits. No tensors, no model."""

import math

NUM_TRAIN_TIMESTEPS = 1000
RCM_SIGMA_MAX_T2V = 80.0
RCM_SIGMA_MAX_I2V = 200.0
_RCM_ANGLES = (1.5, 1.4, 1.0)  # TurboDiffusion's, after atan(sigma_max)
MAX_RCM_STEPS = 1 + len(_RCM_ANGLES)


def shift_sigma(sigma: float, shift: float) -> float:
    """Move a flow-matching noise level toward 1 by `shift` (1 leaves it)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def euler_sigmas(steps: int, shift: float) -> list[float]:
    """The `steps + 1` noise levels of flow-matching Euler, from 1 to 0.

    As diffusers' FlowMatchEulerDiscreteScheduler has them: evenly spaced from 1 to the shifted smallest training level,
    shifted once more, then 0.
    """
    smallest = shift_sigma(1 / NUM_TRAIN_TIMESTEPS, shift)
    even = [1.0] if steps == 1 else [1.0 + (smallest - 1.0) * i / (steps - 1) for i in range(steps)]
    return [*(shift_sigma(sigma, shift) for sigma in even), 0.0]


def rcm_times(steps: int, sigma_max: float) -> list[float]:
    """The `steps + 1` times of rCM sampling (TurboDiffusion), from near 1 to 0; `steps` is 1 to 4.

    An angle a on the trigonometric path is time sin a / (sin a + cos a) on the straight one.
    """
    if not 1 <= steps <= MAX_RCM_STEPS:
        raise ValueError(f"rCM takes 1 to {MAX_RCM_STEPS} steps, not {steps}")
    angles = [math.atan(sigma_max), *_RCM_ANGLES][:steps]
    return [*(math.sin(a) / (math.sin(a) + math.cos(a)) for a in angles), 0.0]
