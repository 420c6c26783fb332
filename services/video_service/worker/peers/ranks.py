"""The process group in which a worker and its peers compute: joined the same way by all of them."""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] - its documented name

from video_service.worker.peers.messages import Join

HOST = "127.0.0.1"
JOIN_S = 300.0
"""What a rank has to start: another may be reading a checkpoint meanwhile."""
# A program that uses NVLink's multicast can take GPUs away from everybody else on their machine.
_NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}


def meeting_place() -> TCPStore:
    """Where the first rank waits for the others, on a free port."""
    return TCPStore(
        HOST, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=JOIN_S))


def join(told: Join, store: TCPStore | None = None) -> torch.device:
    """Become a rank of the default process group, by NCCL on CUDA and gloo elsewhere; the rank's device."""
    os.environ.update(_NO_MULTICAST)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
    device = torch.device("cpu")
    if told.device == "cuda":
        device = torch.device("cuda", told.rank)
        torch.cuda.set_device(device)
    elif told.threads:
        torch.set_num_threads(told.threads)
    store = store or TCPStore(HOST, told.port, is_master=False, timeout=timedelta(seconds=JOIN_S))
    store.set(f"started/{told.rank}", "")  # from here on the others are there, and the shorter deadline will do
    store.wait([f"started/{rank}" for rank in range(told.size)])
    dist.init_process_group(
        "nccl" if told.device == "cuda" else "gloo", rank=told.rank, world_size=told.size,
        timeout=timedelta(seconds=told.deadline_s), store=store, device_id=device if told.device == "cuda" else None,
    )
    return device
