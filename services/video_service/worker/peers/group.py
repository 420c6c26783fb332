"""The worker's side: its peers started, given networks, and told of each step.

    group = PeerGroup(2, "cuda")
    transformer = group.split(module, fp8=True)     # called as a `FastTransformer`, by every rank
    group.close()

The worker stays the only one who decides; peers follow. A peer that ends, or a step that does not come to its end, is
the end of the worker: an exchange that one rank never joins would hold the others for ever.
"""

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from video_service.layers.wan.codec import Codec
from video_service.layers.wan.fast import FastTransformer
from video_service.layers.wan.transformer import Sparse
from video_service.worker.peers.codec import ParallelCodec
from video_service.worker.peers.deadline import DEADLINE_S, StepClock, write_all
from video_service.worker.peers.messages import Call, Command, Decode, Forget, Join, Lasting, Leave, Load, Shape
from video_service.worker.peers.modules import taken_apart
from video_service.worker.peers.ranks import join, meeting_place
from video_service.worker.peers.transformer import ParallelTransformer
from web.worker.child import EXIT_DEVICE_BROKEN
from web.worker.errors import DeviceBroken, ModelUnavailable
from web.worker.lifeline import die_with_parent
from web.worker.link import to_frame

log = logging.getLogger(__name__)

PEER_COMMAND = (sys.executable, "-m", "video_service.worker.peers")
KEPT = 4
"""Tensors that peers keep from call to call: prompts and what CLIP saw."""


def end_this_process(why: str) -> None:
    """The default for a group that is lost: what this process has in hand cannot come to an end."""
    log.critical("%s; this process ends", why)
    os._exit(EXIT_DEVICE_BROKEN)


class PeerGroup:
    """Used on one thread."""

    def __init__(
        self, size: int, device: str, *, threads: int = 0, decodes: bool = False, guides: bool = False,
        deadline_s: float = DEADLINE_S, on_loss: Callable[[str], None] = end_this_process,
    ) -> None:
        """Starts the peers, which takes them seconds; `wait` is called before they are needed.

        `threads` are those of each rank's CPU computations; 0: the cores, shared out. Of two ranks that are to guide
        each computes one of guidance's two. `deadline_s` is what a step may take, and a rank waits for another in it.
        """
        self.size, self.decodes, self.guides = size, decodes, guides and size == 2
        self._deadline_s, self._on_loss = deadline_s, on_loss
        self._closing = False
        self._store = meeting_place()
        threads = threads or max(1, (os.cpu_count() or 1) // size)
        told = [
            Join(rank=rank, size=size, port=self._store.port, device=device, threads=threads, deadline_s=deadline_s)
            for rank in range(size)]
        self._own, self._device = told[0], torch.device(device)
        self._peers = [_started(join) for join in told[1:]]
        for rank, peer in enumerate(self._peers, 1):
            threading.Thread(target=self._watch, args=(rank, peer), name=f"peer-{rank}", daemon=True).start()
        self._clock: StepClock | None = None
        self._has_joined = False
        self._networks = 0
        self.transformers = 0
        """How many were split so far."""
        self._given: weakref.WeakSet[Any] = weakref.WeakSet()
        self._forgotten: list[int] = []
        self._lasting: deque[tuple[int, torch.Tensor]] = deque(maxlen=KEPT)
        self._next_key = 0

    def wait(self) -> None:
        """Until all have joined."""
        if self._has_joined:
            return
        self._device = join(self._own, self._store)
        self._has_joined = True
        if self._device.type == "cuda":
            self._clock = StepClock(self._deadline_s, self._on_loss)

    def split(self, module: Any, *, fp8: bool = False, sparse: Sparse | None = None) -> FastTransformer:
        """The module in the fast form, its tokens split over the ranks, each of which has all its weights.

        Raises `ModelUnavailable` where its heads are not divisible by the number of ranks.
        """
        heads = module.config.num_attention_heads
        if heads % self.size:
            fitting = [str(size) for size in range(1, heads + 1) if heads % size == 0]
            raise ModelUnavailable(
                f"VIDEO_GPUS={self.size} does not divide the transformer's {heads} heads: set one of "
                f"{', '.join(fitting)}.")
        self.wait()
        self.transformers += 1
        return ParallelTransformer(module, self, fp8=fp8, sparse=sparse)

    def codec(self, vae: Any) -> Codec:
        """The VAE as CUDA graphs, its decoder split over the ranks."""
        self.wait()
        return ParallelCodec(vae, self)

    def load(self, network: object, make: Callable[[], Any]) -> int:
        """Have the peers make what goes with `network`, and drop it when that is gone; its number."""
        number, self._networks = self._networks, self._networks + 1
        self._given.add(network)
        parts, tensors = taken_apart(make, self._device)
        self._forget()
        self._tell(Load(network=number, parts=parts, tensors=tuple(map(Shape.of, tensors))))
        try:
            for tensor in tensors:
                dist.broadcast(tensor.detach().contiguous(), 0)
        except Exception as error:
            raise DeviceBroken("a network could not be given to the other devices") from error
        weakref.finalize(network, self._forgotten.append, number).atexit = False
        return number

    def call(
        self, network: int, latents: torch.Tensor, time_s: float, text: torch.Tensor, seen: torch.Tensor | None,
        *, is_negative: bool = False,
    ) -> None:
        """Let the peers begin a step; their exchanges wait for this rank's. See `Call` for `is_negative`."""
        self._forget()
        known = [key for key, _ in self._lasting]
        told = [None if tensor is None else self._lasts(tensor) for tensor in (text, seen)]
        assert told[0] is not None
        self._tell(Call(
            network=network, time=time_s, latents=Shape.of(latents), text=told[0], seen=told[1],
            is_negative=is_negative))
        dist.broadcast(latents.contiguous(), 0)
        for lasting, tensor in zip(told, (text, seen), strict=True):
            if lasting is not None and tensor is not None and lasting.key not in known:
                dist.broadcast(tensor.contiguous(), 0)

    @contextmanager
    def decoding(self, network: int, size: tuple[int, int], latent_THWC: torch.Tensor, first: bool) -> Iterator[None]:
        """Around a latent frame that all ranks decode."""
        latent = latent_THWC.contiguous()
        self._tell(Decode(network=network, size=size, first=first, latent=Shape.of(latent)))
        dist.broadcast(latent, 0)
        yield
        self.time_step()

    def time_step(self) -> None:
        """From now on the device has its deadline for all that it was given."""
        if self._clock is not None:
            event = torch.cuda.Event()
            event.record()
            self._clock.follow(event)

    def close(self) -> None:
        """End the peers; networks that were split can be called no more."""
        self._closing = True
        if self._has_joined:
            with suppress(DeviceBroken):
                self._tell(Leave())
            for network in self._given:
                network.let_go()  # NCCL waits for graphs with exchanges in them
            gc.collect()
            dist.destroy_process_group()
        for peer in self._peers:
            with suppress(OSError):
                assert peer.stdin is not None
                peer.stdin.close()  # at which they end
        for peer in self._peers:
            with suppress(subprocess.TimeoutExpired):
                peer.wait(5)
            peer.kill()
            peer.wait()

    def _lasts(self, tensor: torch.Tensor) -> Lasting:
        for key, known in self._lasting:
            if known is tensor:
                return Lasting(key=key, shape=None)
        self._next_key += 1
        self._lasting.append((self._next_key, tensor))  # held, so that no other can be taken for it
        return Lasting(key=self._next_key, shape=Shape.of(tensor))

    def _forget(self) -> None:
        gone = tuple(self._forgotten.pop() for _ in range(len(self._forgotten)))
        if gone:
            self._tell(Forget(networks=gone))

    def _tell(self, command: Command) -> None:
        frame = to_frame(command)
        for peer in self._peers:
            assert peer.stdin is not None
            write_all(peer.stdin.fileno(), frame, self._deadline_s)

    def _watch(self, rank: int, peer: subprocess.Popen[bytes]) -> None:
        status = peer.wait()
        if not self._closing:
            self._on_loss(f"the process of rank {rank} ended with status {status}")


def _started(told: Join) -> subprocess.Popen[bytes]:
    """The peer's standard input is its lifeline; its log is ours."""
    peer = subprocess.Popen(  # noqa: S603 - our own program
        [*PEER_COMMAND], stdin=subprocess.PIPE, bufsize=0, preexec_fn=partial(die_with_parent, os.getpid()))
    assert peer.stdin is not None
    os.set_blocking(peer.stdin.fileno(), False)
    with suppress(DeviceBroken):  # its watcher says so
        write_all(peer.stdin.fileno(), to_frame(told), DEADLINE_S)
    return peer
