"""The app, watched by each of the usual libraries as its own documentation has it.

Only the peer's environment has the library, so each is imported where it is used.
"""

import logging
import os
import time
from typing import Any

from flask import Flask, Response, g, request

from bench.apps import todos


def flask_exporter() -> Flask:
    """Use prometheus_flask_exporter, for gunicorn: https://github.com/rycus86/prometheus_flask_exporter#gunicorn."""
    return _with_flask_exporter(todos.create_app())


def structlog_line() -> Flask:
    """Use structlog for one line a request, by the fastest of its configurations."""
    return _with_structlog(todos.create_app())


def opentelemetry() -> Flask:
    """Use OpenTelemetry's instrumentation of Flask, and its exporter."""
    return _with_opentelemetry(todos.create_app())


def usual() -> Flask:
    """Use all three at once: metrics, a log line, traces."""
    return _with_opentelemetry(_with_structlog(_with_flask_exporter(todos.create_app())))


def _with_flask_exporter(app: Flask) -> Flask:
    from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics  # type: ignore[import-not-found]

    GunicornPrometheusMetrics(app, group_by="url_rule")
    return app


def _with_structlog(app: Flask) -> Flask:
    """Configure as https://www.structlog.org/en/stable/performance.html advises: orjson, bytes, and a cached logger."""
    import orjson
    import structlog

    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(),
    )
    log = structlog.get_logger()

    @app.before_request
    def begin() -> None:
        g.start = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        log.info(
            "request",
            method=request.method,
            path=request.path,
            route=request.url_rule.rule if request.url_rule else "",
            status=response.status_code,
            duration=round(time.perf_counter() - g.start, 6),
            client=request.remote_addr,
            user_agent=request.headers.get("User-Agent", ""),
            size=response.content_length,
        )
        return response

    return app


def _with_opentelemetry(app: Flask) -> Flask:
    """Provide in the worker, since gunicorn forks.

    https://opentelemetry-python.readthedocs.io/en/latest/examples/fork-process-model/README.html
    """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    ratio = float(os.environ["OTEL_TRACES_SAMPLER_ARG"])
    provider: Any = TracerProvider(
        resource=Resource.create({"service.name": "todos"}), sampler=ParentBased(TraceIdRatioBased(ratio))
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    FlaskInstrumentor().instrument_app(app)
    return app
