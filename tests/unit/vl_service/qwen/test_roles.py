"""The vision and the language role: parts of one checkpoint that say together what the whole says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.unit.vl_service.qwen.built_tower import FIRST, Build
from tests.unit.vl_service.qwen.roles import CAT, TASKS, Parts, save_sharded, say, served, settings, shards, soon
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES
from tests.unit.vl_service.scenes import prompt_task
from vl_service.images import DecodedImage
from vl_service.qwen.backend import load_qwen
from vl_service.qwen.checkpoint import UnsupportedCheckpointError
from vl_service.qwen.vision.looking import load_vision


@pytest.fixture(scope="module", params=[*FAMILIES, "qwen3_5"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = save_sharded(request.param, tmp_path_factory.mktemp(request.param))
    vision = load_vision(settings(folder, role="vision"))
    with served(vision) as there:
        yield Parts(folder=folder, whole=load_qwen(settings(folder)), vision=vision, served=there)


def test_the_language_role_says_what_the_whole_model_says(parts: Parts) -> None:
    language = parts.language()
    assert not hasattr(language._checkpoint.model.model, "visual")
    assert say(language) == say(parts.whole)
    assert say(language, None) == say(parts.whole, None)
    assert say(parts.language(feature_cache_bytes=0), CAT) == say(parts.whole)


def test_the_fast_writer_reads_features_from_elsewhere(parts: Parts) -> None:
    assert say(parts.language(fast=True)) == say(parts.whole)


def test_an_engine_sees_for_a_language_role_and_behind_the_cache(build_tower: Build) -> None:
    built = build_tower(FIRST)
    on_engine = {"data_dir": built.data, "threads": 1}
    vision = load_vision(settings(built.folder, role="vision", engine="onnx", **on_engine))
    assert vision.info.vision_engine == "onnx-cpu"
    whole = load_qwen(settings(built.folder, engine="torch", **on_engine))
    with served(vision) as there:
        language = load_qwen(settings(built.folder, role="language", vision_url=there.url))
        answers = [language.describe(CAT, TASKS, soon()) for _ in range(2)]
    assert [answer.cache for answer in answers] == ["miss", "memory"]
    assert [said.text for said in answers[1].answers] == say(whole)


def test_features_over_the_wire_are_those_of_the_whole_model_bit_for_bit(parts: Parts) -> None:
    for size in ((150, 100), (640, 480), (300, 40)):
        picture = DecodedImage(rgb=CAT.rgb.resize(size), width=size[0], height=size[1])
        here, there = (engine._vision.features_of(picture) for engine in (parts.whole, parts.language()))
        assert torch.equal(here.embeddings, there.embeddings)
        assert torch.equal(here.grid_thw, there.grid_thw)
        assert len(here.deepstack) == len(there.deepstack) == ("qwen3_vl" in parts.folder.name)
        assert all(map(torch.equal, here.deepstack, there.deepstack))
        assert (here.revision, here.processor) == (there.revision, there.processor)


def test_the_vision_role_reads_the_tower_s_weights_and_opens_no_other_file(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where the language model's are no weights, or not there at all."""
    opened: list[str] = []
    monkeypatch.setattr(
        "vl_service.qwen.vision.tower.safe_open",
        lambda path, **more: (opened.append(Path(path).name), safe_open(path, **more))[1])
    folder = tmp_path / parts.folder.name
    folder.mkdir()
    others = shards(parts.folder, with_tower=False)
    assert others
    for file in parts.folder.iterdir():
        if file in others:
            (folder / file.name).mkdir()  # to open one is an error
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    vision = load_vision(settings(folder, role="vision"))
    assert opened == [path.name for path in shards(parts.folder, with_tower=True)]
    found, expected = (part._vision.features_of(CAT) for part in (vision, parts.whole))
    assert torch.equal(found.embeddings, expected.embeddings)
    assert found.revision == expected.revision


def test_a_tower_that_lacks_a_weight_is_refused_by_name(parts: Parts, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for file in parts.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    first = shards(folder, with_tower=True)[0]
    from safetensors.torch import load_file, save_file

    weights = load_file(first)
    name = next(key for key in weights if "visual." in key)
    save_file({key: value for key, value in weights.items() if key != name}, first, {"format": "pt"})
    with pytest.raises(UnsupportedCheckpointError, match=name.partition("visual.")[2]):
        load_vision(settings(folder, role="vision"))


def test_the_language_role_reads_no_weight_of_the_tower(parts: Parts) -> None:
    whole, language = parts.whole._checkpoint.model, parts.language()._checkpoint.model
    expected = {name: value for name, value in whole.named_parameters() if ".visual." not in name}
    found = dict(language.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_an_equal_picture_is_looked_at_once_and_a_hit_says_so(parts: Parts) -> None:
    language = parts.language(data_dir=parts.folder)
    other = DecodedImage(rgb=CAT.rgb.rotate(90, expand=True), width=100, height=150)
    parts.vision._vision._cache._kept.drop_to(0)  # pyright: ignore[reportAttributeAccessIssue]
    before = len(parts.served.asked)
    found = [language.describe(picture, TASKS, soon()).cache for picture in (CAT, CAT, other, CAT)]
    assert found == ["miss", "memory", "miss", "memory"]
    assert len(parts.served.asked) == before + 2
    assert language.describe(None, [prompt_task("a red balloon", max_new_tokens=2)], soon()).cache is None


def test_the_second_level_serves_the_next_process(parts: Parts, tmp_path: Path) -> None:
    kept = {"feature_cache_dir": tmp_path / "kept"}
    first, second = load_qwen(settings(parts.folder, **kept)), load_qwen(settings(parts.folder, **kept))
    answers = [engine.describe(CAT, TASKS, soon()) for engine in (first, second, second)]
    assert [answer.cache for answer in answers] == ["miss", "disk", "memory"]
    assert answers[0].answers == answers[1].answers == answers[2].answers
    smaller = load_qwen(settings(parts.folder, image_tokens=16, **kept))
    assert smaller.describe(CAT, TASKS, soon()).cache == "miss", "made with other limits"
