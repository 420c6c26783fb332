"""A job as a call that others can run: curl and Python."""

import json
import shlex
from typing import Any

from contracts.jobs import Job


def fields_again(job: Job) -> dict[str, Any]:
    """What renders the same video once more (`POST /generate`); its seed included."""
    wanted = job.parameters
    fields: dict[str, Any] = {
        "prompt": job.actual_prompt or job.original_prompt, "enhance": "never", "model": wanted.model,
        "size": f"{wanted.width}x{wanted.height}", "num_frames": wanted.num_frames, "fps": wanted.fps,
        "steps": wanted.steps, "sampler": wanted.sampler, "guidance_scale": wanted.guidance_scale,
        "guidance_scale_2": wanted.guidance_scale_2, "seed": wanted.seed, "language": wanted.language,
        "negative_prompt": job.metadata.get("negative_prompt"), "loras": [lora.model_dump() for lora in wanted.loras],
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def as_curl(job: Job, url: str, *, with_picture: bool) -> str:
    """Waits for the video and writes it to `video.mp4`."""
    # An empty key is as good as none where none is wanted.
    parts = ["curl", "-o video.mp4", '-H "Accept: video/mp4"', '-H "Authorization: Bearer $STILLMOTION_KEY"']
    if with_picture:
        parts.append("-F image=@picture.jpg")
        for name, value in fields_again(job).items():
            said = value if isinstance(value, str) else json.dumps(value)
            # A value that begins with @ or < would be a file's name to -F.
            parts.append(f"--form-string {shlex.quote(f'{name}={said}')}")
    else:
        parts += ['-H "Content-Type: application/json"', f"-d {shlex.quote(_compact(fields_again(job)))}"]
    return " \\\n  ".join([*parts, f"{url}/generate"])


def as_python(job: Job, url: str, *, with_picture: bool) -> str:
    """The same with httpx."""
    fields = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in fields_again(job).items()
    } if with_picture else fields_again(job)
    lines = [
        "import os", "", "import httpx", "", f"fields = {fields!r}",
        "key = os.environ.get('STILLMOTION_KEY', '')  # where the server wants one",
        'headers = {"Accept": "video/mp4"} | ({"Authorization": f"Bearer {key}"} if key else {})',
    ]
    sent = 'data=fields, files={"image": open("picture.jpg", "rb")}' if with_picture else "json=fields"
    lines += [
        f'answer = httpx.post("{url}/generate", {sent}, headers=headers, timeout=900)', "answer.raise_for_status()",
        'open("video.mp4", "wb").write(answer.content)',
    ]
    return "\n".join(lines)


def _compact(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False)
