"""One model service on a node: the process that runs anywhere else, held by a Serve replica."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from on_ray.shape import ServiceName
from web.worker.lifeline import die_with_parent

WORK = "work"
_SERIES = frozenset({"stillmotion_render_queue_depth", "stillmotion_renders_running", "stillmotion_describe_in_flight"})
"""Of the services, what is at work or waits there."""
_LOOK_S = 0.5
_KILL_AFTER_S = 10.0


class Replica:
    """Starts its service, and is in the directory while that is ready; healthy while it lives and is not stuck."""

    def __init__(
        self, service: ServiceName, command: Sequence[str], settings: Mapping[str, str], host: str | None,
        drain_s: float,
    ) -> None:
        self._service, self._drain_s = service, drain_s
        host = host or ray.util.get_node_ip_address()
        port = _free_port(host)
        self._url = f"http://{host}:{port}"
        self._data = tempfile.mkdtemp(prefix=f"stillmotion-{service}-")
        kind = service.upper()
        given = {"STILLMOTION_DATA": self._data, "VIDEO_DRAIN_S": str(drain_s)} | dict(settings)
        environment = dict(os.environ) | given | {f"{kind}_HOST": host, f"{kind}_PORT": str(port)}
        # Ray kills a replica with its node or by force: then nobody would end the service.
        self._process = subprocess.Popen(  # noqa: S603 - the operator's own command
            [*command], env=environment, preexec_fn=partial(die_with_parent, os.getpid()), start_new_session=True)
        self._http = httpx.AsyncClient(base_url=self._url, timeout=5, trust_env=False)

    async def check_health(self) -> None:
        """Raise where another replica is needed; else tell the directory where this one is."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the {self._service} service ended with {self._process.returncode}")
        try:
            health = (await self._http.get("/readyz")).json()
        except httpx.TransportError:
            return  # it starts, or its end is seen the next time
        if health.get("stuck"):
            raise RuntimeError("; ".join(health.get("reasons", [])) or "it is stuck")
        if health["ready"]:
            await self._directory().joined.remote(self._service, self._url)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What is at work here and waits, for `by_work`."""
        try:
            text = (await self._http.get("/metrics")).text
        except httpx.TransportError:
            return {WORK: 0.0}
        families = text_string_to_metric_families(text)
        return {WORK: sum(sample.value for one in families for sample in one.samples if sample.name in _SERIES)}

    async def __del__(self) -> None:
        """What is at work is finished, and fetched by the gateway, before the service ends."""
        if self._process.poll() is None:
            await self._directory().left.remote(self._service, self._url)
            self._process.send_signal(signal.SIGTERM)
            await _ended(self._process, self._drain_s + _KILL_AFTER_S)
            self._process.kill()
        await asyncio.to_thread(shutil.rmtree, self._data, ignore_errors=True)

    def _directory(self) -> serve.handle.DeploymentHandle:
        return serve.get_deployment_handle("Directory", serve.get_replica_context().app_name)


async def _ended(process: subprocess.Popen[bytes], within_s: float) -> None:
    for _ in range(int(within_s / _LOOK_S)):
        if process.poll() is not None:
            return
        await asyncio.sleep(_LOOK_S)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
