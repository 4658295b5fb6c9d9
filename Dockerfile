FROM python:3.13-slim-bookworm AS build
# Hashes are checked, and nothing of the build but the environment goes on.
COPY requirements.txt /
RUN python -m venv /venv && \
    /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements.txt

FROM python:3.13-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# /data is made here so that a named volume mounted on it starts with this owner.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sightline && \
    install -d -o sightline -g sightline /data
COPY --from=build /venv /venv
WORKDIR /srv
COPY gunicorn.conf.py ./
COPY observability ./observability
COPY app ./app
USER 10001:10001
EXPOSE 8000 9101
STOPSIGNAL SIGTERM
CMD ["gunicorn", "app:create_app()"]
