"""The qwen engine: a Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint answers every task in its own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from contracts.models import VLModelInfo
from engines.store.store import EngineStore
from vl_service.backend import Answer, Deadline, Description, Task
from vl_service.images import DecodedImage
from vl_service.prompts.asking import messages
from vl_service.prompts.polish import clean, in_language
from vl_service.prompts.profiles import profiles
from vl_service.qwen.checkpoint import Checkpoint, load_checkpoint
from vl_service.qwen.engine_choice import choose_tower, situation_of
from vl_service.qwen.vision import Seen, TorchVision, Vision
from vl_service.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn; these values keep Qwen-VL both lively and on the subject."""

    greedy: bool
    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 20

    def arguments(self) -> dict[str, Any]:
        """Arguments for `generate`."""
        if self.greedy:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}


class _StopAtDeadline(StoppingCriteria):
    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        stop = torch.full((input_ids.shape[0],), self.deadline.passed(), device=input_ids.device)
        return cast(torch.BoolTensor, stop)


class QwenBackend:
    """Runs one checkpoint. Every answer re-reads its conversation, so no state of an earlier call can leak in."""

    def __init__(self, checkpoint: Checkpoint, *, sampling: Sampling, vision: Vision) -> None:
        self._checkpoint = checkpoint
        self._sampling = sampling
        self._vision = vision
        self._info = VLModelInfo(
            id=checkpoint.id, revision=checkpoint.revision, engine=f"transformers-{checkpoint.device.type}",
            dtype=str(checkpoint.dtype).removeprefix("torch."),
            tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"],
            profiles=list(profiles()),
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is, and what sees for it now."""
        return self._info.model_copy(
            update={"vision_engine": self._vision.engine, "vision_engine_reason": self._vision.reason})

    @torch.inference_mode()
    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `backend.Backend.describe`. The picture goes through the vision tower once for all tasks."""
        seen = None if picture is None else self._vision.see(picture)
        answers = []
        for task in tasks:
            deadline.check()
            answers.append(Answer(text=self._answer(seen, task, deadline)))
        return Description(answers=answers, facts={})

    def _answer(self, seen: Seen | None, task: Task, deadline: Deadline) -> str:
        text = self._write(seen, task, deadline, seed=task.seed, again=False)
        if in_language(clean(text), task.language):
            return text
        second = self._write(seen, task, deadline, seed=task.seed + 1, again=True)
        return second if in_language(clean(second), task.language) else text

    def _write(self, seen: Seen | None, task: Task, deadline: Deadline, *, seed: int, again: bool) -> str:
        checkpoint = self._checkpoint
        chat = messages(task, with_picture=seen is not None, again=again)
        input_ids = self._input_ids(chat, seen)
        inputs: dict[str, Any] = {
            "input_ids": input_ids, "attention_mask": torch.ones_like(input_ids),
            # without it Qwen2.5-VL silently takes text positions for the picture's tokens
            "mm_token_type_ids": (input_ids == checkpoint.image_token_id).to(torch.int32),
        }
        if seen is not None:
            inputs |= {"image_grid_thw": seen.grid_thw, "mm_encoder_outputs": {"image": seen.encoded}}
        checkpoint.model.model.rope_deltas = None  # positions of the conversation before this one
        devices = [checkpoint.device] if checkpoint.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed % 2**63)
            output = checkpoint.model.generate(
                **inputs, max_new_tokens=task.max_new_tokens, **self._sampling.arguments(),
                stopping_criteria=StoppingCriteriaList([_StopAtDeadline(deadline)]),
            )
        deadline.check()
        return str(checkpoint.tokenizer.decode(output[0, input_ids.shape[1]:], skip_special_tokens=True))

    def _input_ids(self, chat: list[dict[str, Any]], seen: Seen | None) -> torch.Tensor:
        """Chat → token ids `[1, tokens]` with one image token for every merged patch of the picture."""
        checkpoint = self._checkpoint
        # control tokens that the user typed become plain text: only the template may open a turn or place a picture
        encoded = checkpoint.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, sanitize_control_tokens=True)
        ids: list[int] = list(encoded["input_ids"])
        places = [index for index, token in enumerate(ids) if token == checkpoint.image_token_id]
        if len(places) != (seen is not None):
            raise ValueError(f"the chat template placed {len(places)} pictures, not {int(seen is not None)}")
        if seen is not None:
            ids[places[0]: places[0] + 1] = [checkpoint.image_token_id] * seen.num_tokens
        return torch.tensor([ids], device=checkpoint.device)


def load_qwen(settings: Settings) -> QwenBackend:
    """Load the checkpoint that `VL_MODEL` names. Raises `EngineRefused` where `VL_ENGINE` names what cannot run."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    checkpoint = load_checkpoint(settings)
    return QwenBackend(checkpoint, sampling=Sampling(greedy=settings.greedy), vision=_vision(checkpoint, settings))


def _vision(checkpoint: Checkpoint, settings: Settings) -> Vision:
    store = EngineStore(settings.engine_store_dir.resolve())
    choice = choose_tower(settings.engine, store, situation_of(checkpoint.revision, checkpoint.device.type))
    in_torch = TorchVision(checkpoint, image_tokens=settings.image_tokens, reason=choice.reason)
    if choice.target is None:
        return in_torch
    # What runs engines is installed where some are built.
    from vl_service.qwen.vision_engines import EngineVision, opener

    return EngineVision(checkpoint, in_torch, choice, opener(store, checkpoint.device, settings.threads))
