"""What nginx, Loki, Tempo, Alloy, Grafana and the blackbox exporter read: well-formed, and agreeing with each other.

nginx checks its own files. The others are not to be had from Debian: see docs/stack.md for what that leaves unchecked.
"""

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from observability import catalogue
from scripts import packages
from scripts.options import ROOT
from tests.platform.test_containers import SERVICES, config

MONITORING = ROOT / "monitoring"
NGINX = MONITORING / "nginx"
ALLOY = (MONITORING / "alloy/config.alloy").read_text()
LOKI = yaml.safe_load((MONITORING / "loki/loki.yml").read_text())
TEMPO = yaml.safe_load((MONITORING / "tempo/tempo.yml").read_text())
PROMETHEUS = yaml.safe_load((MONITORING / "prometheus/prometheus.yml").read_text())
SOURCES = {
    source["uid"]: source
    for path in (MONITORING / "grafana/provisioning/datasources").glob("*.yml")
    for source in yaml.safe_load(path.read_text())["datasources"]
}
# Where each one listens, as its own configuration or documentation has it.
LISTENS = {
    "alertmanager": {9093},
    "alloy": {4318, 12345},
    "app": {8000, 9101},
    "blackbox": {9115},
    "docker-logs": {2375},
    "grafana": {3000},
    "loki": {LOKI["server"]["http_listen_port"]},
    "nginx": {8080, 8081, 8443, 9101},
    "nginx-exporter": {9113},
    "postgres": {5432},
    "postgres-exporter": {9187},
    "prometheus": {9090},
    "redis": {6379},
    "redis-exporter": {9121},
    "tempo": {TEMPO["server"]["http_listen_port"], 4317},
    "tuner": {9102},
}
NAMED = re.compile(r"\b(" + "|".join(sorted(LISTENS, key=len, reverse=True)) + r"):(\d{4,5})\b")


def nginx_tree(directory: Path, template: str) -> Path:
    """Lay out the files as the container has them below a directory, and return the main one."""
    etc, run = directory / "etc", directory / "run"
    (etc / "conf.d").mkdir(parents=True)
    run.mkdir()
    (etc / "mime.types").write_text("types { text/html html; }\n")
    (directory / "tmp").mkdir()

    def place(name: str, target: str) -> Path:
        text = (NGINX / name).read_text()
        for variable, value in {"${MAX_BODY_BYTES}": "131072", "${TLS_PORT}": "8443"}.items():
            text = text.replace(variable, value)
        for inside, outside in {" /tmp/": f" {directory}/tmp/", "/etc/nginx": etc, "/run/secrets": run}.items():
            text = text.replace(inside, str(outside))
        (etc / target).write_text(text)
        return etc / target

    place("proxy.conf", "proxy.conf")
    place(template, "conf.d/sightline.conf")
    place("agent.conf.template", "conf.d/agent.conf")
    return place("nginx.conf", "nginx.conf")


def certificate(directory: Path) -> None:
    """Make a certificate and its key, as nobody trusts them."""
    names = ("-keyout", directory / "tls_key", "-out", directory / "tls_certificate", "-subj", "/CN=localhost")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names]
    subprocess.run([*command, "-days", "30"], check=True, capture_output=True)


def nginx_takes(main: Path) -> None:
    program = packages.Tool("nginx", ("nginx", "/usr/sbin/nginx")).path()
    assert program, "nginx is not installed: apt-get install nginx-light"
    done = subprocess.run([program, "-t", "-q", "-c", main], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("template", ["plain.conf.template", "tls.conf.template"])
def test_nginx_takes_its_configuration(tmp_path, template):
    main = nginx_tree(tmp_path, template)
    certificate(tmp_path / "run")
    nginx_takes(main)


def test_nginx_takes_the_gate_to_the_docker_socket(tmp_path):
    (tmp_path / "tmp").mkdir()
    text = (NGINX / "docker-logs.conf").read_text().replace(" /tmp/", f" {tmp_path}/tmp/")
    (tmp_path / "nginx.conf").write_text(text)
    nginx_takes(tmp_path / "nginx.conf")


def test_the_gate_lets_nothing_by_but_lists_and_logs():
    text = (NGINX / "docker-logs.conf").read_text()
    (allowed,) = re.findall(r"location ~ (\S+) \{", text)
    name = "f00f00"
    for path in ("/_ping", "/v1.51/containers/json", f"/v1.51/containers/{name}/logs", "/v1.51/networks", "/events"):
        assert re.search(allowed, path), path
    for path in (
        f"/v1.51/containers/{name}/exec",
        f"/containers/{name}/archive",
        f"/containers/{name}/attach",
        "/images/json",
        "/v1.51/volumes",
        "/secrets",
        f"/exec/{name}/start",
        "/containers/create",
        "/containers/json/../create",
    ):
        assert not re.search(allowed, path), path
    assert "limit_except GET" in text


def test_the_overrides_replace_the_template_and_nothing_else():
    def templates(*overrides: str) -> dict[str, str]:
        mounts = config(*overrides)["services"]["nginx"]["volumes"]
        return {volume["target"]: Path(volume["source"]).name for volume in mounts if "template" in volume["target"]}

    site = "/etc/nginx/templates/sightline.conf.template"
    agent = {"/etc/nginx/templates/agent.conf.template": "agent.conf.template"}
    assert templates() == {site: "plain.conf.template"}
    assert templates("compose.local.yml", "compose.tls.yml") == {site: "tls.conf.template"} | agent


def test_every_variable_of_a_template_is_filled_in():
    environment = config("compose.tls.yml")["services"]["nginx"]["environment"]
    used = {name for path in NGINX.glob("*.template") for name in re.findall(r"\$\{(\w+)\}", path.read_text())}
    assert used == {"MAX_BODY_BYTES", "TLS_PORT"}
    assert used <= environment.keys()
    for name in used:
        assert re.fullmatch(environment["NGINX_ENVSUBST_FILTER"].replace("$$", "$"), name)


def test_what_one_names_another_listens_on():
    seen = set()
    for path in [*MONITORING.rglob("*"), *ROOT.glob("*compose*.yml")]:
        if path.is_file():
            for name, port in NAMED.findall(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", path.read_text())):
                assert int(port) in LISTENS[name], (path.name, name, port)
                seen.add(name)
    assert {"app", "tempo", "loki", "alloy", "docker-logs", "nginx-exporter"} <= seen


def test_prometheus_scrapes_every_service_that_has_metrics():
    jobs = {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    assert jobs == {
        *("sightline", "nginx", "postgres", "redis", "blackbox"),
        *("prometheus", "alertmanager", "tuner", "loki", "tempo", "grafana", "alloy"),
    }
    sightline = PROMETHEUS["scrape_configs"][0]
    assert sightline["dns_sd_configs"] == [{"names": ["app"], "type": "A", "port": 9101, "refresh_interval": "5s"}]
    assert (sightline["scrape_interval"], sightline["scrape_timeout"]) == ("5s", "4s")


@pytest.mark.parametrize(("override", "url"), [((), "http://nginx:8080"), (("compose.tls.yml",), "https://nginx:8443")])
def test_the_probe_goes_where_nginx_serves(override, url):
    mounts = {v["target"]: Path(v["source"]) for v in config(*override)["services"]["prometheus"]["volumes"]}
    inside = "/etc/prometheus/targets/blackbox.yml"
    path = mounts.get(inside) or mounts["/etc/prometheus"] / "targets/blackbox.yml"
    assert yaml.safe_load(path.read_text()) == [{"targets": [f"{url}/healthz"]}]
    (job,) = [job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == "blackbox"]
    modules = yaml.safe_load((MONITORING / "blackbox/blackbox.yml").read_text())["modules"]
    assert job["params"]["module"] == list(modules)


def test_logs_and_traces_are_kept_as_long():
    plans = TEMPO["backend_scheduler"]["provider"]["compaction"]["compaction"]["block_retention"]
    assert (
        plans == TEMPO["backend_worker"]["compaction"]["block_retention"] == LOKI["limits_config"]["retention_period"]
    )
    assert LOKI["compactor"]["retention_enabled"] is True


@pytest.mark.parametrize(("service", "configuration"), [("loki", LOKI), ("tempo", TEMPO)], ids=["loki", "tempo"])
def test_what_is_written_is_on_the_volume(service, configuration):
    (volume,) = [volume["target"] for volume in SERVICES[service]["volumes"] if volume["type"] == "volume"]
    paths = re.findall(r"(?<=')(/[^']+)(?=')", str(configuration))
    assert paths
    assert all(path.startswith(volume) for path in paths)


def test_alloys_components_are_there_and_used():
    """Each reference is to a component that the file has, and none but the ends is without one."""
    made = {f"{kind}.{label}" for kind, label in re.findall(r'^([a-z_.]+) "(\w+)" \{$', ALLOY, re.MULTILINE)}
    used = set(re.findall(r"\b((?:discovery|loki|otelcol)\.[a-z_.]+?\.\w+)\.(?:targets|rules|receiver|input)", ALLOY))
    assert used <= made
    assert made - used == {"loki.source.docker.project", "otelcol.receiver.otlp.spans"}
    assert ALLOY.count("{") == ALLOY.count("}")


def test_lines_carry_few_labels_and_their_ids_beside():
    (labels,) = re.findall(r"stage\.label_keep \{\s*values = \[(.+)\]", ALLOY)
    assert re.findall(r'"(\w+)"', labels) == ["service", "level"]
    (beside,) = re.findall(r"stage\.structured_metadata \{\s*values = \{(.+)\}", ALLOY)
    assert set(re.findall(r"(\w+) =", beside)) == {"trace_id", "span_id", "container"}
    assert LOKI["limits_config"]["allow_structured_metadata"] is True
    assert LOKI["schema_config"]["configs"][-1]["schema"] == "v13"


def test_grafana_reads_what_compose_runs_and_mounts():
    mounts = {volume["target"]: volume["source"] for volume in SERVICES["grafana"]["volumes"]}
    assert mounts["/etc/grafana/provisioning"] == str(MONITORING / "grafana/provisioning")
    text = (MONITORING / "grafana/provisioning/dashboards/sightline.yml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    assert mounts[provider["options"]["path"]] == str(ROOT / "dashboards")
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / "dashboards" / home.relative_to(provider["options"]["path"])).is_file()
    assert SOURCES.keys() == {"prometheus", "alertmanager", "loki", "tempo"}
    for source in SOURCES.values():
        address = urlsplit(source["url"])
        assert address.port in LISTENS[address.hostname]
        assert source["editable"] is False


def test_one_signal_leads_to_the_next():
    links = {
        uid: set(re.findall(r"'datasourceUid': '(\w+)'", str(source.get("jsonData"))))
        for uid, source in SOURCES.items()
    }
    assert links == {"prometheus": {"tempo"}, "loki": {"tempo"}, "tempo": {"loki", "prometheus"}, "alertmanager": set()}
    (exemplar,) = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    (derived,) = SOURCES["loki"]["jsonData"]["derivedFields"]
    assert exemplar["name"] == derived["matcherRegex"] == "trace_id"
    query = SOURCES["tempo"]["jsonData"]["tracesToLogsV2"]["query"]
    assert query == '{service=~".+"} | trace_id="$${__span.traceId}"'
    for name in re.findall(r"\w+_count", str(SOURCES["tempo"])):
        assert name.removesuffix("_count") in catalogue.METRICS


def test_a_dollar_in_a_data_source_is_not_taken_for_a_variable():
    for source in SOURCES.values():
        assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", str(source)), source["name"]
