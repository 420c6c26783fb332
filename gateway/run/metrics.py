"""The gateway's Prometheus series. What only changes when somebody works is counted as it happens, the rest is measured
when somebody looks."""

from collections.abc import Iterable, Mapping

from gateway.jobs.deliveries import DeliveryState
from gateway.jobs.job import TRANSITIONS, JobRecord
from gateway.jobs.queue import Backlog
from gateway.services.pool import Client, Member
from web.metrics import SECONDS_BUCKETS, Counter, Gauge, Histogram, new_registry

_WEBHOOK_OUTCOMES: Mapping[DeliveryState, str] = {
    "delivered": "delivered", "refused": "refused", "given_up": "given_up", "sending": "failed",
}


class GatewayMetrics:
    """Every series of one gateway process, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = new_registry()
        self._stage_seconds = Histogram(
            "stillmotion_stage_seconds", "Seconds of ended jobs by stage; render.* were measured by the video service.",
            ("stage",), registry=registry, buckets=SECONDS_BUCKETS,
        )
        self._ended = Counter(
            "stillmotion_jobs_ended", "Jobs that this process brought to their end, by state and problem code.",
            ("state", "code"), registry=registry,
        )
        self._prompts = Counter(
            "stillmotion_prompt_cache_lookups", "Prompts found (hit) or not found (miss) among those written before.",
            ("outcome",), registry=registry,
        )
        self._webhooks = Counter(
            "stillmotion_webhook_attempts", "Deliveries tried, by outcome.", ("outcome",), registry=registry
        )
        self._jobs = Gauge("stillmotion_jobs", "Jobs in the table.", ("state",), registry=registry)
        self._queue_depth = Gauge("stillmotion_queue_depth", "Jobs that wait.", registry=registry)
        self._queue_age = Gauge(
            "stillmotion_queue_oldest_age_seconds", "Since the oldest waiting job arrived; 0 with none.",
            registry=registry,
        )
        self._upstream_healthy = Gauge(
            "stillmotion_upstream_healthy", "1 where the service takes work, 0 where it is put aside.",
            ("service", "address"), registry=registry,
        )
        self._upstream_load = Gauge(
            "stillmotion_upstream_outstanding", "Renders (video_service) or calls (vl_service) that are not answered.",
            ("service", "address"), registry=registry,
        )
        self._disk_free = Gauge("stillmotion_disk_free_bytes", "Free space for the jobs' files.", registry=registry)
        for outcome in ("hit", "miss"):
            self._prompts.labels(outcome)  # a series that is there from the start: a rate over it is 0, not unknown
        for outcome in _WEBHOOK_OUTCOMES.values():
            self._webhooks.labels(outcome)

    def job_ended(self, job: JobRecord) -> None:
        """A job of this process has reached its end."""
        self._ended.labels(job.state, job.error.code if job.error else "none").inc()
        for stage, seconds in job.timings.items():
            self._stage_seconds.labels(stage).observe(seconds)

    def prompt_looked_up(self, hit: bool) -> None:
        """A prompt was looked for among those written before."""
        self._prompts.labels("hit" if hit else "miss").inc()

    def webhook_tried(self, state: DeliveryState) -> None:
        """A webhook was sent and is `delivered`, `refused` (410), `given_up`, or `failed` and tried again later."""
        self._webhooks.labels(_WEBHOOK_OUTCOMES[state]).inc()

    def measure_backlog(self, backlog: Backlog, now_s: float) -> None:
        """Show how many jobs there are and how long the oldest waits."""
        for state in TRANSITIONS:
            self._jobs.labels(state).set(backlog.jobs.get(state, 0))
        self._queue_depth.set(backlog.jobs.get("queued", 0))
        oldest = backlog.oldest_queued_at
        self._queue_age.set(0.0 if oldest is None else max(0.0, now_s - oldest))

    def forget_upstreams(self) -> None:
        """Show none, until they are measured."""
        self._upstream_healthy.clear()
        self._upstream_load.clear()

    def measure_upstreams(
        self, service: str, members: Iterable[Member[Client]], load: dict[str, int] | None = None
    ) -> None:
        """Show the health and load of a service's addresses; `load` stands in for the calls in flight."""
        for member in members:
            self._upstream_healthy.labels(service, member.address).set(member.healthy)
            outstanding = member.outstanding if load is None else load.get(member.address, 0)
            self._upstream_load.labels(service, member.address).set(outstanding)

    def measure_disk(self, free_bytes: int) -> None:
        """Show the free space."""
        self._disk_free.set(free_bytes)
