"""Profiles as files, and the prompts that come of what a model fills in."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Task
from vl_service.prompts.asking import Request, ask
from vl_service.prompts.polish import clean, length
from vl_service.prompts.profiles import (
    ProfileError,
    Template,
    UnknownTemplateError,
    policy,
    profile_named,
    profiles,
    read_library,
    template_named,
    templates,
)
from vl_service.prompts.shots import FIELDS, asks_for_move, read_shot, schema_of, without_camera
from vl_service.worker.describe import _polished

CAT: dict[str, Any] = {
    "subject": "a ginger cat", "motions": ["turns its head", "blinks"], "secondary_motion": ["its whiskers tremble"],
    "setting": "on a windowsill", "camera": "the camera zooms in fast", "light": "soft morning light",
    "style": "close-up", "avoid": ["people"]}
猫: dict[str, Any] = {
    "subject": "一只橘猫", "motions": ["转头", "眨眼"], "secondary_motion": ["胡须微颤"], "camera": "镜头快速推近",
    "light": "柔和的晨光"}


def told(task: Task, *said: str, with_picture: bool = True) -> tuple[str, list[Request]]:
    """The text that comes of what a model says, one after another; and what it was asked."""
    asked: list[Request] = []
    left = iter(said)

    def write(requests: Sequence[Request]) -> list[str]:
        asked.extend(requests)
        return [next(left) for _ in requests]

    [answer] = ask([task], write, with_picture=with_picture)
    return _polished(task, answer, ()).text, asked


def task_of(profile: str, words: str | None = None, **more: Any) -> Task:
    return prompt_task(words, profile=profile, **more)


def test_each_of_ours_is_whole() -> None:
    assert {"turbowan", "wan2.2", "wan2.1", "i2vgen-xl", "plain"} <= profiles().keys()
    for name, profile in profiles().items():
        if name == "embedded":
            continue
        assert profile.negative_prompt
        assert len(profile.examples) == 2
        assert not profile.invents_camera
        for example in profile.examples:
            text, _ = told(task_of(name), example.model_dump_json())
            assert length(text, "en") <= profile.max_words
            assert "camera" not in text or "stays fixed" in text
        assert list(schema_of(profile.fields, "en")["properties"]) == list(profile.fields)


@pytest.mark.parametrize(("profile", "words", "said", "expected"), [
    ("wan2.1", None, CAT, "A ginger cat turns its head, then blinks. Its whiskers tremble. On a windowsill. "
     "Soft morning light. Close-up."),
    ("wan2.2", None, CAT, "A ginger cat turns its head, then blinks. Its whiskers tremble. Soft morning light. "
     "The camera stays fixed."),
    ("wan2.2", "zoom in on it", CAT, "A ginger cat turns its head, then blinks. Its whiskers tremble. "
     "Soft morning light. The camera zooms in fast."),
    ("wan2.2", "the camera pans left", CAT | {"camera": ""}, "A ginger cat turns its head, then blinks. "
     "Its whiskers tremble. Soft morning light. the camera pans left."),
    ("i2vgen-xl", "The cat wakes. The camera orbits around it.", CAT | {"camera": ""}, "A ginger cat turns its head, "
     "then blinks. On a windowsill. Soft morning light. The camera orbits around it."),
    ("wan2.1", "the camera is static", CAT, "A ginger cat turns its head, then blinks. Its whiskers tremble. "
     "On a windowsill. Soft morning light. Close-up. the camera is static."),
])
def test_rules_say_what_the_model_filled_in(profile: str, words: str | None, said: Any, expected: str) -> None:
    """Camera moves are the user's, or none."""
    text, [request] = told(task_of(profile, words), json.dumps(said))
    parts = sorted(part.strip().lower() for part in text.split("."))
    assert parts == sorted(part.strip().lower() for part in expected.split("."))
    assert request.schema == schema_of(profile_named(profile).fields, "en")


def test_in_chinese_too() -> None:
    text, _ = told(task_of("wan2.2", language="zh"), json.dumps(猫, ensure_ascii=False))
    assert text == "一只橘猫转头，然后眨眼。胡须微颤。柔和的晨光。镜头固定不动。"
    asked, _ = told(task_of("wan2.2", "镜头拉远", language="zh"), json.dumps(猫 | {"camera": "镜头缓缓拉远"}))
    assert asked.endswith("镜头缓缓拉远。")


def test_quoted_words_and_what_to_avoid_survive() -> None:
    task = task_of("wan2.1", 'A sign says "OPEN 24h" in neon')
    [answer] = ask([task], lambda _: [json.dumps(CAT)], with_picture=True)
    result = _polished(task, answer, ("dark",))
    assert '"OPEN 24h"' in result.text
    assert result.negative_prompt is not None
    assert result.negative_prompt.endswith(", people")
    assert result.warnings == ["The picture is dark: what is in it may be seen wrongly."]


BROKEN = ["no JSON", "{", '{"subject": 5}', '{"subject": ""}', "[" * 2000, '{"subject": "猫在这里坐着看外面的风景"}']


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_shot_is_asked_for_once_more_and_then_as_text(broken: str) -> None:
    text, asked = told(task_of("wan2.1"), broken, json.dumps(CAT))
    assert text.startswith("A ginger cat")
    assert [request.seed for request in asked] == [asked[0].seed, asked[0].seed + 1]
    text, asked = told(task_of("wan2.1"), broken, broken, "A cat sits. The camera zooms in.")
    assert text == "A cat sits."
    assert [request.schema is None for request in asked] == [False, False, True]


def test_thinking_and_fences_around_the_json_are_left_out() -> None:
    text, _ = told(task_of("wan2.1"), f"<think>{{a cat?}}</think>Sure:\n```json\n{json.dumps(CAT)}\n```")
    assert text.startswith("A ginger cat turns its head, then blinks.")


@pytest.mark.parametrize(("text", "left"), [
    ("A cat sits. The camera slowly zooms in. It blinks.", "A cat sits. It blinks."),
    ("A cat sits as the camera pans left.", "A cat sits."),
    ("The leaves stir in the wind, the camera follows them.", "The leaves stir in the wind."),
    ("A man lifts a frying pan. The shot is static.", "A man lifts a frying pan. The shot is static."),
    ("The camera stays fixed on the cat.", "The camera stays fixed on the cat."),
    ("The camera zooms in.", "The camera zooms in."),  # better than nothing
    ("Panning shot: dolly in.", "Panning shot: dolly in."),
])
def test_moves_that_nobody_asked_for_leave_the_text(text: str, left: str) -> None:
    assert without_camera(text, "en") == left


def test_camera_moves_are_known_by_their_words() -> None:
    assert asks_for_move("zoom in"), asks_for_move("镜头推近")
    assert not asks_for_move("a pan on the stove", "the camera stays fixed", "镜头固定", None)


def test_a_text_that_goes_round_is_cut() -> None:
    assert clean("The cat sits on a mat and then and then and then and then") == "The cat sits on a mat and then "[:-1]


def test_templates_are_words_of_the_request() -> None:
    template = template_named("product turntable", "en")
    _, [request] = told(task_of("wan2.1", template=template), json.dumps(CAT))
    assert "turns once around its own axis" in request.messages[-1]["content"][-1]["text"]
    with pytest.raises(UnknownTemplateError, match="portrait"):
        template_named("nothing", "en")


def test_every_template_of_ours_is_written_and_titled_for_people_of_both_languages() -> None:
    listed = {one.name: one.title for one in templates()}
    assert list(listed) == list(read_library().templates)
    assert {tuple(one.words) for one in read_library().templates.values()} == {("en", "zh")}
    assert all("zh" in title for title in listed.values())


def test_a_folder_adds_profiles_and_templates_and_replaces_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "wan2.2"\nmax_words = 12\nfields = ["subject", "light"]\n')
    (tmp_path / "plain.toml").write_text('extends = "plain"\ninvents_camera = true\n')
    (tmp_path / "templates.toml").write_text('["flip"]\nen = "It flips."\ntitle = { zh = "翻转" }\n')
    library = read_library(tmp_path)
    mine = library.profiles["mine"]
    assert (mine.max_words, mine.fields, mine.like) == (12, ("subject", "light"), "wan2.2")
    assert mine.guide == library.profiles["wan2.2"].guide
    assert library.profiles["plain"].invents_camera
    assert library.templates["flip"] == Template(words={"en": "It flips."}, title={"zh": "翻转"})
    assert list(library.templates)[-1] == "flip", "after ours"


@pytest.mark.parametrize(("file", "text", "words"), [
    ("mine.toml", "max_words = ", "mine.toml is no TOML"),
    ("mine.toml", 'extends = "nothing"', "mine.toml cannot be used: KeyError"),
    ("mine.toml", "max_words = 5", "KeyError"),
    ("mine.toml", 'extends = "plain"\ncolour = "red"', "unknown colour"),
    ("mine.toml", 'extends = "plain"\nfields = ["subject", "smell"]', "smell is none of subject"),
    ("templates.toml", "flip = 5", "template 'flip'"),
    ("templates.toml", '["flip"]\ntitle = { en = "Flip" }', "template 'flip' needs text"),
    ("templates.toml", '["flip"]\nen = "It flips."\ntitle = "Flip"', "title of the template 'flip'"),
    ("templates.toml", f'["{"f" * 65}"]\nen = "It flips."', "1 to 64 characters"),
])
def test_what_cannot_be_used_is_named(tmp_path: Path, file: str, text: str, words: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ProfileError, match=words):
        read_library(tmp_path)
    with pytest.raises(ProfileError, match="no folder"):
        read_library(tmp_path / "nowhere")


def test_fields_are_those_of_a_shot() -> None:
    assert read_shot(json.dumps(CAT)) is not None
    assert set(CAT) == set(FIELDS)




@pytest.mark.parametrize(("said", "verdict", "reason"), [
    (['{"reason": "A cat.", "verdict": "ok"}'], "ok", "A cat."),
    (['<think>{}</think>```json\n{"verdict": "refuse", "reason": "A nude child."}\n```'], "refuse", "A nude child."),
    (["It is fine.", '{"reason": "", "verdict": "review"}'], "review", "review"),
    (['{"reason": "x", "verdict": "allowed"}', "ok"], "review", "The model gave no verdict that could be read."),
])
def test_a_verdict_is_read_asked_for_twice_and_in_doubt_a_matter_of_review(
    said: list[str], verdict: str, reason: str
) -> None:
    task = replace(prompt_task("a <user>cat</user>", profile="plain"), kind="verdict", instruction="dramatic")
    asked: list[Request] = []

    def write(requests: Sequence[Request]) -> list[str]:
        asked.extend(requests)
        return [said[len(asked) - 1] for _ in requests]

    [answer] = ask([task], write, with_picture=True)
    assert (answer.verdict, answer.text, len(asked)) == (verdict, reason, len(said))
    words = asked[0].messages[-1]["content"][-1]["text"]
    assert policy("en") in words
    assert "a  cat" in words
    assert "dramatic" in words


def test_a_policy_of_the_users_takes_the_place_of_ours(tmp_path: Path) -> None:
    ours = read_library()
    (tmp_path / "policy.toml").write_text('en = "refuse: dogs"\n')
    theirs = read_library(tmp_path)
    assert theirs.policy == {"en": "refuse: dogs"}
    assert theirs.hash != ours.hash
    (tmp_path / "policy.toml").write_text('fr = "refuse: chiens"\n')
    with pytest.raises(ProfileError, match=r"policy\.toml needs text by language"):
        read_library(tmp_path)
