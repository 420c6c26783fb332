"""The qwen engine: a Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint answers every task in its own words."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from PIL import Image

from contracts.chat import ChatOptions, Turn
from contracts.describe import CacheResult, TaskKind
from contracts.models import VLModelInfo
from vl_service.backend import Deadline, Description, Pieces, Task
from vl_service.images import DecodedImage
from vl_service.prompts.asking import Request, ask
from vl_service.prompts.profiles import profile_named, profiles, templates, wording
from vl_service.qwen.chat import QwenChat, chat_ids
from vl_service.qwen.checkpoint import Checkpoint, load_checkpoint
from vl_service.qwen.fast.forms import try_form
from vl_service.qwen.fast.slots import Sampling
from vl_service.qwen.fast.writing import Ask, Generate, SlotWriter, Writer
from vl_service.qwen.quantize import memory_of
from vl_service.qwen.vision.features import NEVER, Features, Vision
from vl_service.qwen.vision.looking import feature_file, open_vision, wants_fast
from vl_service.settings import Settings

log = logging.getLogger(__name__)

_WORDS = 2048  # tokens that the fast cache has for a prompt's words and the answer, beside the picture's
_LONGEST = 8192  # its most: 1.2 GB a row of Qwen3-VL-8B
_MOST_SLOTS, _SLOTS_ON_CPU = 16, 4
_WARM_SIZE = (832, 480)


class QwenBackend:
    """Runs one checkpoint. Every answer re-reads its conversation, so no state of an earlier call can leak in."""

    concurrent = True

    def __init__(
        self, checkpoint: Checkpoint, *, vision: Vision, writer: Writer, quant: str | None = None
    ) -> None:
        self._checkpoint = checkpoint
        self._vision, self._writer = vision, writer
        self._chat = QwenChat(checkpoint, vision, writer)
        self._info = VLModelInfo(
            id=checkpoint.id, revision=checkpoint.revision, engine=f"transformers-{checkpoint.device.type}",
            dtype=str(checkpoint.dtype).removeprefix("torch."), quant=quant,
            memory_bytes=memory_of(checkpoint.model), at_once=writer.at_once,
            tasks=list(get_args(TaskKind)), languages=["en", "zh"],
            profiles=list(profiles()), wording=wording(), templates=templates(),
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is, and what sees and writes for it now."""
        return self._info.model_copy(update={
            "engine_reason": self._writer.reason, "vision_engine": self._vision.engine,
            "vision_engine_reason": self._vision.reason})

    @torch.inference_mode()
    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `backend.Backend.describe`. The picture goes through the vision tower once for all tasks."""
        seen = None if picture is None else self._vision.features_of(picture, deadline)
        answers = ask(
            tasks, lambda requests: self._write(seen, requests, deadline), with_picture=seen is not None,
            faults=() if picture is None else picture.faults)
        return Description(answers=answers, facts={}, cache=None if seen is None else seen.cache)

    def chat(
        self, turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions, deadline: Deadline
    ) -> Pieces:
        """See `backend.Backend.chat`."""
        return self._chat.reply(turns, images, options, deadline)

    @torch.inference_mode()
    def warm_up(self, picture: DecodedImage | None) -> None:
        """Answer as a job has it, in two tokens each: the first caller waits for no kernel and no grammar."""
        seen = None if picture is None else self._vision.features_of(picture)
        kinds: tuple[TaskKind, ...] = ("caption", "prompt")
        tasks = [Task(kind=kind, language="en", profile=profile_named("wan2.1"), seed=0, max_new_tokens=2)
                 for kind in kinds]

        def write(requests: Sequence[Request]) -> list[str]:
            return self._write(seen, [replace(request, max_new_tokens=2) for request in requests], NEVER)

        ask(tasks, write, with_picture=seen is not None)

    def _write(self, seen: Features | None, requests: Sequence[Request], deadline: Deadline) -> list[str]:
        """A text for each."""
        asks = [
            Ask(ids=self._ids(request.messages, seen), seed=request.seed, max_new_tokens=request.max_new_tokens,
                stop_repeating=True, grammar=self._chat.grammars.for_schema(request.schema))
            for request in requests
        ]
        decode = self._checkpoint.tokenizer.decode
        return [str(decode(ids, skip_special_tokens=True)) for ids in self._writer.write(seen, asks, deadline)]

    def _ids(self, chat: Sequence[dict[str, Any]], seen: Features | None) -> list[int]:
        """Chat → token ids with one image token for every merged patch of the picture."""
        return chat_ids(self._checkpoint, chat, [] if seen is None else [seen])


class WholeBackend(QwenBackend):
    """With a tower of its own, of which others may have features, too."""

    def features(self, picture: DecodedImage, deadline: Deadline) -> tuple[bytes, CacheResult]:
        """See `backend.FeatureBackend.features`."""
        return feature_file(self._vision, picture, deadline)


def load_qwen(settings: Settings, *, fast: bool | None = None) -> QwenBackend:
    """Load the checkpoint that `VL_MODEL` names. Raises `EngineRefused` where `VL_ENGINE` names what cannot run.

    `fast`: in the fast forms, where they cover the checkpoint; None: as the settings and the device say.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    began = time.monotonic()
    checkpoint = load_checkpoint(settings)
    read = time.monotonic()
    fast_tower = wants_fast(settings, checkpoint.device, checkpoint.dtype) if fast is None else fast
    kind = QwenBackend if settings.role == "language" else WholeBackend
    vision = open_vision(checkpoint, settings, fast=fast_tower)
    opened = time.monotonic()
    writer = _writer(checkpoint, settings, fast=settings.fast_layers if fast is None else fast)
    made = time.monotonic()
    backend = kind(checkpoint, vision=vision, writer=writer, quant=None if settings.quant == "none" else settings.quant)
    if checkpoint.device.type == "cuda":  # in the language role the vision service need not be there yet
        width, height = _WARM_SIZE
        blank = DecodedImage(rgb=Image.new("RGB", _WARM_SIZE), width=width, height=height)
        backend.warm_up(None if settings.role == "language" else blank)
    log.info("loaded", extra={
        "weights_s": round(read - began, 2), "vision_s": round(opened - read, 2), "writer_s": round(made - opened, 2),
        "warm_up_s": round(time.monotonic() - made, 2)})
    return backend


def _writer(checkpoint: Checkpoint, settings: Settings, *, fast: bool) -> Writer:
    # These values keep Qwen-VL both lively and on the subject.
    sampling = Sampling(greedy=settings.greedy, temperature=0.7, top_p=0.8, top_k=20)
    if not fast:
        return Generate(checkpoint, sampling)
    length = min(settings.image_tokens + _WORDS, _LONGEST)
    found, reason = try_form(lambda: SlotWriter(
        checkpoint, sampling, Generate(checkpoint, sampling), length=length,
        slots=settings.slots or slots_for(checkpoint, length),
        fp8=settings.quant_linear == "fp8" and checkpoint.device.type == "cuda"))
    return found or Generate(checkpoint, sampling, reason=reason)


def slots_for(checkpoint: Checkpoint, length: int) -> int:
    """As many as share half of the memory that the device has left; on CPUs a few."""
    if checkpoint.device.type != "cuda":
        return _SLOTS_ON_CPU
    config = checkpoint.model.config.get_text_config()
    heads = config.num_key_value_heads * (getattr(config, "head_dim", None) or
                                          config.hidden_size // config.num_attention_heads)
    row = 2 * config.num_hidden_layers * heads * length * checkpoint.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(checkpoint.device)
    return max(1, min(_MOST_SLOTS, free // 2 // row))
