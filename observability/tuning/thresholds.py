"""Where a row of the decision table begins to hold: starting points, each with where it comes from.

"Measured" means two cores and 32 clients, each of whom sends the next request when the last is answered.
"""

from typing import Final

# Memory.
MEMORY_HIGH: Final = 0.9  # as the alert MemoryNearLimit
MEMORY_PLANNED: Final = 0.85  # what growth may fill: page tables, sockets and a worker's own peaks want the rest

# Slots and waiting.
SATURATED: Final = 0.8  # of the time every slot is taken; as the alert WorkersSaturated
PLANNED: Final = 0.65  # of the slots are busy where waiting stays short: Little's law, and some to spare
ROOMY: Final = 0.6  # below it the workers are not what a request waits for
IDLE: Final = 0.25  # as the alert WorkersOverProvisioned
QUIET: Final = 0.5  # of the objective: who waits less is no reason to keep a worker; 25 ms of 50 ms, a bucket's bound
BY_CHANCE: Final = 0.5  # of the objective: a queue is explained where requests at random moments wait so long already
# Chosen by simulated days (tests/prove_tuning/simulation.py): of 0.5, 4 % more worker hours.
ENOUGH: Final = 1.0  # of the objective: slots of which chance makes no longer waits are enough
OTHER: Final = 0.1  # by so much of the time the busy ratio is another than it was
HALF: Final = 0.5  # of the slots in use before any growth: Netflix's concurrency limits grow no sooner
NO_QUEUE: Final = 0.2  # of the objective: 10 ms of 50 ms, twice what a histogram makes of its lowest bucket of 5 ms
BACKLOG_HIGH: Final = 0.8  # of its limit; as the alert ListenBacklogGrowing, where it is critical

# CPU.
CPU_BOUND: Final = 0.7  # measured: 0.85 where two workers compute, 0.35 where 32 wait
CPU_FULL: Final = 0.85
STARVED: Final = 1.0  # threads wait as long as they run; as the alert CpuStarved. Measured: 1.06 at twice the cores
THROTTLED: Final = 0.25  # of the quota's periods; as the alert CpuStarved
BUSY_CORES: Final = 0.2  # an idle server's threads wait for a CPU as well, for nothing; as the alert CpuStarved
WHOLE_CORE: Final = 0.8  # of the core that a worker can have at most: a hub that is as busy as this computes

# Event loops.
LAG: Final = 0.1  # seconds
BLOCKS: Final = 3.0  # in five minutes; as the alert WorkerLoopBlocked: one may be a paused machine

# What a request is like.
SLOWER: Final = 2.0  # times the usual p99; a histogram's bucket is up to 2.5 times wide, so less may be its edge
SLOWER_SECONDS: Final = 0.1  # and by that much: nobody feels 2 ms become 4 ms
ERRORS: Final = 0.05  # of the requests; burns a budget of 0.1 % fifty times too fast, long before an alert on it fires
ERRORS_OF: Final = 20.0  # requests: of fewer, one failure would be 5 %

# What a decision must rest on.
REQUESTS: Final = 200.0  # in the window: a p95 then stands on ten requests
TURNS: Final = 2.0  # or each slot, taken for most of the window, has finished so many: nothing more is to be learnt
REQUESTS_LEAST: Final = 10.0  # and no fewer than these
