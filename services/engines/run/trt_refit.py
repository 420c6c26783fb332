"""Other weights into an engine that was built to take them, such as a checkpoint with a LoRA merged in."""

from collections.abc import Mapping

import torch

from engines.run.trt_api import TensorRT
from engines.run.trt_log import Log
from engines.run.trt_protocol import Engine, Refitter
from engines.run.trt_session import torch_dtype
from engines.store.manifest import EngineRefused


def refit(
    api: TensorRT, engine: Engine, weights: Mapping[str, torch.Tensor],
    unchanged: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Replace weights by their ONNX initializers' names; the others keep their values. The engine must not be running.

    Args:
        weights: of the shape and number format that the graph was exported with.
        unchanged: others as they are; those are given too that TensorRT computes with together with one of `weights`.

    Raises:
        EngineRefused: it was not built to be refitted, has no such weight, or TensorRT refuses one.
    """
    if not engine.refittable:
        raise EngineRefused("this engine's weights are fixed: build it with `stillmotion engines build --refit`")
    said = Log(api)
    refitter = api.Refitter(engine, said.logger)
    if unknown := sorted(weights.keys() - set(refitter.get_all_weights())):
        raise EngineRefused(f"the engine has no weight {', '.join(unknown[:3])}")
    # TensorRT keeps the addresses until the engine is refitted: these two outlive that.
    held = {name: x.detach().cpu().contiguous() for name, x in weights.items()}
    _give(api, refitter, said, held)
    others = unchanged or {}
    asked_for = others.keys() & set(refitter.get_missing_weights())
    along = {name: others[name].detach().cpu().contiguous() for name in sorted(asked_for)}
    _give(api, refitter, said, along)
    if missing := refitter.get_missing_weights():
        raise EngineRefused(f"{', '.join(missing[:3])} must be given too: the engine computes with them together")
    if not refitter.refit_cuda_engine():
        raise EngineRefused(said.reason("TensorRT did not refit the engine"))


def _give(api: TensorRT, refitter: Refitter, said: Log, weights: Mapping[str, torch.Tensor]) -> None:
    for name, x in weights.items():
        prototype = refitter.get_weights_prototype(name)
        kind = torch_dtype(api, prototype.dtype)
        if (prototype.size, kind) != (x.numel(), x.dtype):
            raise EngineRefused(f"{name}: {x.numel()} of {x.dtype} for the engine's {prototype.size} of {kind}")
        if not refitter.set_named_weights(name, api.Weights(prototype.dtype, x.data_ptr(), x.numel())):
            raise EngineRefused(said.reason(f"TensorRT does not take {name}"))
