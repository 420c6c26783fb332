"""Which groups of replicas there are: `serve run on_ray.app:build`, or the `import_path` of a Serve config."""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from on_ray.directory import Directory
from on_ray.replica import WORK, Replica
from on_ray.shape import Group, ServiceName, Shape

_HEALTH_EVERY_S, _HEALTH_WITHIN_S = 5.0, 15.0


def build(args: Mapping[str, Any]) -> Application:
    """The directory, behind Serve's HTTP proxy, and every group."""
    shape = Shape.model_validate(dict(args))
    token = os.environ.get("STILLMOTION_INTERNAL_TOKEN") or None
    directory = serve.deployment(Directory).options(
        name="Directory", num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )
    return directory.bind(token, *(_deployed(group, shape.host, token) for group in shape.groups))


def by_work(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """As many replicas as the work of all of them is for; what they say, not what passes through Serve."""
    told = (context.aggregated_metrics or {}).get(WORK, {})
    assert context.config is not None
    wanted = math.ceil(sum(told.values()) / context.config.target_ongoing_requests)
    return max(context.capacity_adjusted_min_replicas, min(wanted, context.capacity_adjusted_max_replicas)), {}


def _deployed(group: Group, host: str | None, token: str | None) -> Application:
    settings = dict(group.settings) | ({"STILLMOTION_INTERNAL_TOKEN": token} if token else {})
    command = group.command or [sys.executable, "-m", _MODULES[group.service]]
    scaling = AutoscalingConfig(
        min_replicas=group.min_replicas, max_replicas=group.max_replicas, downscale_delay_s=group.scale_down_after_s,
        target_ongoing_requests=group.work_per_replica, policy=AutoscalingPolicy(policy_function=by_work),
        metrics_interval_s=2, look_back_period_s=10, upscale_delay_s=5,
    )
    return serve.deployment(Replica).options(
        name=group.name or group.service, autoscaling_config=scaling, health_check_period_s=_HEALTH_EVERY_S,
        health_check_timeout_s=_HEALTH_WITHIN_S, graceful_shutdown_timeout_s=group.drain_s + 30,
        ray_actor_options={"num_cpus": group.cpus, "num_gpus": group.gpus, "resources": group.resources},
    ).bind(group.service, command, settings, host, group.drain_s)


_MODULES: Mapping[ServiceName, str] = {"video": "video_service", "vl": "vl_service"}
