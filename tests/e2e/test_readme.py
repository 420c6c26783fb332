"""The curl examples of the README work as pasted."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
SERVED = "http://127.0.0.1:8000"
# Only so that a refusal is an error of curl's; no line is changed otherwise.
CURL = "curl() { command curl --fail-with-body --silent --show-error --noproxy '*' \"$@\"; }\n"


def examples() -> list[str]:
    """Every curl command of the README, its continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.fixture
def folder(tmp_path: Path, cat: Path) -> Path:
    """Where the examples are pasted: beside cat.jpg."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on PATH: apt-get install curl")
    with Image.open(cat) as picture:
        picture.convert("RGB").save(tmp_path / "cat.jpg")
    return tmp_path


def paste(command: str, folder: Path, stack: Stack, environment: Mapping[str, str]) -> str:
    run = subprocess.run(
        ["bash", "-c", CURL + command.replace(SERVED, stack.url)], cwd=folder, capture_output=True, text=True,
        timeout=120, check=False, env={**stack.environment, **environment},
    )
    assert run.returncode == 0, f"{command}\n{run.stdout}{run.stderr}"
    return run.stdout


def test_each_answers_and_together_they_bring_a_video(stack: Stack, folder: Path) -> None:
    stack.wait_ready()
    found, job, talk = examples(), "", ""
    assert len(found) >= 7, found
    for command in found:
        if "/cancel" in command:  # one that has just been accepted: the other was followed to its end
            job, done = json.loads(paste(found[0], folder, stack, {}))["id"], job
            assert json.loads(paste(command, folder, stack, {"JOB": job}))["id"] == job
            job = done
            continue
        said = paste(command, folder, stack, {"JOB": job, "CONV": talk})
        if not job:
            job = json.loads(said)["id"]
        if "/events" in command:
            assert "event:" in said
        elif '"messages"' in command:
            assert json.loads(said)["results"][0]["kind"] == "prompt"
            talk = talk or json.loads(said)["conversation"]
            assert json.loads(said)["conversation"] == talk
        elif "/v1/describe" in command:
            assert {"caption", "prompt", "edit_suggestion"} <= {one["kind"] for one in json.loads(said)["results"]}
    for name in ("cat.mp4", "video.mp4"):
        assert (folder / name).read_bytes()[4:8] == b"ftyp", name


def test_what_is_refused_is_json_that_says_what_to_do(stack: Stack, folder: Path) -> None:
    (folder / "cat.jpg").write_text("no picture at all")
    stack.wait_ready()
    for fields in ("-F image=@cat.jpg", "-F prompt=", "-F prompt=kite -F width=17", "-F prompt=kite -F colour=red"):
        said = subprocess.run(
            ["bash", "-c", f"curl -s --noproxy '*' {fields} {stack.url}/generate | {sys.executable} -m json.tool"],
            cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        )
        assert said.returncode == 0, said.stderr
        problem = json.loads(said.stdout)
        assert problem["status"] in (415, 422), problem
        assert problem["code"], problem
        assert len(problem["detail"].split()) > 3, problem
