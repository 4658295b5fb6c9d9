"""`grafana sync`: it brings what is missing, leaves what is well, and keeps what is not its own."""

import json
import re

import pytest
import yaml

from observability.grafana import sources
from observability.grafana.settings import Settings
from tests.grafana.conftest import board, write
from tests.grafana.strict import RIGHTS
from tests.server import ROOT

STEP = re.compile(r"^  (\w+) +(folder|data source|dashboard) +(\S+) ", re.MULTILINE)


def plan(done):
    """Return the plan's steps as action and uid."""
    assert done.returncode == 0, done.stderr
    return {uid: action for action, _, uid in STEP.findall(done.stdout.partition("Done:")[0])}


def test_it_brings_all_and_a_second_time_changes_nothing(grafana, run):
    first = plan(run("sync"))
    kinds = {f"sightline-{kind}" for kind in ("prometheus", "alertmanager", "loki", "tempo")}
    assert first == dict.fromkeys({"sightline", "one", "two"} | kinds, "create")
    assert grafana.folders == {"sightline": "Sightline"}
    assert {uid: each.folder for uid, each in grafana.dashboards.items()} == {"one": "sightline", "two": "sightline"}
    assert grafana.sources.keys() == kinds
    before = len(grafana.saves())
    again = run("sync")
    assert plan(again) == {"sightline": "use", **dict.fromkeys({"one", "two"} | kinds, "unchanged")}
    assert len(grafana.saves()) == before
    assert "7 unchanged" not in again.stderr
    assert "Done: 1 used, 6 unchanged." in again.stdout


def test_a_dry_run_shows_the_same_plan_and_does_nothing(grafana, run):
    dry = run("sync", "--dry-run")
    assert grafana.saves() == []
    assert "Nothing was done; it would be: 7 created." in dry.stdout
    assert STEP.findall(dry.stdout) == STEP.findall(run("sync").stdout)


def test_a_dashboard_that_the_code_changed_is_updated_as_the_next_version(grafana, run, boards):
    run("sync")
    write(boards, board("one", "One, better"))
    assert plan(run("sync"))["one"] == "update"
    assert grafana.dashboards["one"].model["title"] == "One, better"
    assert [each["version"] for each in grafana.dashboards["one"].versions] == [1, 2]
    assert plan(run("sync"))["one"] == "unchanged"


@pytest.mark.parametrize("wraps", [True, False])
def test_what_people_changed_is_kept_unless_forced(grafana, run, boards, wraps):
    """However Grafana writes the list of versions."""
    grafana.wraps_versions = wraps
    run("sync")
    grafana.edit("one", title="One, as Alice likes it")
    write(boards, board("one", "One, better"))
    kept = run("sync")
    assert plan(kept)["one"] == "keep"
    assert "changed there by alice, version 2; --force overwrites it" in kept.stdout
    assert grafana.dashboards["one"].model["title"] == "One, as Alice likes it"
    forced = run("sync", "--force")
    assert plan(forced)["one"] == "update"
    assert "overwrites: changed there by alice" in forced.stdout
    assert grafana.dashboards["one"].model["title"] == "One, better"
    assert plan(run("sync"))["one"] == "unchanged"


def test_what_somebody_else_made_under_our_uid_is_kept(grafana, run):
    grafana.create(board("one", "A one of my own"))
    kept = run("sync")
    assert plan(kept)["one"] == "keep"
    assert "made there by alice" in kept.stdout
    assert grafana.dashboards["one"].model["title"] == "A one of my own"


def test_a_provisioned_dashboard_is_left_alone_even_by_force(grafana, run):
    grafana.create(board("one", "From a file"))
    grafana.dashboards["one"].provisioned = True
    assert plan(run("sync", "--force"))["one"] == "keep"


def test_it_removes_only_what_it_made_and_nobody_changed(grafana, run, boards):
    run("sync")
    write(boards, board("three", "Three"))
    write(boards, board("four", "Four"))
    run("sync")
    grafana.create(board("alices", "Alice's"), "sightline")
    grafana.create(board("elsewhere", "Elsewhere"))
    grafana.edit("four", title="Four, as Alice likes it")
    for name in ("three", "four"):
        (boards / f"{name}.json").unlink()
    found = plan(run("sync"))
    assert (found["three"], found["four"]) == ("remove", "keep")
    assert not {"alices", "elsewhere"} & found.keys()
    assert grafana.dashboards.keys() == {"one", "two", "four", "alices", "elsewhere"}
    assert plan(run("sync", "--force"))["four"] == "remove"
    assert grafana.dashboards.keys() == {"one", "two", "alices", "elsewhere"}


def test_where_people_moved_and_renamed_things_they_stay(grafana, run, boards):
    run("sync")
    grafana.folders["team"] = "Team"
    grafana.folders["sightline"] = "Our gunicorns"
    grafana.dashboards["one"].folder = "team"
    write(boards, board("one", "One, better"))
    write(boards, board("two", "Two, better"))
    found = plan(run("sync"))
    assert (found["sightline"], found["one"], found["two"]) == ("use", "update", "update")
    assert grafana.folders == {"sightline": "Our gunicorns", "team": "Team"}
    assert [grafana.dashboards[uid].folder for uid in ("one", "two")] == ["team", "sightline"]


def test_a_folder_beyond_the_first_page_is_found(grafana, run):
    grafana.folders |= {f"team-{number}": f"Team {number}" for number in range(2500)}
    grafana.folders["sightline-ours"] = "Zz"
    assert plan(run("sync", "--dry-run", "--folder", "Zz"))["sightline-ours"] == "use"


def test_another_folder_is_another_set_of_things_to_own(grafana, run, boards):
    run("sync")
    grafana.folders["dept"] = "Department"
    (boards / "two.json").unlink()
    found = plan(run("sync", "--folder", "Department"))
    assert found["dept"] == "use"
    assert "two" not in found, "it is in a folder that is not this one's"
    (made,) = [uid for uid in plan(run("sync", "--folder", "New")) if uid.startswith("sightline-") and uid not in found]
    assert grafana.folders[made] == "New"


# Data sources


def test_a_data_source_of_the_same_type_and_address_is_used_and_the_dashboards_ask_it(grafana, run):
    grafana.add_source(uid="P1", name="Prom", type="prometheus", url="http://prometheus:9090/")
    grafana.add_source(uid="L1", name="Logs", type="loki", url="http://loki:3100")
    grafana.add_source(uid="loki", name="Another", type="loki", url="http://elsewhere:3100")
    found = plan(run("sync"))
    assert (found["P1"], found["L1"]) == ("use", "use")
    assert {"sightline-loki", "sightline-prometheus"}.isdisjoint(grafana.sources)
    one, two = (grafana.dashboards[uid].model for uid in ("one", "two"))
    assert two["panels"][0]["datasource"] == {"type": "loki", "uid": "L1"}
    assert one["templating"]["list"][0]["current"] == {"text": "Prom", "value": "P1"}
    links = json.dumps(grafana.sources["sightline-tempo"]["jsonData"])
    assert '"datasourceUid": "L1"' in links
    assert '"datasourceUid": "P1"' in links


def test_a_data_source_that_people_changed_is_kept_unless_forced(grafana, run):
    run("sync")
    assert plan(run("sync", GRAFANA_LOKI_URL="http://loki.example:3100"))["sightline-loki"] == "update"
    grafana.sources["sightline-loki"]["url"] = "http://alices-loki:3100"
    assert plan(run("sync"))["sightline-loki"] == "keep"
    assert grafana.sources["sightline-loki"]["url"] == "http://alices-loki:3100"
    assert plan(run("sync", "--force"))["sightline-loki"] == "update"
    assert grafana.sources["sightline-loki"]["url"] == "http://loki:3100"


def test_a_login_that_people_added_to_a_data_source_is_kept(grafana, run):
    run("sync")
    grafana.sources["sightline-loki"]["basicAuth"] = True
    assert plan(run("sync", GRAFANA_LOKI_URL="http://loki.example:3100"))["sightline-loki"] == "keep"
    assert grafana.sources["sightline-loki"]["basicAuth"] is True


@pytest.mark.parametrize("url", ["http://loki.example:3100", "none"])
def test_credentials_that_people_let_a_data_source_send_along_are_kept(grafana, run, url):
    """The list of data sources does not have them: so the plan is another one, until it is looked at alone."""
    run("sync")
    grafana.sources["sightline-loki"]["withCredentials"] = True
    done = run("sync", GRAFANA_LOKI_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 kept" in done.stdout.partition("Done:")[2]
    assert grafana.sources["sightline-loki"]["withCredentials"] is True


def test_none_makes_no_data_source_and_takes_away_the_one_that_was_made(grafana, run):
    run("sync")
    grafana.add_source(uid="alices-loki", name="Alice", type="loki", url="http://x:3100")
    assert plan(run("sync", GRAFANA_LOKI_URL="none"))["sightline-loki"] == "remove"
    assert {"sightline-loki", "alices-loki"} & grafana.sources.keys() == {"alices-loki"}


def test_without_data_sources_no_right_to_them_is_needed(grafana, run):
    grafana.rights = {right for right in RIGHTS if not right.startswith("datasources")}
    no = dict.fromkeys([f"GRAFANA_{kind}_URL" for kind in ("PROMETHEUS", "LOKI", "TEMPO", "ALERTMANAGER")], "none")
    assert plan(run("sync", **no)) == {"sightline": "create", "one": "create", "two": "create"}


def test_the_data_sources_are_those_that_compose_provisions():
    path = ROOT / "monitoring/grafana/provisioning/datasources/sightline.yml"
    text = path.read_text().replace("$$", "$")
    provisioned = yaml.safe_load(text)["datasources"]
    assert {each["type"]: each["name"] for each in provisioned} == sources.NAMES
    assert {each["uid"]: each["jsonData"] for each in provisioned} == sources.JSON_DATA
    assert {each["type"]: each["url"] for each in provisioned} == sources.addresses(Settings())
    assert all(each["uid"] == each["type"] for each in provisioned)


# Somebody else at the same time


def test_who_saves_between_the_plan_and_the_sync_is_noticed(grafana, run, boards):
    """Grafana answers 412: the version that was judged is the newest no longer."""
    run("sync")
    write(boards, board("one", "One, better"))
    grafana.before("/api/dashboards/db", "POST", lambda: grafana.edit("one", title="Alice was quicker"))
    done = run("sync")
    assert (done.returncode, done.stderr) == (0, "")
    assert "changed there by alice, version 2" in done.stdout
    assert "1 kept" in done.stdout.partition("Done:")[2]
    assert grafana.dashboards["one"].model["title"] == "Alice was quicker"


def test_force_overwrites_also_who_saves_meanwhile(grafana, run, boards):
    run("sync")
    write(boards, board("one", "One, better"))
    grafana.before("/api/dashboards/db", "POST", lambda: grafana.edit("one", title="Alice was quicker"))
    assert run("sync", "--force").returncode == 0
    assert grafana.dashboards["one"].model["title"] == "One, better"


def test_who_creates_the_same_meanwhile_is_noticed(grafana, run):
    grafana.before("/api/dashboards/db", "POST", lambda: grafana.create(board("one", "Alice's")))
    done = run("sync")
    assert done.returncode == 0
    assert "made there by alice" in done.stdout
    assert grafana.dashboards["one"].model["title"] == "Alice's"


LOKI = "/api/datasources/uid/sightline-loki$"
ELSEWHERE = {"GRAFANA_LOKI_URL": "http://loki.example:3100"}


@pytest.mark.parametrize("moment", ["GET", "PUT"])
def test_who_changes_a_data_source_between_the_plan_and_the_sync_is_noticed(grafana, run, moment):
    """Before it is looked at again, or after: then Grafana answers 409."""
    run("sync")
    grafana.before(LOKI, moment, lambda: grafana.edit_source("sightline-loki", url="http://alices-loki:3100"))
    done = run("sync", **ELSEWHERE)
    assert (done.returncode, done.stderr) == (0, "")
    planned, kept = [line for line in done.stdout.splitlines() if " sightline-loki " in line]
    assert planned.startswith("  update ")
    assert kept.startswith("  keep ")
    assert kept.endswith("(changed there; --force overwrites it)")
    assert "1 kept" in done.stdout.partition("Done:")[2]
    assert grafana.sources["sightline-loki"]["url"] == "http://alices-loki:3100"


def test_force_overwrites_also_who_changes_a_data_source_meanwhile(grafana, run):
    run("sync")
    grafana.before(LOKI, "PUT", lambda: grafana.edit_source("sightline-loki", url="http://alices-loki:3100"))
    assert run("sync", "--force", **ELSEWHERE).returncode == 0
    assert grafana.sources["sightline-loki"]["url"] == "http://loki.example:3100"


@pytest.mark.parametrize("looked_at", [False, True])
def test_who_makes_the_same_data_source_meanwhile_is_noticed(grafana, run, looked_at):
    def alice():
        grafana.add_source(uid="sightline-loki", name="Alice's", type="loki", url="http://alices-loki:3100")

    def alice_afterwards():
        grafana.before("/api/datasources$", "POST", alice)

    grafana.before(LOKI, "GET", alice_afterwards if looked_at else alice)
    done = run("sync")
    assert (done.returncode, done.stderr) == (0, "")
    assert "(changed there; --force overwrites it)" in done.stdout
    assert grafana.sources["sightline-loki"]["url"] == "http://alices-loki:3100"


def test_a_data_source_that_is_gone_by_the_time_of_the_update_is_made(grafana, run):
    run("sync")
    grafana.before(LOKI, "GET", lambda: grafana.sources.pop("sightline-loki"))
    done = run("sync", **ELSEWHERE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 created" in done.stdout.partition("Done:")[2]
    assert grafana.sources["sightline-loki"]["url"] == "http://loki.example:3100"


def test_who_changes_a_data_source_before_it_is_removed_keeps_it(grafana, run):
    run("sync")
    grafana.before(LOKI, "GET", lambda: grafana.edit_source("sightline-loki", url="http://alices-loki:3100"))
    done = run("sync", GRAFANA_LOKI_URL="none")
    assert (done.returncode, done.stderr) == (0, "")
    assert "(changed there; --force removes it)" in done.stdout
    assert "1 kept" in done.stdout.partition("Done:")[2]
    assert grafana.sources["sightline-loki"]["url"] == "http://alices-loki:3100"
    assert plan(run("sync", "--force", GRAFANA_LOKI_URL="none"))["sightline-loki"] == "remove"
    assert "sightline-loki" not in grafana.sources


def test_a_data_source_that_somebody_removes_first_is_no_failure(grafana, run):
    run("sync")
    grafana.before(LOKI, "GET", lambda: grafana.sources.pop("sightline-loki"))
    assert plan(run("sync", GRAFANA_LOKI_URL="none"))["sightline-loki"] == "remove"


def test_a_name_that_another_data_source_has_is_one_line(grafana, run):
    """The status is that of a conflict, and no later look makes it better."""
    grafana.add_source(uid="alices", name="Sightline Loki", type="loki", url="http://alices-loki:3100")
    done = run("sync")
    assert done.returncode == 1
    said = "Grafana refuses to make the data source Sightline Loki, with 409: data source with the same name"
    assert done.stderr == f"{said} already exists\n"
    assert grafana.sources["alices"]["url"] == "http://alices-loki:3100"


def test_a_folder_that_somebody_makes_meanwhile_is_used_as_it_is(grafana, run):
    grafana.before("/api/folders", "POST", lambda: grafana.folders.update(sightline="Alice's"))
    done = run("sync")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^  use +folder +sightline +Alice's$", done.stdout, re.MULTILINE)
    assert grafana.folders == {"sightline": "Alice's"}
    assert grafana.dashboards["one"].folder == "sightline"


def test_a_folder_that_is_refused_is_no_folder_that_somebody_made(grafana, run):
    grafana.answer(409, {"message": "A folder with that name already exists"}, "/api/folders$", "POST")
    done = run("sync")
    assert done.returncode == 1
    assert "Grafana refuses to make the folder Sightline, with 409: A folder with that name" in done.stderr
    assert grafana.folders == {}


def test_a_dashboard_that_grafana_refuses_fails_alone(grafana, run):
    said = {"message": "Dashboard is bad", "status": "bad"}
    grafana.answer(400, said, "/api/dashboards/db", times=1)
    done = run("sync")
    assert done.returncode == 1
    assert done.stderr == "Grafana refuses to save the dashboard one, with 400: Dashboard is bad\n"
    assert done.stdout.endswith("Done: 6 created, 1 failed.\n")
    assert grafana.dashboards.keys() == {"two"}


def test_an_outage_in_the_middle_is_one_line_and_the_next_sync_goes_on(grafana, run):
    grafana.answer(503, "<html><h1>Service Unavailable</h1></html>", "/api/dashboards/db", times=1)
    done = run("sync")
    assert done.returncode == 2
    assert "fails with 503 to save the dashboard one: Service Unavailable" in done.stderr
    assert "Until then: 5 created." in done.stdout
    assert plan(run("sync"))["one"] == "create"
    assert grafana.dashboards.keys() == {"one", "two"}


# What is in the code


def test_the_committed_dashboards_are_taken_as_they_are(grafana, run, copy):
    done = run("sync", GRAFANA_DASHBOARDS=copy)
    assert (done.returncode, done.stderr) == (0, "")
    committed = [json.loads(path.read_text()) for path in copy.glob("*.json")]
    assert grafana.dashboards.keys() == {model["uid"] for model in committed}
    assert set(plan(run("sync", GRAFANA_DASHBOARDS=copy)).values()) == {"use", "unchanged"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "has no uid"),
        ('{"uid": "' + "x" * 41 + '", "title": "X"}', "at most 40"),
        ('{"uid": "a b", "title": "X"}', "has no uid"),
        ('{"uid": "x"}', "has no title"),
        ('{"uid": "one", "title": "X"}', "has the uid of"),
    ],
)
def test_a_file_that_is_no_dashboard_is_one_line(grafana, run, boards, text, said):
    (boards / "zzz.json").write_text(text)
    done = run("sync")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert grafana.saves() == []


def test_an_empty_directory_is_a_mistake_and_no_order_to_remove_all(grafana, run, tmp_path):
    run("sync")
    (tmp_path / "empty").mkdir()
    done = run("sync", GRAFANA_DASHBOARDS=tmp_path / "empty")
    assert done.returncode == 2
    assert "No dashboard in" in done.stderr
    assert grafana.dashboards.keys() == {"one", "two"}


def test_hostile_titles_cannot_reach_the_terminal(grafana, run):
    grafana.create(board("one", "One"), by="\x1b[2Jmallory\nforged line")
    kept = run("sync")
    assert "\x1b" not in kept.stdout
    assert "\nforged line" not in kept.stdout
    assert "mallory" in kept.stdout
