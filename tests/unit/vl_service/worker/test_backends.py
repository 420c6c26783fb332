"""Which backend the settings choose."""

from pathlib import Path
from typing import Any

import pytest

from vl_service.backend import CheckpointError
from vl_service.embedded import WORDS
from vl_service.settings import Settings
from vl_service.worker.program import load_backend

URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(("chosen", "words"), [
    ({"VL_BACKEND": "openai"}, "needs VL_REMOTE_URL"),
    ({"VL_BACKEND": "embedded", "VL_REMOTE_URL": URL}, "unset one of them"),
    ({"VL_BACKEND": "qwen", "VL_MODEL": "Qwen/Qwen2.5-VL-3B-Instruct", "VL_REMOTE_URL": URL}, "unset one of them"),
    ({"VL_BACKEND": "qwen"}, "needs VL_MODEL"),
    ({"VL_REMOTE_URL": URL, "VL_ROLE": "vision"}, "VL_ROLE=vision is for a Qwen checkpoint"),
    ({"VL_BACKEND": "vllm"}, "VL_BACKEND"),
])
def test_settings_that_name_two_backends_or_half_of_one_are_refused_at_start(
    chosen: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        Settings()


@pytest.mark.parametrize(("backend", "is_ours"), [("qwen", True), ("embedded", False)])
def test_a_backend_that_is_named_never_loads_anothers_checkpoint(tmp_path: Path, backend: Any, is_ours: bool) -> None:
    if is_ours:
        (tmp_path / WORDS).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"VL_BACKEND={backend}: VL_MODEL="):
        load_backend(Settings(model=str(tmp_path), backend=backend))
