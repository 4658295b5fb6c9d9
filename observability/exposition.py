"""Writes a page of metrics as Prometheus text or as OpenMetrics, by content negotiation."""

from math import inf, isinf, isnan

from observability.page import Labels, Merged, Page, Point

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def negotiate(accept: str) -> str:
    """Return the content type for an Accept header: OpenMetrics where the client asks for it."""
    return OPENMETRICS if "application/openmetrics-text" in accept else TEXT


def write(page: Page, content_type: str) -> bytes:
    """Write the page; a metric without a value is left out."""
    openmetrics = content_type == OPENMETRICS
    lines: list[str] = []
    for name in sorted(page):
        metric = page[name]
        samples = _samples(name, metric, openmetrics)
        if samples:
            family = name.removesuffix("_total") if openmetrics and metric.kind == "counter" else name
            lines.append(f"# HELP {family} {_escape_help(metric.help, openmetrics)}")
            lines.append(f"# TYPE {family} {metric.kind}")
            lines += samples
    if openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _samples(name: str, metric: Merged, openmetrics: bool) -> list[str]:
    lines: list[str] = []
    for labels, points in sorted(metric.children.items()):
        if metric.kind == "histogram":
            lines += _histogram(name, labels, points, openmetrics)
            continue
        for (suffix, _), point in points.items():
            if point.seen:
                line = f"{name}{suffix}{_braces(labels)} {number(point.value)}"
                lines.append(line + _exemplar(point, openmetrics and metric.kind == "counter"))
    return lines


def _histogram(name: str, labels: Labels, points: dict[tuple[str, float], Point], openmetrics: bool) -> list[str]:
    """Write one histogram: the slots hold each bucket's own count, the text wants them cumulative."""
    if not any(point.seen for point in points.values()):
        return []
    lines, total = [], 0.0
    buckets = sorted((bound, point) for (suffix, bound), point in points.items() if suffix == "_bucket")
    for bound, point in buckets:
        total += point.value
        bucket = _braces((*labels, ("le", number(bound))))
        lines.append(f"{name}_bucket{bucket} {number(total)}{_exemplar(point, openmetrics)}")
    sums = points.get(("_sum", inf))
    lines.append(f"{name}_count{_braces(labels)} {number(total)}")
    lines.append(f"{name}_sum{_braces(labels)} {number(sums.value if sums else 0.0)}")
    return lines


def _exemplar(point: Point, shown: bool) -> str:
    if not shown or point.exemplar is None:
        return ""
    labels, value, timestamp = point.exemplar
    return f" # {_braces(tuple(labels.items())) or '{}'} {number(value)} {timestamp:.3f}"


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(value: str, openmetrics: bool) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if openmetrics else escaped


def number(value: float) -> str:
    """Write a number as both formats take it."""
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if isnan(value) else repr(float(value))
