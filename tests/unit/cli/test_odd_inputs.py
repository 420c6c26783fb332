"""Odd words, places and outputs on the command line: a sentence, never a traceback; and nothing is lost by them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from gateway.cli.serving.stack import read_settings
from tests.unit.gateway.conftest import gateway_settings
from tests.unit.gateway.live_gateway import LiveGateway
from tests.unit.gateway.model_services import running_services

ROOT = Path(__file__).parents[3]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_services() as services:
        gateway = LiveGateway(gateway_settings(tmp_path_factory.mktemp("odd"), services))
        yield str(gateway.client.base_url)
        gateway.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (256, 192), "red").save(tmp_path / "a.png")
    return tmp_path


def run(folder: Path, arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """`stillmotion` with what a shell makes of `arguments`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "STILL"))}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m gateway.cli {arguments}"], cwd=folder, check=False,
        capture_output=True, timeout=60,
        env={**environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'services'}", "STILLMOTION_DATA": "data", **variables})
    assert b"Traceback" not in done.stderr + done.stdout, done.stderr
    return done


@pytest.mark.parametrize(("arguments", "file"), [
    ("-o video.mp4 > /dev/full 2>&1", "video.mp4"),
    ("-o video.mp4 | true", "video.mp4"),
    ("-o video.mp4 >&- 2>&-", "video.mp4"),
    ("-o new/", "new/video.mp4"),
    ("-o '50% ? # [b].mp4' --key ''", "50% ? # [b].mp4"),
    ("-o - > shell.mp4", "shell.mp4"),
    ("-o shell.mp4 --key \"$(printf 'sm_any\\n')\"", "shell.mp4"),
])
def test_the_video_comes_whatever_becomes_of_the_words(folder: Path, url: str, arguments: str, file: str) -> None:
    done = run(folder, f"generate a.png --url {url} {arguments}")
    assert done.returncode == 0, done.stderr
    assert (folder / file).stat().st_size == 131072


@pytest.mark.parametrize(("arguments", "told"), [
    ("a.png -o a.png", "is the picture itself"),
    ("/dev/zero", "is no file"),
    ("a.png --extend-from none", "There is no job none"),
    ("a.png --url localhost:99999", "no address of a server"),
    ("a.png --key 'Schlüssel'", "characters that no key has"),
    ("a.png --key $'a\\nb'", "characters that no key has"),
])
def test_what_cannot_be_done_is_said_in_a_sentence(folder: Path, url: str, arguments: str, told: str) -> None:
    before = (folder / "a.png").read_bytes()
    done = run(folder, f"generate --url {url} {arguments}")
    assert (done.returncode, told in done.stderr.decode()) == (1, True), done.stderr
    assert (folder / "a.png").read_bytes() == before


def test_a_video_goes_on_from_the_job_that_was_told(folder: Path, url: str) -> None:
    first = run(folder, f"generate a.png --url {url} --num-frames 17 -o a.mp4").stdout.decode()
    said = re.search(r"^ *job +(\S+) *$", first, re.MULTILINE)
    assert said, first
    done = run(folder, f"generate --extend-from {said[1]} --prompt 'it lands' --url {url} -o b.mp4")
    assert done.returncode == 0, done.stderr
    job = httpx.get(f"{url}/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert (job["video"]["num_frames"], job["actual_prompt"][:8]) == (33, "it lands")
    assert (folder / "b.mp4").stat().st_size == 131072


def test_a_picture_may_come_from_a_pipe(folder: Path, url: str) -> None:
    assert run(folder, f"generate <(cat a.png) --url {url} -o b.mp4").returncode == 0


def test_a_key_that_nobody_saw_opens_nothing(folder: Path) -> None:
    outputs = ("> /dev/full", ">&-", "| true", "2> /dev/full")
    for number, output in enumerate(outputs):
        assert run(folder, f"keys create --new key-{number} {output}").returncode == 1, output
    assert run(folder, "keys list").stdout.decode().count("revoked") == len(outputs)


@pytest.fixture(scope="module")
def with_a_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a server has kept something."""
    folder = tmp_path_factory.mktemp("keys")
    assert run(folder, "keys create --new first").returncode == 0
    return folder


@pytest.mark.parametrize(("arguments", "variables"), [
    ("keys revoke $'\\xff'", {}), ("keys webhook-secret $'\\xff'", {}), ("keys create $'\\xff'", {}),
    ("keys list > /dev/full", {}), ("keys create --new a", {"STILLMOTION_DATA": "\udcff"}),
    ("keys list", {"GATEWAY_DATABASE_URL": "postgresql://a:b@localhost:port/c"}),
])
def test_keys_are_kept_from_what_no_database_takes(
    with_a_key: Path, arguments: str, variables: dict[str, str]
) -> None:
    assert run(with_a_key, arguments, **variables).returncode == 1


def test_a_key_has_a_name_in_any_script(folder: Path) -> None:
    assert run(folder, "keys create --new 'Fluß🐈'", **ASCII).returncode == 0
    assert "Fluß🐈" in run(folder, "keys list", PYTHONUTF8="1").stdout.decode()


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "")
    monkeypatch.setenv("GATEWAY_HOST", "")
    settings = read_settings()
    assert (settings.gateway_host, settings.gateway_port) == ("127.0.0.1", 8000)


@pytest.mark.parametrize("arguments", [
    "engines list > /dev/full", "engines list >&-", "engines --help > /dev/full", "keys list > /dev/full",
    "--help > /dev/full",
])
def test_what_cannot_be_said_ends_in_a_sentence(folder: Path, arguments: str) -> None:
    run(folder, "keys create --new a")
    done = run(folder, arguments, PYTHONUNBUFFERED="")
    (sentence,) = [line for line in done.stderr.decode().splitlines() if "[transformers]" not in line]
    assert (done.returncode, sentence[:12]) == (1, "The output: ")


def test_where_the_sentence_cannot_be_said_either_the_status_tells(folder: Path) -> None:
    assert run(folder, "engines list > /dev/full 2>&1").returncode == 1
