"""What Sightline says about itself."""

from observability.catalogue.declaring import declare

LOG_LINES_DROPPED = declare(
    "observability_log_lines_dropped_total",
    "counter",
    "Log lines given up because stdout was blocked or failed.",
)
SPANS = declare("observability_spans_total", "counter", "Spans by outcome: exported, or dropped.", ("outcome",))
LABEL_SETS_REFUSED = declare(
    "observability_label_sets_refused_total",
    "counter",
    "Times that a new label set found its metric full, and went to the overflow series.",
    ("metric",),
)
STORE_REFUSED = declare(
    "observability_store_refused_total",
    "counter",
    "Series that found no room in the slot file, and are not shown.",
)
HOOK_FAILURES = declare(
    "observability_hook_failures_total",
    "counter",
    "Server hooks whose inner work failed; the server went on.",
    ("hook",),
)
AGENT_STARTS = declare("observability_agent_starts_total", "counter", "Starts of the agent by the master.")
SCRAPE_SECONDS = declare(
    "observability_scrape_seconds", "gauge", "Time that reading and merging the slots took in this scrape."
)
STORE_FILES = declare("observability_store_files", "gauge", "Slot files in the state directory.")
STORE_BYTES = declare("observability_store_bytes", "gauge", "Memory or disk that the slot files occupy.")
STORE_CORRUPT = declare(
    "observability_store_corrupt_files", "gauge", "Slot files that could not be read and were left out."
)
