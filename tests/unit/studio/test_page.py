"""What the page makes of a model's bounds, of a job, and of texts from outside."""

import json
import shlex
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from contracts.jobs import EffectiveParameters, Job, JobProgress, JobState, JobUrls, VideoFile
from contracts.models import FloatRange, FrameRange, Health, IntRange, ListedVideoModel, ListedVLModel, ModelList
from studio.api import Api, templates
from studio.page.bounds import (
    AS_PICTURE,
    BEST,
    QUICK,
    USUAL,
    fields_of,
    seconds_range,
    sizes,
    steps_for,
    templates_offered,
)
from studio.page.create import asked_in
from studio.snippets import as_curl, as_python, fields_again
from studio.tongues import ENGLISH, MANDARIN
from studio.views.gallery import gallery
from studio.views.job import ended, progress
from studio.views.server import server
from studio.words import WORDS

MODEL = ListedVideoModel(
    id="wan", profile="wan", tasks=["t2v", "i2v"], sizes=["832x480", "480x480"], size_multiple=16, min_side=64,
    max_pixels=832 * 480, num_frames=FrameRange(minimum=5, maximum=81, default=33, step=4),
    fps=IntRange(minimum=8, maximum=30, default=16), steps=IntRange(minimum=4, maximum=50, default=30),
    guidance_scale=FloatRange(minimum=1, maximum=10, default=5), samplers=["unipc", "rcm_ode"],
    sampler_steps={"rcm_ode": IntRange(minimum=1, maximum=4, default=4)}, unguided_samplers=["rcm_ode"],
    revision="r", engine="torch-cpu", dtype="float32", created=0,
)
VL: dict[str, Any] = {
    "id": "vl", "kind": "vl", "revision": "r", "engine": "transformers-cuda", "dtype": "bfloat16", "tasks": [],
    "languages": ["en", "zh"], "profiles": [], "created": 0,
}
EVIL = "<img src=x onerror=alert(1)> & 'quoted' \"twice\""


def chosen(**changed: Any) -> list[Any]:
    """The controls under More as they stand at first, but for what is named."""
    usual = {"size": AS_PICTURE, "seconds": seconds_range(MODEL)[2], "steps": 30, "sampler": "unipc", "guidance": 5.0,
             "guidance_2": 1.0, "fps": 16, "loras": [], "scale": 1.0}
    return list((usual | changed).values())


def job(state: JobState = "completed", **changed: Any) -> Job:
    now = datetime.now(UTC)
    return Job.model_validate({
        "id": "job_1", "state": state, "created_at": now, "original_prompt": EVIL, "actual_prompt": EVIL,
        "parameters": EffectiveParameters(
            model=EVIL, profile="wan", width=832, height=480, num_frames=33, fps=16, steps=4, sampler="rcm_ode",
            guidance_scale=1.0, seed=7, language="en"),
        "timings": {"queued": 0.1, "describing": 1.0, "rendering": 3.0, "render.denoise": 2.5, "total": 4.5},
        "urls": JobUrls(self="/v1/jobs/job_1", events="e", cancel="c"),
        "video": VideoFile(num_bytes=1, sha256="0", width=832, height=480, num_frames=33, fps=16, duration_s=2.0),
        **changed,
    })


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({}, {}),
        ({"size": "480x480"}, {"size": "480x480"}),
        ({"seconds": 1.0}, {"num_frames": 17}),
        ({"seconds": 99.0}, {"num_frames": 81}),
        ({"fps": 8}, {"fps": 8, "num_frames": 17}),
        ({"steps": 12, "guidance": 7.5}, {"steps": 12, "guidance_scale": 7.5}),
        ({"sampler": "rcm_ode", "steps": 4, "guidance": 7.5}, {"sampler": "rcm_ode"}),
        ({"sampler": "rcm_ode", "steps": 2}, {"sampler": "rcm_ode", "steps": 2}),
        ({"loras": ["ink"], "scale": 0.5}, {"loras": [{"id": "ink", "scale": 0.5}]}),
    ],
)
def test_only_what_is_not_the_models_default_is_asked_for_and_within_its_bounds(
    changed: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert fields_of(MODEL, chosen(**changed)) == fields


def test_a_quality_is_a_number_of_steps_that_the_sampler_takes() -> None:
    assert [steps_for(MODEL, None, quality) for quality in (QUICK, USUAL, BEST)] == [15, 30, 50]
    assert [steps_for(MODEL, "rcm_ode", quality) for quality in (QUICK, USUAL, BEST)] == [2, 4, 4]


def test_sizes_are_named_by_their_shape() -> None:
    labels = [label for label, _ in sizes(MODEL, WORDS["en"])]
    assert labels == ["As the picture", "832 × 480 · 1.73:1", "480 × 480 · 1:1"]


@pytest.mark.parametrize(("listed", "offered", "is_shown"), [
    ([{"name": "slow push in", "title": {"zh": "缓慢推近"}}, {"name": "mine"}],
     {"en": ["None", "Slow push in", "Mine"], "zh": ["无", "缓慢推近", "Mine"]}, True),
    (None, {"en": ["None"], "zh": ["无"]}, False),
])
def test_templates_are_offered_by_their_titles_and_of_an_older_service_none(
    listed: list[dict[str, Any]] | None, offered: dict[str, list[str]], is_shown: bool
) -> None:
    more = {} if listed is None else {"templates": listed}
    vl = ListedVLModel.model_validate(VL | more)
    found = templates(ModelList(data=[MODEL, vl, vl]))
    for words in WORDS.values():
        shown = templates_offered(found, words)
        assert ([label for label, _ in shown.choices], shown.visible) == (offered[words.language], is_shown)
        assert [value for _, value in shown.choices] == ["", *(one["name"] for one in listed or [])]


def test_a_template_is_asked_for_by_its_name_where_one_is_chosen() -> None:
    words = WORDS["en"]
    asked = asked_in(words, "", "orbit", enhance=True)
    assert asked["template"] == "orbit"
    assert [asked_in(words, "A cat.", none, enhance=True).get("template") for none in ("", None)] == [None, None]


async def test_what_a_newer_server_says_beside_the_rest_is_not_read() -> None:
    answer = {"object": "list", "data": [MODEL.model_dump() | {"mood": "good"}, VL | {"mood": "good"}], "mood": "good"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    async with httpx.AsyncClient(base_url="http://there", transport=transport) as http:
        assert [model.id for model in (await Api(http=http).models()).data] == ["wan", "vl"]


def test_both_languages_say_everything() -> None:
    assert ENGLISH.keys() == MANDARIN.keys()


@pytest.mark.parametrize("state", ["queued", "running", "completed", "failed", "canceled", "expired"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_from_outside_are_text_on_the_page(state: JobState, language: str) -> None:
    words = WORDS[language]  # pyright: ignore[reportArgumentType] - a parameter's value
    now = JobProgress(
        stage="rendering", waiting_for="database", waiting_detail=EVIL, preview=f"data:image/jpeg;base64,{EVIL}")
    one = job(state, warnings=[EVIL], progress=now)
    shown = progress(one, words, EVIL) + ended(one, words, "http://here") + gallery([one], words)
    assert "<img src=x" not in shown
    assert 'alert(1)> & ' not in shown


@pytest.mark.parametrize(
    ("preview", "images"), [("data:image/jpeg;base64,AAAA", 1), ("https://else/where.jpg", 0), (None, 0)])
def test_what_is_becoming_of_it_is_shown_while_it_renders(preview: str | None, images: int) -> None:
    shown = progress(job("running", progress=JobProgress(stage="rendering", preview=preview)), WORDS["en"])
    assert shown.count(f'<img class="sm-glimpse" src="{preview}"') == shown.count("<img") == images


@pytest.mark.parametrize(("listed", "shown"), [
    ([], ""), ([{"name": "cpu"}], "cpu"), ([{"name": "Old", "memory_bytes": 2**33}], "Old 8.0 GiB"),
    ([{"name": "NVIDIA H200", "memory_bytes": 140 * 2**30, "free_bytes": 2**36}] * 2,
     "NVIDIA H200: 64.0 of 140.0 GiB free; NVIDIA H200: 64.0 of 140.0 GiB free"),
])
def test_the_server_page_names_the_devices_of_a_model_and_what_is_free_there(
    listed: list[dict[str, Any]], shown: str
) -> None:
    models = ModelList(data=[ListedVLModel.model_validate(VL | {"devices": listed})])
    assert f'<td data-column="Device">{shown}</td></tr>' in server(Health(ready=True), models, 0, 0, WORDS["en"])


def test_seconds_of_a_stage_stand_once_and_their_sums_not() -> None:
    shown = ended(job(), WORDS["en"], "http://here")
    assert ("2.50 s" in shown, "3.00 s" in shown, "4.50 s" in shown) == (True, False, False)


@pytest.mark.parametrize("with_picture", [True, False])
def test_a_copied_call_asks_for_the_same_video(with_picture: bool) -> None:
    words = shlex.split(as_curl(job(), "http://here", with_picture=with_picture).replace("\\\n", " "))
    assert words[-1] == "http://here/generate"
    wanted = fields_again(job())
    if with_picture:
        sent = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--form-string")
        assert sent == {name: value if isinstance(value, str) else json.dumps(value) for name, value in wanted.items()}
    else:
        assert json.loads(words[words.index("-d") + 1]) == wanted
    assert (wanted["seed"], wanted["prompt"], wanted["enhance"]) == (7, EVIL, "never")
    compile(as_python(job(), "http://here", with_picture=with_picture), "copied", "exec")
