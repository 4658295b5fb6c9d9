"""What docs/decisions.md says around the decision table, with the numbers that the code has."""

from observability.tuning import bounds, verdict
from observability.tuning.model import Limits
from observability.tuning.thresholds import CPU_BOUND, MEMORY_PLANNED
from observability.tuning.units import duration, percent

_HEAD = (
    "How the tuner comes from the signals of a server to a diagnosis, to at most one worker more or less, and to "
    "settings to change.",
    "`observability/tuning/table.py` has the rows, `thresholds.py` beside it each threshold and where it comes from.",
)

_LETTERS = (
    "**Q** is the queue: what 95 of 100 requests waited since the proxy took them; where no proxy tells, what waits / "
    "the rate answered (Little's law).",
    "**U** is the share of the time in which the workers could take no more, as their mean.",
    "**C** is the CPU that the workers use, of their quota or the host's cores.",
    "**R** is how long threads waited for a CPU, for each second that they had one.",
    "**M** is the memory in use, of the control group's limit.",
    "**T** is how many workers were killed by the timeout in five minutes.",
)

_TABLE = (
    "Rows are asked from the top: the first that holds is the diagnosis, gives the advice, and says what to do.",
    "Each row that vetoes growth does so whenever it holds, whichever is the diagnosis.",
)

_VETOES = ("Where one of these holds, no worker is added; `tuner_frozen` shows it.",)

_RAILS = (
    "One worker at a time, and the next change only when the last has been judged.",
    "Growth ends at the least of: `TUNER_MAX_WORKERS`; the workers that fit into "
    f"{percent(MEMORY_PLANNED)} of the memory limit, by the size of a large one; the cores and one, where "
    f"C >= {percent(CPU_BOUND)} or the quota stops them; and what was learned.",
    f"Growth waits {duration(Limits.grow_seconds)} after a change, or twice what a worker takes to boot. "
    "So does a removal that is to save the server from the kernel.",
    f"Any other removal waits {duration(Limits.shrink_seconds)}; twice as long for each removal of the last three "
    "hours that growth took back within half of one, up to sixteen times as long.",
    f"{Limits.actions_per_hour} changes an hour, of which one is kept back to undo another.",
    "Never fewer workers than `TUNER_MIN_WORKERS`.",
    "A reload puts back the configured count. That is no reason to make the changes again: the advice is then "
    "`WEB_CONCURRENCY`, with the count that was found right.",
)

_JUDGED = ("When the workers have settled and a whole window lies after that, it is compared with the one before.",)

_OUTCOMES = (
    f"**Undone** where it harms: p99 more than {percent(verdict.SLOWER)} up, beyond what so few requests scatter, and "
    f"confirmed by the mean; full workers that answer {percent(verdict.GAIN)} less; more errors; timeouts; after "
    "growth, memory that does not hold it; after a removal, requests that wait.",
    f"**Undone** where growth gains less than {percent(verdict.GAIN)} of throughput and the queue is not "
    f"{percent(verdict.SHORTER)} shorter. Either way the count before it is the ceiling for "
    f"{duration(Limits.learned_seconds)}, for workers of the same class and slots; without a lack of CPU, for up to "
    f"{bounds.LEARNED_FOR:g} times as many requests at a time.",
    f"**Inconclusive** where the load changed by more than {percent(verdict.ALIKE)}: it is kept, and looked at again "
    f"until {verdict.LOOKS} windows have passed.",
    "**Kept** otherwise. A removal that harms is kept too, while something forbids growth.",
)

_LOAD = (
    "Full workers answer what they can, whatever comes, and clients who wait send more as soon as they get an answer.",
    "There, what is in service and what waits tells whether the load is alike, and a higher rate is the gain.",
    f"A p99 takes part from {verdict.P99_REQUESTS:.0f} requests in each window; of fewer, the queue and the throughput "
    "decide.",
    f"Where C >= {percent(CPU_BOUND)} it is that of the time in service, since one more worker then only moves the "
    "wait from the queue to the CPU; elsewhere the queue is added to it, which is what users feel.",
)


def around(rows: str, vetoes: str) -> str:
    """Return the page around its two tables."""
    parts = (
        _lines(_HEAD),
        _items(_LETTERS),
        f"## The table\n\n{_lines(_TABLE)}",
        rows,
        f"## What forbids growth\n\n{_lines(_VETOES)}",
        vetoes,
        f"## Guard rails\n\n{_items(_RAILS)}",
        f"## What becomes of a change\n\n{_lines(_JUDGED)}",
        _items(_OUTCOMES),
        _lines(_LOAD),
    )
    return "\n".join(parts)


def _lines(sentences: tuple[str, ...]) -> str:
    return "".join(f"{each}\n" for each in sentences)


def _items(sentences: tuple[str, ...]) -> str:
    return "".join(f"- {each}\n" for each in sentences)
