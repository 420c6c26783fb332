"""What the text side learns with, and where own steps lie."""

from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from training.video.models import FLOW_SHIFT
from training.video.reading import Reader, carried_over, readings
from training.video.scenes import MOTIONS
from training.video.student import few_steps
from training.video.tokens import train_tokenizer

ASKED = [("the camera pans left", ("pan_left",), "normal"), ("镜头缓缓推近", ("zoom_in",), "slow")]


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_own_steps_are_taken_where_the_sampler_takes_them(steps: int) -> None:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT, num_train_timesteps=1000)
    scheduler.set_timesteps(steps)
    assert few_steps(steps) == pytest.approx(scheduler.sigmas.tolist(), abs=2e-3)


def test_tokens_that_both_tokenizers_have_keep_their_rows_and_others_start_from_their_parts(tmp_path: Path) -> None:
    old = train_tokenizer(["pan left"] * 3 + ["view point"] * 3, 400, tmp_path / "old")
    new = train_tokenizer(["pan left"] * 3 + ["viewpoint"] * 3, 400, tmp_path / "new")
    table = torch.randn(len(old), 8)
    carried = carried_over(old, new, table)
    before, after = old.get_vocab(), new.get_vocab()
    assert "Ġpan" in before
    assert "Ġviewpoint" not in before
    for token in before.keys() & after.keys():
        assert torch.equal(carried[after[token]], table[before[token]])
    parts = old("viewpoint", add_special_tokens=False).input_ids
    assert len(parts) > 1
    assert torch.allclose(carried[after["Ġviewpoint"]], table[parts].mean(0))


def test_a_reading_says_which_motions_a_prompt_asks_for_and_how_fast(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([text for text, _, _ in ASKED], 400, tmp_path)
    found = readings(ASKED, tokenizer, "cpu")
    assert [MOTIONS[row.argmax()] for row in found.motions] == ["pan_left", "zoom_in"]
    assert found.motions.sum().item() == 2
    assert found.speeds.tolist() == [1, 0]


def test_what_stands_behind_the_end_of_a_prompt_is_not_read() -> None:
    states, attention = torch.randn(2, 6, 256), torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    motions, speeds = torch.zeros(2, len(MOTIONS)), torch.zeros(2, dtype=torch.long)
    reader = Reader()
    loss = reader(states, attention, motions, speeds)
    states[~attention] = 100.0
    assert torch.equal(reader(states, attention, motions, speeds), loss)
