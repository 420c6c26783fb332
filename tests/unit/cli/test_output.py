"""A file appears complete or not at all; what is no file is written to and never replaced; both are looked at first."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.client.jobs import GatewayFailure, server_url
from gateway.cli.client.output import OutputUnusable, check_output, is_standard_output, whole_file, written

ROOT = Path(__file__).parents[3]


def write_half(path: Path) -> None:
    with whole_file(path) as stream:
        stream.write(b"half of the new")
        raise ConnectionError


def test_a_file_whose_writing_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out" / "video.mp4"
    with whole_file(path) as stream:
        stream.write(b"old")
    with pytest.raises(ConnectionError):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert [found.name for found in path.parent.iterdir()] == ["video.mp4"]


def test_the_name_appears_only_at_the_end_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with whole_file(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.stat().st_mode & 0o777 == 0o644


PROMPTS = ["costs $5", "$(id) `id` ${HOME}", "it's \"so\"", "a # b", "one\ntwo", "50 % \\ off", "-x"]


async def write(path: Path, data: bytes = b"new") -> None:
    check_output(path)
    async with written(path) as stream:
        stream.write(data)


async def test_a_device_a_pipe_and_a_link_stay_what_they_are(tmp_path: Path) -> None:
    await write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = asyncio.create_task(write(pipe))
    await asyncio.sleep(0.3)  # nobody reads yet
    assert await asyncio.to_thread(pipe.read_bytes) == b"new"
    await writing
    assert pipe.is_fifo()
    target, link = tmp_path / "there" / "video.mp4", tmp_path / "link.mp4"
    target.parent.mkdir()
    link.symlink_to(target)
    for expected in (b"one", b"two"):
        await write(link, expected)
        assert link.is_symlink()
        assert target.read_bytes() == expected
    assert os.listdir(target.parent) == ["video.mp4"]  # noqa: PTH208


async def test_a_pipe_that_nobody_reads_can_be_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await write(tmp_path / "pipe")


def test_what_cannot_be_written_is_named_before_a_video_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path, tmp_path / "file" / "video.mp4", tmp_path / ("a" * 300) / "b.mp4", Path("/proc/video.mp4"),
                 tmp_path / "circle"):
        with pytest.raises(OutputUnusable):
            check_output(path)
    check_output(tmp_path / "new" / "folder" / "video.mp4")
    check_output(tmp_path / ("a" * 250))
    assert not is_standard_output(tmp_path / "video.mp4")


@pytest.mark.parametrize(
    ("given", "url"),
    [("localhost:8000", "http://localhost:8000"), ("http://a.example/", "http://a.example"), ("a.example", "http://a.example"),
     ("127.0.0.1:1", "http://127.0.0.1:1"), ("[::1]:8000", "http://[::1]:8000"),
     ("https://a.example/video/", "https://a.example/video"), (" localhost ", "http://localhost")],
)
def test_a_server_is_named_with_a_scheme_or_without(given: str, url: str) -> None:
    assert server_url(given) == url


@pytest.mark.parametrize("given", ["", "ftp://a.example", "http://", "http://a:b:c", "::", "http://[::1"])
def test_what_names_no_server_is_told_so(given: str) -> None:
    with pytest.raises(GatewayFailure):
        server_url(given)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_make_demo_hands_a_prompt_on_to_the_letter(tmp_path: Path, prompt: str) -> None:
    venv = tmp_path / "v"
    (venv / "bin").mkdir(parents=True)
    (venv / ".ready").write_text("")
    program = venv / "bin" / "stillmotion"
    tell = f"import sys\nopen({str(tmp_path / 'told')!r}, 'w').write(repr(sys.argv[1:]))\n"
    program.write_text(f"#!{sys.executable}\n{tell}")
    program.chmod(0o755)
    picture = "my $1 cat's.jpg"
    subprocess.run(
        ["make", "-o", f"{venv}/.ready", "demo", f"VENV={venv}", f"PROMPT={prompt}", f"IMAGE={picture}"],
        cwd=ROOT, check=True, capture_output=True,
    )
    told = (tmp_path / "told").read_text()
    assert told == repr(["demo", "--output", "out/demo.mp4", f"--image={picture}", f"--prompt={prompt}"])


def test_words_in_any_script_are_taken_and_shown_on_a_terminal_that_knows_ascii_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    for arguments, told in (
        (["кот.jpg"], b"does not exist"),
        (["--prompt", "Мяч летит", "--output", str(tmp_path / "a.mp4"), "--url", "localhost:1"], b"Nothing answers"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", "generate", *arguments], env=environment, capture_output=True,
            check=False, cwd=ROOT,
        )
        assert done.returncode == 1
        assert told in done.stderr
        assert b"Traceback" not in done.stderr
