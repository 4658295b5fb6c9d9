"""What each number should be: the rows that the benchmarks end with."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """One row.

    Args:
        name: as it is printed.
        what: as the README has it.
        sign: whether the bound is the most or the least.
        bound: in the row's unit.
        unit: empty for a ratio.
        benchmark: the sub-command that measures it.
    """

    name: str
    what: str
    sign: Literal["<=", ">="]
    bound: float
    unit: str
    benchmark: str

    def met(self, value: float) -> bool:
        """Tell whether a value is on the right side of the bound, as it is printed."""
        shown = round(value, 3)
        return shown <= self.bound if self.sign == "<=" else shown >= self.bound

    @property
    def wanted(self) -> str:
        """The target as it is printed."""
        return f"{self.sign}{self.bound:g}"


TARGETS = (
    Target("cpu_gevent", "CPU per request / bare, gevent", "<=", 1.10, "", "overhead"),
    Target("cpu_sync", "CPU per request / bare, sync", "<=", 1.10, "", "overhead"),
    Target("cpu_gthread", "CPU per request / bare, gthread", "<=", 1.10, "", "overhead"),
    Target("throughput", "Throughput / bare, gevent", ">=", 0.93, "", "overhead"),
    Target("cpu_all_sampled", "CPU per request / bare, every request sampled and exported", "<=", 1.35, "", "overhead"),
    Target("scrape", "Scrape of 64 slots x 50 routes / MultiProcessCollector", "<=", 0.10, "", "scrape"),
    Target("scrape_recycled", "Scrape after 10,000 recycled workers / before", "<=", 1.1, "", "scrape"),
    Target("agent_cpu", "Agent's CPU, scraped every 5 s, 16 workers", "<=", 1.0, "% of a core", "footprint"),
    Target("worker_memory", "Memory of a worker above bare (PSS)", "<=", 8.0, "MB", "footprint"),
    Target("agent_memory", "Memory of the agent (PSS)", "<=", 45.0, "MB", "footprint"),
    Target("worker_boot", "Boot of a worker above bare", "<=", 150.0, "ms", "footprint"),
)
BY_NAME = {target.name: target for target in TARGETS}


def of(benchmark: str) -> list[Target]:
    """Return a benchmark's rows."""
    return [target for target in TARGETS if target.benchmark == benchmark]
