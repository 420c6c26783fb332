"""A peer's side: it joins, holds the networks it is given, and computes its share of each step it is told of."""

import gc
import logging
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import torch
import torch.distributed as dist

from video_service.worker.peers.group import KEPT
from video_service.worker.peers.messages import Call, Command, Decode, Forget, Join, Lasting, Leave, Load, Shape
from video_service.worker.peers.modules import put_together
from video_service.worker.peers.ranks import join
from web.logs import configure_logging
from web.worker.link import HEADER_BYTES, body_length, from_body

log = logging.getLogger(__name__)


def follow(stream: BinaryIO) -> NoReturn:
    """Do what the worker says until it closes the stream, and end then, in the middle of a step too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker ends by it, and this one with it
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(stream, commands), name="worker", daemon=True).start()
    configure_logging("video_service.worker.peers", "INFO")
    try:
        _work(commands)
    except Exception:
        log.critical("a share of a step failed", exc_info=True)
        os._exit(1)  # an orderly end would wait for NCCL, and this one for the other ranks
    os._exit(0)  # the listener is within a read of standard input, at which Python's own end aborts


def _work(commands: "queue.SimpleQueue[Command]") -> None:
    told = commands.get()
    assert isinstance(told, Join)
    peer = _Peer(join(told))
    while not isinstance(command := commands.get(), Leave):
        peer.do(command)
    peer.do(Forget(networks=peer.networks))  # NCCL waits for graphs with exchanges in them
    dist.destroy_process_group()


def _listen(stream: BinaryIO, commands: "queue.SimpleQueue[Command]") -> None:
    while len(header := stream.read(HEADER_BYTES)) == HEADER_BYTES:
        body = stream.read(length := body_length(header))
        if len(body) < length:
            break
        commands.put(from_body(body))
    os._exit(0)


class _Peer:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._networks: dict[int, Any] = {}  # called by rank; a transformer or a decoder
        self._lasting: deque[tuple[int, torch.Tensor]] = deque(maxlen=KEPT)

    @property
    def networks(self) -> tuple[int, ...]:
        return tuple(self._networks)

    def do(self, command: Join | Load | Forget | Call | Decode) -> None:
        match command:
            case Load():
                self._networks[command.network] = self._loaded(command)
            case Forget():
                for number in command.networks:
                    self._networks.pop(number, None)
                gc.collect()  # a captured graph's closure makes a cycle
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
            case Call():
                self._call(command)
            case Decode():
                self._networks[command.network](command.size, self._sent(command.latent), command.first)
            case Join():
                raise ValueError("it has joined")

    def _loaded(self, command: Load) -> Callable[..., Any]:
        tensors = [shape.empty(self._device) for shape in command.tensors]
        for tensor in tensors:
            dist.broadcast(tensor, 0)
        return put_together(command.parts, tensors.__getitem__)()

    def _call(self, command: Call) -> None:
        latents = self._sent(command.latents)
        text = self._found(command.text)
        seen = None if command.seen is None else self._found(command.seen)
        times = torch.full((len(latents),), command.time, dtype=torch.float32)
        network = self._networks[command.network]
        if command.is_negative:
            network.negative(latents, times, text, seen)
        else:
            network(latents, times, text, seen, return_dict=False)

    def _found(self, told: Lasting) -> torch.Tensor:
        if told.shape is not None:
            self._lasting.append((told.key, self._sent(told.shape)))
        return dict(self._lasting)[told.key]

    def _sent(self, shape: Shape) -> torch.Tensor:
        tensor = shape.empty(self._device)
        dist.broadcast(tensor, 0)
        return tensor
