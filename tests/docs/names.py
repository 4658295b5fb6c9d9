"""The names that pages, rules and dashboards use, against those that exist.

What exists is read from the reference pages, which are generated from the code and checked to be current.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.server import ROOT

ROW = re.compile(r"^\| `([^`]+)` \|([^|]*)\|([^|]*)\|", re.MULTILINE)
WORD = re.compile(r"[a-zA-Z_:][\w:]*")
SELECTED = re.compile(r"\b([a-z_:][a-z0-9_:]*)\{([^{}]*)\}")
MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
TEMPLATED = re.compile(r"\{\{\s*(?!(?:else|end)\b)(?:\$labels\.)?(\w+)\s*[|}]")
RECORDED = re.compile(r"(?<![\w:./-])[a-z_]+:[a-z][a-z0-9_]*:(?:[a-z][a-z0-9_]*\b(?:\.[*+])?|\.[*+])")
VARIABLE = re.compile(r"(?<![\w.$])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b|\b([A-Z][A-Z0-9_]*)=")
FILE = re.compile(r"`((?:app|dashboards|docs|monitoring|observability|runbooks|scripts|tests)/[\w./-]*)`")

SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
# of Prometheus itself, of our rules, of Loki
OF_PROMETHEUS = {"job", "instance", "alertname", "severity", "slo", "phase", "service"}
# of `make test`; fcntl(2)'s; https://no-color.org; urllib.request.getproxies reads these
OTHER_VARIABLES = {"ARGS", "F_OFD_SETLK", "NO_COLOR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}


@dataclass(frozen=True)
class Known:
    """What exists: each series with its labels, the variables, and what the rules record."""

    series: dict[str, set[str]]
    variables: set[str]
    recorded: set[str]

    @property
    def labels(self) -> set[str]:
        return set().union(*self.series.values()) | OF_PROMETHEUS

    def records(self, name: str) -> bool:
        """Tell whether the rules record a name, or one that a pattern such as `job:slo_burn:rate.*` finds."""
        return any(re.fullmatch(name, each) for each in self.recorded)

    @property
    def prefixes(self) -> set[str]:
        return {name.partition("_")[0] + "_" for name in self.series}


def known() -> Known:
    """Read what exists."""
    series = {}
    for name, kind, labels in ROW.findall((ROOT / "docs/metrics.md").read_text()):
        for suffix in SUFFIXES[kind.strip()]:
            extra = {"le"} if suffix == "_bucket" else set()
            series[name + suffix] = set(re.findall(r"`(\w+)`", labels)) | extra
    settings = (ROOT / "docs/settings.md").read_text()
    connection = (ROOT / "observability/otlp_connection.py").read_text()
    of_otlp = {f"OTEL_EXPORTER_OTLP_{name}" for name in re.findall(r'variable\("(\w+)"\)', connection)}
    variables = {name for name, _, _ in ROW.findall(settings)} | of_otlp | OTHER_VARIABLES
    rules = [path.read_text() for path in ROOT.glob("monitoring/prometheus/*/*.yml")]
    return Known(series, variables, {name for text in rules for name in re.findall(r"- record: (\S+)", text)})


def unknown(text: str, exists: Known) -> Iterator[str]:
    """Yield each metric, label and variable of ours in a text that does not exist."""
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exists.series}
    for found in WORD.finditer(text):
        word = found[0]
        ours = word.startswith(tuple(exists.prefixes)) and text[found.end() : found.end() + 3] != ".py"
        if ours and word not in exists.series and word not in families | exists.labels:
            yield f"metric {word}"
    for name, matchers in SELECTED.findall(text):
        for label in MATCHED.findall(matchers):
            if name in exists.series and label not in exists.series[name] | OF_PROMETHEUS:
                yield f"label {label} of {name}"
    grouped = [label.strip() for labels in GROUPED.findall(text) for label in labels.split(",")]
    for label in grouped + TEMPLATED.findall(text):
        if label and label not in exists.labels and re.fullmatch(r"\w+", label):
            yield f"label {label}"
    yield from (f"recorded {name}" for name in RECORDED.findall(text) if not exists.records(name))
    for found in VARIABLE.finditer(text):
        if (variable := found[1] or found[2]) not in exists.variables:
            yield f"variable {variable}"


def pages() -> list[Path]:
    """Return the pages that people read."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("runbooks/*.md")])


def machine_read() -> list[Path]:
    """Return the rules and the dashboards."""
    return sorted([*ROOT.glob("monitoring/**/rules/*.yml"), *ROOT.glob("dashboards/*.json")])


def texts(path: Path) -> Iterator[str]:
    """Yield a file's texts: a page as a whole, each string of a rule or of a dashboard by itself."""
    raw = path.read_text()
    if path.suffix == ".json":
        yield from _strings(json.loads(raw))
    elif path.suffix == ".yml":
        yield from _strings(yaml.safe_load(raw))
    else:
        yield raw


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
