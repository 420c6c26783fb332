"""The HTTP process stays light."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["video_service.http.app", "video_service.__main__"])
def test_the_http_process_imports_no_model_library(module: str):
    code = (
        f"import sys, {module}\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'diffusers', 'transformers', 'av'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == []
