"""Who installs no engines has no library of theirs: both services start all the same."""

import subprocess
import sys

_ABSENT = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxruntime', 'onnxscript', 'tensorrt']))"


def test_the_model_processes_start_without_the_libraries_of_engines() -> None:
    """In one process: torch, transformers and diffusers take seconds each."""
    program = f"{_ABSENT}; import video_service.model, vl_service.embedded, vl_service.qwen.backend"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
