"""`grafana export`: what was changed on the page comes back as a difference, and nothing else does."""

import json

from tests.grafana.conftest import board, write


def test_what_nobody_changed_has_no_difference(grafana, run):
    run("sync")
    grafana.schema = 0
    done = run("export", "two")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_edit_is_a_unified_diff_against_the_file(grafana, run, boards):
    run("sync")
    before = (boards / "two.json").read_text()
    (panel,) = grafana.dashboards["two"].model["panels"]
    grafana.edit("two", panels=[panel | {"title": "Lines of the log"}], iteration=1700000000)
    done = run("export", "two")
    assert done.returncode == 1
    changed = [line for line in done.stdout.splitlines() if line[0] in "+-"]
    assert changed[:2] == ["--- code/two.json", "+++ grafana/two.json"]
    assert [line for line in changed[2:] if "schemaVersion" not in line] == [
        '-      "title": "Lines",',
        '+      "title": "Lines of the log",',
    ]
    assert [line.strip("+- ") for line in changed if "schemaVersion" in line] == [
        '"schemaVersion": 39,',
        '"schemaVersion": 42,',
    ], "Grafana migrates what it reads, and that is no secret"
    assert (boards / "two.json").read_text() == before


def test_write_writes_the_file_so_that_nothing_differs_any_more(grafana, run, boards):
    run("sync")
    grafana.edit("one", description="Says whether it is up")
    assert run("export", "one", "--write").returncode == 1
    written = json.loads((boards / "one.json").read_text())
    assert written == board("one", "One", {"type": "stat", "title": "Up"}) | {
        "description": "Says whether it is up",
        "schemaVersion": 42,
    }
    assert run("export", "one").returncode == 0


def test_other_peoples_data_sources_are_ours_again(grafana, run, boards):
    """Written for one Grafana's data sources, it would be of no use to another's."""
    grafana.add_source(uid="L1", name="Logs", type="loki", url="http://loki:3100")
    grafana.schema = 0
    run("sync")
    assert grafana.dashboards["two"].model["panels"][0]["datasource"]["uid"] == "L1"
    assert run("export", "two").returncode == 0
    grafana.edit("two", title="Edited")
    done = run("export", "two", "--write")
    assert "L1" not in done.stdout
    assert json.loads((boards / "two.json").read_text())["panels"][0]["datasource"] == {"type": "loki", "uid": "loki"}


def test_an_order_of_keys_is_no_difference(grafana, run):
    run("sync")
    grafana.schema = 0
    saved = grafana.dashboards["one"]
    saved.model = json.loads(json.dumps(saved.model, sort_keys=True))
    assert run("export", "one").returncode == 0


def test_what_is_not_there_is_one_line(grafana, run, boards):
    run("sync")
    unknown = run("export", "nine")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("No dashboard nine in ")
    assert unknown.stderr.endswith("; there are one, two\n")
    write(boards, board("nine", "Nine"))
    missing = run("export", "nine")
    assert missing.returncode == 2
    assert missing.stderr == f"Grafana at {grafana.url} has no dashboard nine: run `grafana sync` first\n"


def test_hostile_text_cannot_reach_the_terminal(grafana, run):
    run("sync")
    grafana.edit("one", description="\x1b[2J\u202eevil")
    assert not {"\x1b", "\u202e"} & set(run("export", "one").stdout)
