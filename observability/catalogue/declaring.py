"""How a metric is declared."""

from observability.metric import Kind, Metric

METRICS: dict[str, Metric] = {}


def declare(
    name: str,
    kind: Kind,
    help: str,
    labels: tuple[str, ...] = (),
    buckets: tuple[float, ...] = (),
    *,
    per_worker: bool = False,
) -> Metric:
    """Declare one metric, as `Metric` describes it.

    Raises:
        ValueError: the name is declared already.
    """
    if name in METRICS:
        raise ValueError(f"{name} is declared twice")
    METRICS[name] = Metric(name, kind, help, labels, buckets, per_worker)
    return METRICS[name]
