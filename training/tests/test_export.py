"""Weights of two slices become one checkpoint."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.video.export import mixed, weights_of


def test_two_sets_of_weights_are_averaged_and_keep_their_precision() -> None:
    ours = {"a": torch.tensor([1.0, 3.0], dtype=torch.bfloat16), "b": torch.zeros(2, dtype=torch.float16)}
    both = mixed(ours, {"a": torch.tensor([2.0, -3.0]), "b": torch.ones(2)})
    assert both["a"].tolist() == [1.5, 0.0]
    assert both["b"].tolist() == [0.5, 0.5]
    assert (both["a"].dtype, both["b"].dtype) == (torch.bfloat16, torch.float16)


def test_weights_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="b"):
        mixed({"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.zeros(1)})


def test_a_part_is_read_from_all_its_shards(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors")
    assert weights_of(tmp_path).keys() == {"a", "b"}
