"""The service's own metrics, in a registry of their own. No label ever names a thread or a caller."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What is counted: runs by outcome, time to first event, tokens, cost, open streams, Redis, what retention took."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = Counter("threadline_runs", "Runs ended, by outcome.", ["status"], registry=self.registry)
        self._run_seconds = Histogram(
            "threadline_run_seconds", "Time a run took.", registry=self.registry, buckets=BUCKETS
        )
        self._tokens = Counter("threadline_tokens", "Tokens of ended runs, where known.", registry=self.registry)
        self._cost = Counter("threadline_cost_dollars", "Cost of ended runs, where known.", registry=self.registry)
        self.first_event = Histogram(
            "threadline_first_event_seconds",
            "Time from a chat request to its first event.",
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.streams = Gauge("threadline_open_streams", "Event streams being read.", registry=self.registry)
        self.live_up = Gauge(
            "threadline_live_tier_up", "1 while Redis answers, 0 while runs go on without it.", registry=self.registry
        )

        self._pruned = Counter(
            "threadline_checkpoints_pruned", "Checkpoints that retention has taken.", registry=self.registry
        )
        self._pruned_bytes = Counter(
            "threadline_checkpoints_pruned_bytes", "What their values took in the history.", registry=self.registry
        )

        self._logs_pruned = Counter(
            "threadline_logs_pruned", "Recordings of runs that retention has taken.", registry=self.registry
        )
        self._logs_pruned_bytes = Counter(
            "threadline_logs_pruned_bytes", "What they took in the history.", registry=self.registry
        )

    def run_ended(self, status: str, *, seconds: float, tokens: int | None, cost: float | None) -> None:
        self._runs.labels(status).inc()
        self._run_seconds.observe(seconds)
        self._tokens.inc(tokens or 0)
        self._cost.inc(cost or 0)

    def pruned(self, checkpoints: int, *, size: int) -> None:
        self._pruned.inc(checkpoints)
        self._pruned_bytes.inc(size)

    def logs_pruned(self, runs: int, *, size: int) -> None:
        self._logs_pruned.inc(runs)
        self._logs_pruned_bytes.inc(size)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
