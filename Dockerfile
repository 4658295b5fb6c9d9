# Built with `make up`, or `docker build --build-arg VERSION=1.2.3 .`; the network is needed for the packages only.
# Whoever mirrors the base image pins it by digest as well: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13.11-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# Hashes are checked, wheels only: nothing is compiled. The environment has no pip, and nothing else goes on from here.
COPY requirements.txt /
RUN python -m venv --without-pip /venv && \
    python -m pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary=:all: --require-hashes -r /requirements.txt

FROM ${PYTHON_IMAGE} AS build-grafana
COPY requirements-grafana.txt /
RUN python -m venv --without-pip /venv && \
    python -m pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary=:all: --require-hashes -r /requirements-grafana.txt

# What writes annotations into Grafana, apart from the app: grafana-client's HTTP library replaces urllib3.
# `docker build --target grafana .`; BuildKit leaves it out of the app's build.
FROM ${PYTHON_IMAGE} AS grafana
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sightline && \
    install -d -o sightline -g sightline /spool
COPY --from=build-grafana /venv /venv
WORKDIR /srv
COPY observability ./observability
RUN python -m compileall -q .
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "observability", "grafana"]
CMD ["annotate"]

FROM ${PYTHON_IMAGE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Sightline" \
      org.opencontainers.image.description="A todo API under gunicorn, every worker of it seen" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SERVICE_VERSION=${VERSION}
# /data and /tuner are made here so that a named volume mounted on one starts with this owner.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sightline && \
    install -d -o sightline -g sightline /data /tuner
COPY --from=build /venv /venv
WORKDIR /srv
COPY gunicorn.conf.py ./
COPY observability ./observability
COPY app ./app
# Here, since the container's root is read-only, and every worker imports all of it.
RUN python -m compileall -q .
USER 10001:10001
EXPOSE 8000 9101
STOPSIGNAL SIGTERM
CMD ["gunicorn", "app:create_app()"]
