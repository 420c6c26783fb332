"""The command that warms up: what it says, what it keeps, and when it has nothing to do."""

from pathlib import Path

import pytest

from video_service.worker.warmup import main


@pytest.fixture
def store(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine store of a deployment of the tiny model."""
    settings = {
        "VIDEO_MODEL": str(tiny_folder), "VIDEO_ENGINES": str(tmp_path / "engines"), "VIDEO_DEVICE": "cpu",
        "VIDEO_DTYPE": "float32", "STILLMOTION_DATA": str(tmp_path),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "engines"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_what_was_warmed_up_before_is_not_again_until_something_changes(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--if-needed"]) == 0
    assert "tiny-wan was loaded and rendered" in said(capsys)
    [marker] = (store / "caches").iterdir()
    assert main(["--if-needed"]) == 0
    assert said(capsys) == f"Warmed up before: {marker}\n"
    assert main([]) == 0
    assert "rendered" in said(capsys), "asked for, it is done again"
    for name, value in (("VIDEO_FAST_LAYERS", "false"), ("VIDEO_DTYPE", "bfloat16")):
        monkeypatch.setenv(name, value)
        assert main(["--if-needed"]) == 0
        assert "rendered" in said(capsys), name
    monkeypatch.setenv("VIDEO_PORT", "8999")
    assert main(["--if-needed"]) == 0
    assert "before" in said(capsys), "where it listens changes nothing"


@pytest.mark.parametrize("what", ["absent", "does not render"])
def test_a_model_that_cannot_serve_here_ends_it_with_the_reason(
    what: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "absent":
        monkeypatch.setenv("VIDEO_MODEL", str(tmp_path / "nowhere"))
        reason = "nowhere"
    else:
        reason = "RuntimeError: Failed to find C compiler"

        def fail(*_: object) -> None:
            raise RuntimeError("Failed to find C compiler")

        monkeypatch.setattr("video_service.model.generate", fail)
    assert main(["--if-needed"]) == 1
    assert reason in said(capsys)
    assert not list(store.glob("caches/*"))
