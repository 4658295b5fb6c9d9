"""All scenarios, in the order of the page."""

from tests.prove_tuning.scenario import Scenario
from tests.prove_tuning.scenarios import causes, failures, growth, memory, quiet

SCENARIOS: tuple[Scenario, ...] = (
    *growth.SCENARIOS,
    *memory.SCENARIOS,
    *causes.SCENARIOS,
    *quiet.SCENARIOS,
    *failures.SCENARIOS,
)
