"""Who installs no engines has no library of theirs: the services start all the same."""

import subprocess
import sys

_ABSENT = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxruntime', 'onnxscript', 'tensorrt']))"


def test_the_vision_language_worker_starts_without_the_libraries_of_engines() -> None:
    """The video worker renders without them, in tests/wire/one_service."""
    program = f"{_ABSENT}; import vl_service.embedded, vl_service.qwen.backend"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
