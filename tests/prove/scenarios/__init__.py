"""All scenarios, a module for each file of rules."""

from tests.prove.scenario import Scenario
from tests.prove.scenarios import dependencies, platform, resources, telemetry, users, workers

SCENARIOS: tuple[Scenario, ...] = (
    *users.SCENARIOS,
    *workers.SCENARIOS,
    *resources.SCENARIOS,
    *dependencies.SCENARIOS,
    *telemetry.SCENARIOS,
    *platform.SCENARIOS,
)
