"""One video service of tiny models for all tests here, as its start is the longest part of most of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.tiny_families import save_tiny_family, tiny_parts
from tests.checkpoints.tiny_lora import write_lora
from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.checkpoints.toy_family import save_toy
from tests.support.video_process import VideoProcess, running
from video_service.weights.memory import weight_bytes

WAN, EXPERTS = "tiny-wan", "experts"
PARTS = ("transformer", "transformer_2", "vae", "text_encoder")
# Who installs no engines has no library of theirs: here nobody has, and all of it renders.
_WORKER = (
    "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxruntime', 'onnxscript', 'tensorrt'])); "
    "from web.worker.child import run; from tests.checkpoints.toy_family import worker; sys.exit(run(worker()))"
)
SERVE = f"import sys; from video_service.http.serve import main; sys.exit(main((sys.executable, '-c', {_WORKER!r})))"


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    """Two families of Wan's and one of another shape, two broken checkpoints, room for one model at a time, LoRAs, and
    up to three renders at once. Its worker is the real one, to which a line adds the other family."""
    folder = tmp_path_factory.mktemp("one-service")
    wan = save_tiny_wan(folder / "wan")
    experts = save_tiny_family(folder / EXPERTS, "wan2.2-experts-t2v", shallow=True)
    incomplete = Path(shutil.copytree(wan, folder / "incomplete"))
    shutil.rmtree(incomplete / "vae")
    damaged = save_tiny_family(folder / "damaged", "wan2.2-experts-t2v", shallow=True)
    (damaged / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x00" * 64)
    toy = save_toy(folder / "toy", gain=2.0)
    sizes = [weight_bytes(path, PARTS, 4) or 0 for path in (wan, experts)]
    # A LoRA's merged weights beside their model fit, two models do not.
    names = ",".join(map(str, (wan, experts, incomplete, damaged, toy)))
    with running(("-c", SERVE), folder / "data", wan, VIDEO_MODELS=names, VIDEO_LORAS=str(_loras(folder / "loras")),
                 VIDEO_MEMORY_BUDGET=str(int(sum(sizes) * 0.95)), VIDEO_BATCH="3") as started:
        yield started.wait_ready()


def _loras(folder: Path) -> Path:
    """Two that fit, and one for another network."""
    folder.mkdir()
    network = tiny_parts("wan2.2-experts-t2v", shallow=True)["transformer"]  # its blocks are the first of the other's
    write_lora(folder / "style.safetensors", network, "kohya")
    write_lora(folder / "motion.safetensors", network, "diffusers", size=0.1)
    save_file({"blocks.9.attn1.to_q.lora_A.weight": torch.ones(2, 32)}, folder / "foreign.safetensors")
    return folder
