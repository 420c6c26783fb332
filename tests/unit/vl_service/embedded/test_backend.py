"""The embedded engine's machinery on a tiny random decoder in the real layout."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.unit.vl_service.embedded.tiny_decoder import save_tiny_decoder, write_config
from tests.unit.vl_service.scenes import landscape, plain, prompt_task
from vl_service.backend import Deadline, DeadlineExceededError, Task
from vl_service.embedded.backend import EmbeddedBackend, load_embedded
from vl_service.embedded.checkpoint import EmbeddedCheckpointError, load_generator
from vl_service.embedded.model.decoder import RECORD_ROOM
from vl_service.embedded.model.generator import Generator
from vl_service.images import DecodedImage
from vl_service.settings import Settings
from vl_service.worker.program import load_backend


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_decoder(tmp_path_factory.mktemp("models") / "vl")


@pytest.fixture(scope="module")
def engine(folder: Path) -> EmbeddedBackend:
    return load_embedded(folder, threads=0)


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return load_generator(folder)[0]


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def picture(image: Image.Image | None = None) -> DecodedImage:
    image = image or landscape()
    return DecodedImage(rgb=image, width=image.width, height=image.height)


def soon() -> Deadline:
    return Deadline(at=time.monotonic() + 600)


def tasks_of(seed: int = 0) -> list[Task]:
    """One of each kind, in both languages between them."""
    return [
        prompt_task(kind="caption", language="zh", seed=seed, max_new_tokens=12),
        prompt_task(kind="edit_suggestion", seed=seed, max_new_tokens=12),
        prompt_task(kind="question", question="What is it?", seed=seed, max_new_tokens=12),
        prompt_task(language="zh", seed=seed, max_new_tokens=12)]


def say(engine: EmbeddedBackend, tasks: list[Task], shown: DecodedImage | None = None) -> list[str]:
    return [answer.text for answer in engine.describe(shown or picture(), tasks, soon()).answers]


def test_equal_seeds_give_equal_words_and_another_seed_draws_others(engine: EmbeddedBackend) -> None:
    first = say(engine, tasks_of(5)[:2])
    assert first == say(engine, tasks_of(5)[:2])
    assert any(first)
    assert first != say(engine, tasks_of(6)[:2])


@pytest.mark.full
def test_a_task_is_answered_alike_alone_and_among_others(engine: EmbeddedBackend) -> None:
    """All go on from one cache, which none of them may change."""
    together = say(engine, tasks_of())
    assert together[2:] == [say(engine, [task])[0] for task in tasks_of()[2:]]
    assert together == list(reversed(say(engine, list(reversed(tasks_of())))))


def test_the_picture_matters(engine: EmbeddedBackend) -> None:
    assert say(engine, tasks_of()[:1]) != say(engine, tasks_of()[:1], picture(plain(colour=(255, 0, 0))))


def test_the_cache_changes_no_number(generator: Generator) -> None:
    """Word after word with a cache, and all at once without one: the same states."""
    observation = generator.see(picture(), lambda: None)
    decoder = generator.decoder
    given = [generator.tokenizer.numbers[name] for name in ("<caption>", "<en>")]
    said = generator.say(observation, ["<caption>", "<en>"], "", 8, None, lambda: None)
    tokens = torch.tensor([[*given, *said.tokens]])
    places = RECORD_ROOM + torch.arange(tokens.shape[1])[None]
    past = observation.cache[0][0].shape[2]
    mask = torch.ones(tokens.shape[1], past + tokens.shape[1], dtype=torch.bool).tril(past)
    with torch.inference_mode():
        hidden, _ = decoder.hidden(decoder.embed(tokens, places), mask, observation.cache)
        expected = decoder.logits(hidden[0, len(given) - 1:-1]).argmax(-1).tolist()
    assert list(said.tokens) == expected
    assert len(said.tokens) == 8


def test_words_alone_make_a_prompt_without_a_look(engine: EmbeddedBackend) -> None:
    described = engine.describe(None, [prompt_task("pan left")], soon())
    assert described.answers[0].text == "The camera pans left."
    assert described.facts == {}


def test_a_passed_deadline_stops_before_the_look_and_a_later_one_within_a_text(
    engine: EmbeddedBackend, generator: Generator
) -> None:
    with pytest.raises(DeadlineExceededError):
        engine.describe(picture(), [prompt_task()], Deadline(at=0.0))
    observation = generator.see(picture(), lambda: None)
    calls = 0

    def third_time() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise DeadlineExceededError("late")

    with pytest.raises(DeadlineExceededError):
        generator.say(observation, ["<caption>", "<en>"], "", 50, None, third_time)
    assert calls == 3


def test_a_text_may_be_asked_for_up_to_a_marker(generator: Generator) -> None:
    observation = generator.see(picture(), lambda: None)
    whole = generator.say(observation, ["<caption>", "<en>"], "", 20, 5, lambda: None).tokens
    until = generator.tokenizer.pieces[whole[5]]
    said = generator.say(observation, ["<caption>", "<en>"], "", 20, 5, lambda: None, until)
    assert said.tokens == whole[:whole.index(whole[5])]
    assert said.ended


@pytest.mark.parametrize("at_most", [1, 7])
def test_no_text_has_more_tokens_than_were_asked_for(generator: Generator, at_most: int) -> None:
    observation = generator.see(picture(), lambda: None)
    said = generator.say(observation, ["<caption>", "<en>"], "", at_most, 5, lambda: None)
    assert len(said.tokens) == at_most
    assert not said.ended


def test_the_revision_names_the_content_of_every_file(folder: Path, broken: Path) -> None:
    revision = load_generator(folder)[1]
    assert load_generator(broken)[1] == revision
    config = json.loads((broken / "config.json").read_text("utf-8"))
    write_config(broken, config | {"thresholds": config["thresholds"] | {"sure": 0.7}})
    changed = load_generator(broken)[1]
    assert changed != revision
    weights = load_file(broken / "model.safetensors")
    weights["norm.weight"][0] += 1
    save_file(weights, broken / "model.safetensors")
    assert len({revision, changed, load_generator(broken)[1]}) == 3


def test_a_folder_without_thresholds_is_loaded_as_the_training_leaves_it(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text("utf-8"))
    del config["thresholds"]
    write_config(broken, config)
    assert 0 < load_generator(broken)[0].thresholds.likely < load_generator(broken)[0].thresholds.sure < 1


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _other_layers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if not name.startswith("blocks.1.")},
              folder / "model.safetensors")


def _not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["norm.weight"][0] = torch.nan
    save_file(weights, folder / "model.safetensors")


def _a_kind_too_few(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_config(folder, config | {"kinds": config["kinds"][1:]})


def _no_branch(folder: Path) -> None:
    save_file({}, folder / "branches.safetensors")


def _without_a_scale(folder: Path) -> None:
    weights = load_file(folder / "branches.safetensors")
    del weights["1.head.weight.scale"]
    save_file(weights, folder / "branches.safetensors")


def _a_block_too_few(folder: Path) -> None:
    weights = load_file(folder / "branches.safetensors")
    save_file({name: value for name, value in weights.items() if not name.startswith("0.blocks.9.")},
              folder / "branches.safetensors")


def _a_name_without_words(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_config(folder, config | {"called": ["犬", *config["called"][1:]]})


def _fewer_drawn_things(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_config(folder, config | {"names": config["names"] - 1})


def _fewer_words(folder: Path) -> None:
    words = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    (folder / "vocabulary.json").write_text(json.dumps(words[:-1]), "utf-8")


def _no_markers(folder: Path) -> None:
    (folder / "vocabulary.json").write_text('["a", "cat"]', "utf-8")


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text, "utf-8")
    return write


@pytest.mark.parametrize(("damage", "words"), [
    (_without("model.safetensors"), "lacks model.safetensors"), (_without("vocabulary.json"), "lacks vocabulary.json"),
    (_without("branches.safetensors"), "lacks branches.safetensors"),
    (_text("branches.safetensors", "weights"), "branches.safetensors is damaged"),
    (_no_branch, "it holds no branch"), (_without_a_scale, "branches.safetensors is damaged"),
    (_a_kind_too_few, "`kinds` needs 15 words"), (_a_block_too_few, "a branch has 9 blocks"),
    (_a_name_without_words, "vocabulary.json lacks words for 犬"),
    (_fewer_drawn_things, "model.safetensors is damaged"),
    (_without("config.json"), "lacks config.json"), (_cut_weights, "model.safetensors is damaged"),
    (_other_layers, "model.safetensors is damaged"), (_not_finite, "not finite"),
    (_fewer_words, "config.json is damaged: it speaks of"), (_no_markers, "vocabulary.json is damaged: it lacks"),
    (_text("vocabulary.json", "{}"), "vocabulary.json is damaged"),
    (_text("config.json", "{"), "config.json is damaged"),
    (_text("config.json", "[]"), "no whole number for vocabulary"),
    (_text("config.json", '{"vocabulary": 9, "names": 2, "width": "x", "layers": 1, "heads": 1}'),
     "no whole number for width"),
])
def test_a_checkpoint_that_is_not_whole_is_refused_by_the_file(
    broken: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(broken)
    with pytest.raises(EmbeddedCheckpointError, match=words):
        load_generator(broken)


def test_damaged_thresholds_are_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text("utf-8"))
    write_config(broken, config | {"thresholds": {"sure": 0.5}})
    with pytest.raises(EmbeddedCheckpointError, match="`thresholds`"):
        load_generator(broken)


def test_embedded_is_found_in_the_folder_of_models_and_any_such_folder_by_its_path(folder: Path) -> None:
    by_name = load_backend(Settings(models_dir=folder.parent))
    by_path = load_backend(Settings(model=str(folder)))
    assert by_name.info == by_path.info
    assert by_name.info.id == "embedded"


def test_there_is_no_silent_fallback_where_the_checkpoint_is_missing(tmp_path: Path) -> None:
    every = r"model\.safetensors, branches\.safetensors, vocabulary\.json, config\.json"
    with pytest.raises(EmbeddedCheckpointError, match=every):
        load_backend(Settings(models_dir=tmp_path))
