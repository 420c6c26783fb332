"""The HTTP process stays light, and so does the worker until it listens to it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", [
    "video_service.http.app", "video_service.__main__", "video_service.worker.__main__", "vl_service.worker.__main__",
])
def test_no_model_library_is_imported_before_the_model_is_loaded(module: str):
    code = (
        f"import sys, {module}\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'diffusers', 'transformers', 'av'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == []
