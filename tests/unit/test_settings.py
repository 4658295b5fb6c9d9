"""Settings: parsed, bounded, masked, and refused with one clear line."""

from dataclasses import fields
from pathlib import Path

import pytest

from observability import limits, settings
from observability.settings import Server, Settings, SettingsError, load


def test_defaults_load_from_an_empty_environment() -> None:
    assert load(Server, {}).worker_class == "gevent"
    assert load(Settings, {}).sample_ratio == 0.1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GUNICORN_THREADS", "abc"),
        ("GUNICORN_THREADS", "0"),
        ("GUNICORN_TIMEOUT", "-1"),
        ("GUNICORN_BIND", "localhost"),
        ("GUNICORN_BIND", "1.2.3.4:80,,x:1"),
        ("GUNICORN_WORKER_CLASS", "threads"),
        ("GUNICORN_PRELOAD", "maybe"),
    ],
)
def test_a_senseless_value_is_one_line_with_the_name_the_value_and_what_it_takes(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(Server, {variable: value})
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{variable} is {value!r}, but takes ")


@pytest.mark.parametrize("value", ["nan", "2", "-0.1", "x"])
def test_a_ratio_takes_a_number_from_0_to_1(value: str) -> None:
    with pytest.raises(SettingsError, match=r"OTEL_TRACES_SAMPLER_ARG is .* a number from 0 to 1"):
        load(Settings, {"OTEL_TRACES_SAMPLER_ARG": value})


@pytest.mark.parametrize("value", ["0.0.0.0:80", "[::1]:8000", "unix:/run/a.sock", "127.0.0.1:1,[::1]:2"])
def test_bind_takes_what_gunicorn_takes(value: str) -> None:
    assert load(Server, {"GUNICORN_BIND": value}).bind == value


def test_a_secret_is_never_shown() -> None:
    loaded = load(Settings, {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:pass@collector:4318/x"})
    assert dict(settings.shown(loaded))["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://user:***@collector:4318/x"
    with pytest.raises(SettingsError) as refused:
        load(Settings, {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://user:pass@collector"})
    assert "pass" not in str(refused.value)


@pytest.mark.parametrize("cls", [Settings, Server])
def test_every_setting_has_help_a_shown_default_and_a_name_of_its_own(cls: type) -> None:
    variables = [each.metadata["variable"] for each in fields(cls)]
    assert len(set(variables)) == len(variables)
    for each in fields(cls):
        assert each.metadata["help"].endswith(".")
        assert isinstance(settings.default_of(each), str)


def test_the_cgroup_bounds_cpus_and_memory(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("300000000\n")
    assert limits.cpus(tmp_path) == 0.5
    assert limits.memory(tmp_path) == 300_000_000
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert limits.cpus(tmp_path) >= 1
    assert limits.memory(tmp_path) > 300_000_000


@pytest.mark.parametrize(
    ("cpus", "memory", "workers"), [(2.0, 64 << 30, 5), (0.5, 64 << 30, 3), (8.0, 200 << 20, 2), (8.0, 1, 1)]
)
def test_default_workers_stay_within_both_limits(
    monkeypatch: pytest.MonkeyPatch, cpus: float, memory: int, workers: int
) -> None:
    monkeypatch.setattr(limits, "cpus", lambda: cpus)
    monkeypatch.setattr(limits, "memory", lambda: memory)
    assert limits.default_workers() == workers
