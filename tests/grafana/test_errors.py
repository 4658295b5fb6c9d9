"""Whatever is wrong is said in one line, with exit status 2, and without the token."""

import socket
import threading

import pytest

from scripts import venv
from tests.grafana.command import Command, environ
from tests.grafana.server import TOKEN
from tests.server import ROOT, free_port

PARTS = (("sync",), ("sync", "--dry-run"), ("export", "one"), ("check",))


def line(done):
    """Return the one line of what was refused."""
    assert (done.returncode, done.stdout) == (2, ""), done
    (said,) = done.stderr.splitlines()
    return said


@pytest.mark.parametrize("part", PARTS, ids=" ".join)
def test_nobody_there(boards, part):
    url = f"http://127.0.0.1:{free_port()}"
    assert line(Command(url, GRAFANA_DASHBOARDS=boards)(*part)) == f"No Grafana at {url}: connection refused"


def test_an_unknown_name(boards):
    done = Command("http://grafana.invalid:3000", GRAFANA_DASHBOARDS=boards)("sync")
    assert line(done) == "No Grafana at http://grafana.invalid:3000: the host's name is not known"


def test_no_answer_in_time(boards):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = Command(url, GRAFANA_DASHBOARDS=boards, GRAFANA_TIMEOUT="0.3")("sync")
    assert line(done) == f"No answer from Grafana at {url} within 0.3 s"


def test_something_that_speaks_no_http(boards):
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer():
            connection, _ = odd.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{odd.getsockname()[1]}"
        done = Command(url, GRAFANA_DASHBOARDS=boards)("sync")
        thread.join()
    assert line(done).startswith(f"No Grafana at {url}: ")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "<html>Welcome</html>"), (200, {"hello": "world"}), (200, []), (404, "<html>Not Found</html>")],
)
def test_something_else_answers(grafana, run, status, body):
    grafana.answer(status, body, "/api/health")
    assert line(run("sync")).startswith(f"What answers at {grafana.url} is not Grafana")


def test_a_page_to_log_in_instead_of_the_api(grafana, run):
    """As a proxy with a login of its own answers, for all but the health check."""
    grafana.answer(200, "<html>Log in</html>", "/api/(?!health)")
    assert line(run("sync")) == f"What answers at {grafana.url} is not Grafana but a web page; is GRAFANA_URL right?"


def test_a_redirect_is_not_followed_with_the_token(grafana, run):
    elsewhere = []
    grafana.faults.append(lambda method, path: _redirect(path, elsewhere))
    assert line(run("sync")) == f"{grafana.url} leads elsewhere: set GRAFANA_URL to the address that Grafana itself has"
    assert len(elsewhere) == 1


def _redirect(path, seen):
    from flask import redirect

    seen.append(path)
    return redirect("/login", 302)


@pytest.mark.parametrize("part", PARTS, ids=" ".join)
def test_a_wrong_token(grafana, run, part):
    said = line(run(*part, GRAFANA_TOKEN="glsa_wrong"))
    assert said == f"Grafana at {grafana.url} refuses the token: Invalid API key; is it complete, and not expired?"


@pytest.mark.parametrize(
    ("right", "part", "what"),
    [
        ("folders:read", "sync", "read the folders"),
        ("folders:create", "sync", "make the folder Sightline"),
        ("datasources:read", "sync", "read the data sources"),
        ("datasources:create", "sync", "make the data source Sightline Prometheus"),
        ("dashboards:create", "sync", "save the dashboard one"),
        ("datasources:read", "check", "read the data sources"),
    ],
)
def test_no_right(grafana, run, right, part, what):
    grafana.rights.discard(right)
    done = run(part)
    assert done.returncode in (1, 2)
    said = done.stderr.splitlines()[0]
    assert said.startswith(f"The token has no right to {what}: You'll need additional permissions")
    assert f"Permissions needed: {right}; docs/grafana.md lists the rights" in said


@pytest.mark.parametrize(("version", "taken"), [("9.5.2", False), ("10.4.19", False), ("11.0.0", True), (None, True)])
def test_a_version_too_old(grafana, run, version, taken):
    grafana.version = version
    done = run("sync", "--dry-run")
    if taken:
        assert done.returncode == 0
    else:
        assert line(done) == f"Grafana at {grafana.url} is {version}, and 11.0 is the least supported version"


@pytest.mark.parametrize("status", [403, 429])
def test_a_quota(grafana, run, status):
    said = {"message": "Quota reached: dashboards"}
    grafana.answer(status, said, "/api/dashboards/db")
    done = run("sync")
    assert done.returncode == (1 if status == 403 else 2)
    assert done.stderr.splitlines()[0] == (
        "Cannot save the dashboard one: a quota of Grafana is used up: Quota reached: dashboards"
    )


def test_too_many_requests(grafana, run):
    grafana.answer(429, {"message": "Too many requests"}, "/api/folders")
    assert (
        line(run("sync")) == f"Grafana at {grafana.url} has had too many requests: Too many requests; try again later"
    )


def test_a_failing_server(grafana, run):
    grafana.answer(500, {"message": "database is locked"}, "/api/search")
    grafana.folders["sightline"] = "Sightline"
    assert line(run("sync")) == f"Grafana at {grafana.url} fails with 500 to search dashboards: database is locked"


@pytest.mark.parametrize("body", ["\x1b[2Jevil\nforged", "<script>x</script>" * 1000, ""])
def test_what_a_server_says_is_no_danger(grafana, run, body):
    grafana.answer(500, {"message": body}, "/api/folders")
    said = line(run("sync"))
    assert "\x1b" not in said
    assert len(said) < 500


@pytest.mark.parametrize("body", [[1], [{}], [None]])
def test_an_answer_of_another_shape(grafana, run, body):
    grafana.answer(200, body, "/api/folders")
    assert "is not Grafana, by its answer" in line(run("sync"))


def test_a_server_that_says_the_token_aloud(grafana, run):
    """Command checks that the token is in no output."""
    grafana.answer(500, {"message": f"got Authorization: Bearer {TOKEN}"}, "/api/folders")
    assert line(run("sync")).endswith("got Authorization: Bearer ***")


# Settings


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"GRAFANA_TOKEN": ""}, "GRAFANA_TOKEN or GRAFANA_TOKEN_FILE is needed"),
        ({"GRAFANA_TOKEN": "two words"}, "The token holds spaces or letters that no token of Grafana has"),
        ({"GRAFANA_TOKEN": "gläsern"}, "The token holds spaces or letters"),
        ({"GRAFANA_URL": "grafana:3000"}, "GRAFANA_URL is ***, but takes a URL that starts with http: or https:"),
        ({"GRAFANA_URL": "http://"}, "No Grafana at http://"),
        ({"GRAFANA_TOKEN_FILE": "/nowhere"}, "which cannot be read"),
        ({"GRAFANA_TOKEN_FILE": "/dev/null"}, "are both set"),
        ({"GRAFANA_TOKEN": "", "GRAFANA_TOKEN_FILE": "/dev/null"}, "/dev/null is empty"),
    ],
)
def test_a_setting_that_makes_no_sense(grafana, run, env, said):
    done = run("sync", **env)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert said in line


def test_the_token_from_a_file(grafana, run, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert run("sync", GRAFANA_TOKEN="", GRAFANA_TOKEN_FILE=tmp_path / "token").returncode == 0


def test_an_address_below_a_path(grafana, run):
    """grafana-client by itself would ask /grafanaapi/health."""
    grafana.answer(200, {"database": "ok", "version": "12.0.0"}, "^/grafana/api/health")
    grafana.answer(429, {"message": "here I am"}, "^/grafana/api/folders")
    assert "here I am" in line(run("sync", GRAFANA_URL=f"{grafana.url}/grafana"))
    assert {path.partition("?")[0] for _, path in grafana.requests} == {"/grafana/api/health", "/grafana/api/folders"}


def test_without_grafana_client_the_other_commands_run_and_this_one_says_how_to_get_it(tmp_path):
    import subprocess
    import sys

    for command in (["grafana", "sync"], ["grafana", "annotate"]):
        done = subprocess.run(
            [sys.executable, "-m", "observability", *command],
            cwd=ROOT,
            env=environ("http://127.0.0.1:1"),
            capture_output=True,
            text=True,
            check=False,
        )
        said = line(done)
        assert said.startswith("grafana-client is not installed here: `make grafana ")
        assert f"pip install -r {venv.GRAFANA.requirements}" in said
    for command in ("agent", "top", "doctor", "grafana"):
        done = subprocess.run([sys.executable, "-m", "observability", command, "--help"], cwd=ROOT, check=False)
        assert done.returncode == 0
