"""Who installs no engines has no library of theirs: both services start all the same."""

import subprocess
import sys

import pytest

_ABSENT = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxruntime', 'onnxscript', 'tensorrt']))"


@pytest.mark.parametrize("module", ["video_service.model", "vl_service.worker", "vl_service.qwen.backend"])
def test_a_model_process_starts_without_the_libraries_of_engines(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"{_ABSENT}; import {module}"], check=True, timeout=120)
