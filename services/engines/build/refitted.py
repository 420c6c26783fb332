"""An engine for the same graph with other weights, from one that is there: nothing is built, weights are replaced.

A build that can be refitted keeps hashes of its graph's nodes and weights beside the plan. What is to be refitted is
exported first, and must differ from that in weights' numbers alone: exactly those that differ are replaced.
"""

import json
from pathlib import Path

from engines.export.quantize import KINDS
from engines.export.weights import Fingerprint, fingerprint, read_weights
from engines.run.sessions import load_api, open_plan
from engines.run.trt_protocol import HostMemory
from engines.run.trt_refit import refit
from engines.store.cuda import cuda_capability
from engines.store.gpus import check_gpu
from engines.store.manifest import EngineRefused, Manifest, Recipe
from engines.store.revisions import base_of
from engines.store.store import EngineStore

_NAME = "weights.json"


def keep_fingerprint(onnx_path: Path, folder: Path) -> None:
    """Write beside a plan what `refitted_plan` compares with."""
    found = fingerprint(onnx_path)
    text = json.dumps({"nodes": found.nodes, "weights": dict(found.weights)}, indent=1)
    (folder / _NAME).write_text(text, encoding="utf-8")


def find_base(store: EngineStore, recipe: Recipe) -> Manifest | None:
    """The engine of the same recipe without the LoRA, where there is one whose weights can be replaced here.

    It is verified, and of a number format and kind of which the weights are the graph's own: eight-bit weights go with
    scales that TensorRT may have folded, and streamed ones are in host memory.
    """
    base = recipe.model_copy(update={"revision": base_of(recipe.revision)})
    if recipe.target == "onnx" or recipe.precision in KINDS or base.revision == recipe.revision:
        return None
    try:
        found = store.usable(base)
        check_gpu(base, cuda_capability())
    except EngineRefused:
        return None
    return found if found.refittable and not found.streams_weights else None


def refitted_plan(store: EngineStore, base: Manifest, onnx_path: Path) -> HostMemory:
    """The plan of `base` with the weights of the exported graph, serialised by TensorRT.

    Raises:
        EngineRefused: `base` is damaged, the graph is another one, TensorRT does not know a weight or refuses it.
        TensorRTUnavailable: it is not installed.
    """
    before = _kept(store.check_files(base))
    changed = before.changed(fingerprint(onnx_path))
    if changed is None:
        raise EngineRefused("the graphs differ in more than their weights")
    weights = read_weights(onnx_path)
    api = load_api(base.recipe)
    engine, said = open_plan(api, store, base)
    if changed:
        refit(api, engine, {name: weights.pop(name) for name in changed}, unchanged=weights)
    plan = engine.serialize()
    if plan is None:
        raise EngineRefused(said.reason("TensorRT did not serialise the engine"))
    return plan


def _kept(folder: Path) -> Fingerprint:
    try:
        read = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        return Fingerprint(nodes=read["nodes"], weights=read["weights"])
    except (OSError, ValueError, KeyError) as error:
        raise EngineRefused(f"nothing is known of the weights it was built from ({error})") from error
