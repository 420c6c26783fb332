"""The prompt of a decoder that has learnt its texts: in every profile and language, within its limits, as asked."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.describe import Language
from tests.unit.vl_service.embedded.taught import taught
from tests.unit.vl_service.embedded.test_motions import OWN_WORDS
from tests.unit.vl_service.scenes import plain, prompt_task
from vl_service.describe import _polish
from vl_service.embedded.text.answers import Answers
from vl_service.embedded.text.motions import motion_names, quoted_parts, read_request
from vl_service.embedded.text.prompt import write_prompt
from vl_service.images import DecodedImage
from vl_service.prompts.polish import in_language, length
from vl_service.prompts.profiles import profiles

SCENES = tuple(taught())
LANGUAGES: tuple[Language, ...] = ("en", "zh")
EVERYTHING = list(itertools.product(SCENES, profiles(), LANGUAGES))
PICTURE = DecodedImage(rgb=plain(), width=192, height=128)


def camera_moves(text: str) -> set[str]:
    return {motion.name for motion in read_request(text).motions if motion.kind == "camera"}


def teller_of(scene: str) -> Answers:
    generator = taught()[scene]
    return Answers(generator, generator.see(PICTURE, lambda: None), lambda: None)


def finished(scene: str | None, **task: object) -> str:
    resolved = prompt_task(**task)  # pyright: ignore[reportArgumentType]
    return _polish(resolved, write_prompt(None if scene is None else teller_of(scene), resolved))


@pytest.mark.parametrize(("scene", "profile", "language"), EVERYTHING)
def test_every_profile_gets_its_language_and_length(scene: str, profile: str, language: Language) -> None:
    style = profiles()[profile]
    written = style.language_for(language)
    text = finished(scene, profile=profile, language=language)
    assert in_language(text, written)
    assert 3 < length(text, written) <= (style.max_words if written == "en" else style.max_chars)
    assert text[-1] in ".。"
    assert ".." not in text
    assert "  " not in text


@pytest.mark.parametrize(("scene", "profile", "language"), EVERYTHING)
def test_only_a_profile_that_may_invents_a_camera_move(scene: str, profile: str, language: Language) -> None:
    moves = camera_moves(finished(scene, profile=profile, language=language)) - {"hold_still"}
    assert not moves or profiles()[profile].invents_camera
    assert len(moves) <= 1


@pytest.mark.parametrize(("scene", "language"), list(itertools.product(SCENES, LANGUAGES)))
def test_the_embedded_profile_says_a_subject_and_one_trained_motion(scene: str, language: Language) -> None:
    text = finished(scene, language=language)
    assert len(read_request(text).motions) == 1
    assert text.count("." if language == "en" else "。") == 2


ASKED = ["zoom in", "slow zoom out", "pan left", "pan right", "tilt up", "tilt down", "rotate clockwise", "hold still",
         "quickly rotate counterclockwise", "handheld", "镜头拉远", "镜头缓缓向左平移", "画面静止不动"]


@pytest.mark.parametrize(("asked", "profile", "language"), list(itertools.product(ASKED, profiles(), LANGUAGES)))
def test_the_motion_asked_for_is_the_only_camera_move(asked: str, profile: str, language: Language) -> None:
    wanted = read_request(asked).motions
    for scene in SCENES:
        text = finished(scene, user_prompt=asked, profile=profile, language=language)
        assert camera_moves(text) == {wanted[0].name}
        found = next(motion for motion in read_request(text).motions if motion.name == wanted[0].name)
        assert found.speed == wanted[0].speed or wanted[0].name in ("hold_still", "handheld")


def test_a_motion_that_was_ruled_out_is_not_written() -> None:
    for scene, seed in itertools.product(SCENES, range(8)):
        assert "zoom_in" not in camera_moves(finished(scene, user_prompt="do not zoom in", seed=seed))


def test_a_description_that_rules_a_motion_out_gets_another_one() -> None:
    for seed in range(8):
        moves = camera_moves(finished("cat", user_prompt="a cat on a red sofa, do not zoom", seed=seed))
        assert moves
        assert not moves & {"zoom_in", "zoom_out"}


@pytest.mark.parametrize("profile", list(profiles()))
def test_quoted_words_stay_to_the_letter(profile: str) -> None:
    words = 'The neon sign "OPEN  24h; zoom in" lights up'
    text = finished("cat", user_prompt=words, profile=profile)
    # runs of blanks inside a JSON string are the one thing that does not survive a paragraph
    assert '"OPEN 24h; zoom in"' in text


QUOTABLE = st.characters(codec="utf-8", categories=("L", "N", "P"), exclude_characters='"“”「」『』《》‘’\'')


@given(quoted=st.text(QUOTABLE, min_size=1, max_size=40),
       profile=st.sampled_from(sorted(profiles())), language=st.sampled_from(LANGUAGES))
@settings(max_examples=60, deadline=None)
def test_any_quoted_words_survive(quoted: str, profile: str, language: Language) -> None:
    words = f'a banner that reads "{quoted}" waves'
    assert f'"{quoted}"' in finished("coffee", user_prompt=words, profile=profile, language=language)


def test_the_users_own_motion_gets_no_second_one() -> None:
    text = finished("cat", user_prompt="the cat turns its head")
    assert text == "The cat turns its head."


@pytest.mark.parametrize(("words", "profile"), list(itertools.product(OWN_WORDS, profiles())))
def test_words_that_tell_of_motion_or_stillness_get_no_camera_move_beside_their_own(words: str, profile: str) -> None:
    for scene in ("cat", "ship at sea", None):
        assert camera_moves(finished(scene, user_prompt=words, profile=profile)) <= camera_moves(words) | {"hold_still"}


@pytest.mark.parametrize("words", ["we soar over the rooftops", "a drone shot along the coast", "航拍海岸线"])
def test_a_camera_that_moves_in_the_users_words_is_not_held_still(words: str) -> None:
    for profile in profiles():
        assert "hold_still" not in camera_moves(finished("ship at sea", user_prompt=words, profile=profile))


def test_a_thing_that_moves_in_the_users_words_is_not_the_subject() -> None:
    assert finished("cat", user_prompt="white snowflakes fall softly all around the garden") == (
        "White snowflakes fall softly all around the garden.")
    assert "falls" not in finished("cat", user_prompt="雪花飘落")


def test_a_motion_said_in_one_language_is_not_said_again_in_the_other() -> None:
    assert finished("cat", user_prompt="小猫眨眼，镜头缓缓推近") == "小猫眨眼，镜头缓缓推近。"


@pytest.mark.parametrize("words", ["make it move", "animate this", "please bring this photo to life, it should move",
                                   "让画面动起来"])
def test_asking_for_any_motion_gets_a_fitting_one(words: str) -> None:
    assert len(read_request(finished("cat", user_prompt=words)).motions) == 1


def test_ruling_one_motion_out_leaves_the_rest_of_the_wish_alone() -> None:
    text = finished("cat", user_prompt="no zoom, just let the whiskers twitch")
    assert "just let the whiskers twitch" in text
    assert "holds still" not in text
    assert not camera_moves(text)


def test_a_description_without_motion_gets_a_fitting_one_and_keeps_its_words() -> None:
    text = finished("coffee", user_prompt="Golden morning in a quiet cafe, crumbs on the table.")
    assert "Golden morning in a quiet cafe, crumbs on the table." in text
    assert len(read_request(text).motions) == 1


def test_the_users_words_are_never_cut_however_long() -> None:
    words = " ".join(f"word{number}" for number in range(200)) + " drifts"
    assert words[1:] in finished("cat", user_prompt=words)


def test_words_alone_make_a_prompt_without_a_picture() -> None:
    for profile, language in itertools.product(profiles(), LANGUAGES):
        text = finished(None, user_prompt="a red balloon over the sea", profile=profile, language=language)
        assert "red balloon over the sea" in text
    assert finished(None, user_prompt="slow zoom out") == "The camera slowly zooms out."


def test_an_instruction_sets_mood_speed_or_motion() -> None:
    assert finished("cat", instruction="slow zoom out").endswith("The camera slowly zooms out.")
    assert read_request(finished("cat", instruction="fast and energetic")).motions[0].speed == "quick"
    assert "dramatic" in finished("cat", instruction="make it dramatic", profile="wan2.1")


def test_the_seed_draws_the_motion_and_nothing_else() -> None:
    texts = [finished("cat", seed=seed) for seed in range(12)]
    assert texts == [finished("cat", seed=seed) for seed in range(12)]
    assert len(set(texts)) > 1
    assert {text.partition(". ")[0] for text in texts} == {"A photo of a tabby cat"}


def test_without_a_picture_the_seed_chooses_a_move_that_suits_anything() -> None:
    moves = {frozenset(camera_moves(finished(None, user_prompt="a red balloon", seed=seed))) for seed in range(20)}
    assert len(moves) > 2
    assert all(len(move) == 1 for move in moves)


def test_the_thing_that_was_seen_moves_as_asked() -> None:
    assert finished("three cats", user_prompt="spin") == (
        "A photo of three tabby cats. Each of the three tabby cats spins.")
    assert finished("cat", user_prompt="旋转", language="zh") == "一只虎斑猫的照片。虎斑猫旋转。"
    assert finished("unsure", user_prompt="spin").endswith("The subject spins.")


def test_an_unsure_scene_names_no_subject() -> None:
    for scene, profile, language in itertools.product(("unsure", "some kind"), profiles(), LANGUAGES):
        text = finished(scene, profile=profile, language=language)
        assert "cat" not in text
        assert "猫" not in text


def test_a_motion_that_the_video_checkpoint_does_not_know_is_never_written() -> None:
    """Whatever the decoder says moves, the sentence is one of the motion vocabulary."""
    known = set(motion_names())
    for scene, language, seed in itertools.product(SCENES, LANGUAGES, range(6)):
        text = finished(scene, language=language, seed=seed)
        motions = read_request(text).motions
        assert len(motions) == 1
        assert motions[0].name in known
        it = "the subject" if language == "en" else "主体"
        if motions[0].kind != "object":
            assert motions[0].sentence(language, it) in text


def test_quotation_marks_are_found_in_every_style() -> None:
    assert quoted_parts("写着「你好」和《书》") == ["「你好」", "《书》"]
