"""What is measured against what."""

from bench.servers import Variant

_TODOS = "bench.apps.todos:create_app()"
_OURS = "bench.apps.observed:create_app()"
_EXPORTER = "bench/confs/flask_exporter.py"

BARE = Variant("bare", _TODOS)
OURS = Variant("ours", _OURS, "gunicorn.conf.py")
OURS_SAMPLED = Variant("ours_all_sampled", _OURS, "gunicorn.conf.py", environ={"OTEL_TRACES_SAMPLER_ARG": "1"})
FLASK_EXPORTER = Variant("flask_exporter", "bench.apps.peers:flask_exporter()", _EXPORTER, "flask_exporter")
STRUCTLOG = Variant("structlog", "bench.apps.peers:structlog_line()", environment="structlog")
OPENTELEMETRY = Variant("opentelemetry", "bench.apps.peers:opentelemetry()", environment="opentelemetry")
OPENTELEMETRY_SAMPLED = Variant(
    "opentelemetry_all_sampled",
    "bench.apps.peers:opentelemetry()",
    environment="opentelemetry",
    environ={"OTEL_TRACES_SAMPLER_ARG": "1"},
)
USUAL = Variant("usual", "bench.apps.peers:usual()", _EXPORTER, "usual")
# gunicorn-prometheus-exporter's arbiter fails on gunicorn 24 and later, so it has a bare server of its own.
BARE_OLD = Variant("bare_gunicorn_23", _TODOS, environment="gunicorn_exporter")
GUNICORN_EXPORTER = Variant(
    "gunicorn_exporter",
    _TODOS,
    "bench/confs/gunicorn_exporter.py",
    "gunicorn_exporter",
    worker_classes={
        "gevent": "gunicorn_prometheus_exporter.PrometheusGeventWorker",
        "sync": "gunicorn_prometheus_exporter.PrometheusWorker",
        "gthread": "gunicorn_prometheus_exporter.PrometheusThreadWorker",
    },
)

# The variant that each is compared with; bare for all others.
BASES = {GUNICORN_EXPORTER.name: BARE_OLD.name}
WORDS = {
    "bare": "gunicorn and Flask, nothing else",
    "ours": "Sightline, all signals",
    "ours_all_sampled": "Sightline, every request sampled",
    "flask_exporter": "prometheus_flask_exporter",
    "structlog": "structlog, one line a request",
    "opentelemetry": "OpenTelemetry's Flask instrumentation",
    "opentelemetry_all_sampled": "OpenTelemetry's, every request sampled",
    "usual": "the three together",
    "bare_gunicorn_23": "gunicorn 23 and Flask, nothing else",
    "gunicorn_exporter": "gunicorn-prometheus-exporter",
}
