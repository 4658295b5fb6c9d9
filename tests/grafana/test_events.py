"""What becomes an annotation, and what the spool keeps of it."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import catalogue
from observability.grafana import events
from observability.grafana.errors import GrafanaError
from observability.grafana.events import DEATH, DEPLOY, RELOAD, TUNER, Annotation, Record
from observability.grafana.prometheus import Series
from observability.grafana.spool import Spool, State

START, END = 1000.0, 1060.0


def series(*samples, **labels):
    return Series({"job": "app", "instance": "a:1"} | labels, [(START + at, float(value)) for at, value in samples])


def found(versions=None, **by_kind):
    kinds = {"up": [], RELOAD: [], DEATH: [], TUNER: [], DEPLOY: []} | {
        events_kind(key): each for key, each in by_kind.items()
    }
    return Record(kinds).annotations(START, END, {} if versions is None else versions)


def events_kind(name):
    return {"up": "up", "reload": RELOAD, "death": DEATH, "tuner": TUNER, "deploy": DEPLOY}[name]


def test_nothing_happened():
    steady = [series((-30, 4), (10, 4), (50, 4))]
    assert (
        found(reload=steady, death=steady, tuner=steady, deploy=[series((-30, 1), (30, 1), service_version="1")]) == []
    )


def test_a_reload_is_a_region_from_the_sample_before_to_the_one_that_shows_it():
    (made,) = found(reload=[series((-5, 0), (10, 0), (15, 1), (20, 1))])
    assert (made.start, made.end) == (1_010_000, 1_015_000)
    assert made.tags == ["sightline", "reload", "job:app"]
    assert made.text == "1 reload: a:1 1"


def test_many_deaths_are_one_annotation_with_numbers():
    some = [
        series((-1, 0), (10, 2), (30, 5), cause="timeout"),
        series((-1, 7), (50, 8), cause="killed", instance="b:1"),
    ]
    (made,) = found(death=some)
    assert made.text == "6 workers died: timeout 5, killed 1; on a:1 5, b:1 1"
    assert (made.start, made.end) == (999_000, 1_050_000)
    assert made.tags == ["sightline", "worker-death", "job:app"]


def test_expected_ends_are_not_asked_for():
    asked = events._SELECTORS[DEATH]
    assert all(cause in asked for cause in catalogue.EXPECTED_CAUSES)
    assert 'cause!~"' in asked


def test_what_lies_outside_the_window_belongs_to_another():
    assert found(reload=[series((-10, 0), (0, 1), (10, 1), (60.1, 2))]) == []
    assert len(found(reload=[series((0, 0), (60, 1))])) == 1


def test_a_counter_that_begins_anew_counts_from_zero_and_one_that_is_new_does_not_count():
    (made,) = found(death=[series((-5, 9), (10, 2), cause="killed")])
    assert made.text.startswith("2 workers died")
    assert found(death=[series((10, 9), (20, 9), cause="killed")]) == []


def test_a_counter_that_a_known_target_did_not_have_before_counts_from_zero():
    """A counter with labels is often there only when it has counted something."""
    (made,) = found(reload=[series((10, 2), (20, 2))], up=[series((-5, 1), (0, 1), (5, 1), (10, 1), (20, 1))])
    assert (made.text, made.start, made.end) == ("2 reloads: a:1 2", 1_005_000, 1_010_000)
    for up in (
        [series((10, 1), (20, 1))],  # scraped for the first time: the reloads may be old
        [series((-5, 0), (5, 0), (10, 1))],  # down until then
        [series((-5, 1), instance="b:1")],
    ):
        assert found(reload=[series((10, 2), (20, 2))], up=up) == []


def test_each_job_has_its_own():
    both = [series((-1, 0), (10, 1), job=job) for job in ("a", "b")]
    assert [made.tags[-1] for made in found(reload=both)] == ["job:a", "job:b"]


def test_a_flood_of_jobs_is_bounded_and_nothing_is_uncounted():
    flood = [series((-1, 0), (10, 1), job=f"job-{number:04}") for number in range(2000)]
    made = found(reload=flood)
    assert len(made) == events.MOST_JOBS
    assert sum(int(each.text.split()[0]) for each in made) == 2000
    assert made[-1].tags[-1] == f"job:{2000 - events.MOST_JOBS + 1} jobs"
    assert all(len(each.text) < 1000 for each in made)


# Deploys


def test_a_flood_of_deploys_is_bounded_and_nothing_is_uncounted():
    jobs = [f"job-{number:04}" for number in range(200)]
    flood = [series((20, 1), service_version="2", job=job) for job in jobs]
    made = found({(job, ""): {"1": START - 10} for job in jobs}, deploy=flood)
    assert len(made) == events.MOST_JOBS
    assert made[0].text == "Deploy of 2, after 1"
    rest = 200 - events.MOST_JOBS + 1
    assert made[-1].tags[-1] == f"job:{rest} jobs"
    assert made[-1].text.startswith("Deploys of job-0049 1, ")
    assert sum(map(int, re.findall(r" (\d+)(?:,|$)", made[-1].text))) == rest


def test_a_new_version_is_a_deploy():
    old = series((-20, 1), (10, 1), service_version="1.0")
    new = series((20, 1), (40, 1), service_version="2.0", instance="b:1")
    (made,) = found(deploy=[old, new])
    assert made.text == "Deploy of 2.0, after 1.0"
    assert (made.kind, made.start, made.end) == ("deploy", 1_010_000, 1_020_000)
    assert made.tags == ["sightline", "deploy", "job:app"]


def test_a_deploy_begins_with_the_last_sample_before_it_and_after_a_gap_with_itself():
    old = series((-30, 1), (-10, 1), service_version="1")
    (made,) = found(deploy=[old, series((20, 1), (40, 1), service_version="2")])
    assert (made.start, made.end) == (990_000, 1_020_000)
    versions = {("app", ""): {"1": START - 5000}}
    (made,) = found(versions, deploy=[series((20, 1), service_version="2")])
    assert (made.start, made.end) == (1_020_000, 1_020_000)


def test_a_service_that_is_seen_for_the_first_time_has_deployed_nothing():
    assert found(deploy=[series((20, 1), (40, 1), service_version="2.0")]) == []


def test_a_rolling_deploy_is_one_deploy():
    versions = {}
    first = [series((-20, 1), (50, 1), service_version="1"), series((30, 1), service_version="2", instance="b")]
    assert len(found(versions, deploy=first)) == 1
    again = [series((-20, 1), service_version="1"), series((5, 1), (40, 1), service_version="2", instance="c")]
    assert found(versions, deploy=again) == []


def test_after_a_gap_what_ran_before_it_counts():
    versions = {("app", ""): {"1": START - 5000}}
    assert found(dict(versions), deploy=[series((20, 1), service_version="1")]) == [], "the same again: no deploy"
    (made,) = found(dict(versions), deploy=[series((20, 1), service_version="2")])
    assert made.text == "Deploy of 2, after 1"


def test_a_rollback_is_a_deploy_of_the_old():
    versions = {("app", ""): {"2": START - 10}}
    (made,) = found(versions, deploy=[series((20, 1), service_version="1")])
    assert made.text == "Deploy of 1, after 2"


def test_what_is_remembered_of_versions_is_bounded():
    versions = {}
    many = [series((10, 1), service_version=str(n), job=f"job-{n % 700}") for n in range(70_000)]
    found(versions, deploy=many)
    assert len(versions) == 500
    assert max(map(len, versions.values())) <= 50


def in_environment(name, *samples, version, **labels):
    return series(*samples, deployment_environment_name=name, service_version=version, **labels)


def test_a_version_that_goes_from_one_environment_to_another_is_a_deploy_there():
    canary = in_environment("canary", (-20, 1), (15, 1), (40, 1), version="1.2", instance="c:1")
    old = in_environment("production", (-20, 1), (10, 1), version="1.1")
    new = in_environment("production", (20, 1), (40, 1), version="1.2", instance="b:1")
    (made,) = found(deploy=[canary, old, new])
    assert made.text == "Deploy of 1.2 to production, after 1.1"
    assert made.tags == ["sightline", "deploy", "job:app", "environment:production"]
    assert (made.start, made.end) == (1_010_000, 1_020_000), "the canary's later sample is none of production's"


def test_a_new_server_of_a_version_that_the_environment_has_is_no_deploy():
    versions = {("app", "production"): {"1.1": START - 10}, ("app", "canary"): {"1.2": START - 10}}
    replica = in_environment("production", (20, 1), version="1.1", instance="new:1")
    assert found(versions, deploy=[replica]) == []


def test_an_environment_that_is_seen_for_the_first_time_has_deployed_nothing():
    versions = {("app", "canary"): {"1.1": START - 10}}
    assert found(versions, deploy=[in_environment("production", (20, 1), version="1.2")]) == []
    assert versions["app", "production"] == {"1.2": START + 20}


def test_deploys_to_several_environments_are_told_apart_and_found_again():
    versions = {("app", name): {"1": START - 10} for name in ("", "canary", "production", "x" * 200)}
    new = [in_environment(name, (20, 1), version="2") for _, name in versions]
    made = found(versions, deploy=new)
    assert len({each.key for each in made}) == len(made) == 4
    assert [each.text.split(",")[0] for each in made[:3]] == [
        "Deploy of 2",
        "Deploy of 2 to canary",
        "Deploy of 2 to production",
    ]
    assert all(len(each) <= 100 for one in made for each in one.tags)
    assert all(len(each.text) < 1000 for each in made)


def test_environments_count_as_jobs_where_a_flood_of_deploys_is_bounded():
    names = [f"review-{number:04}" for number in range(200)]
    flood = [in_environment(name, (20, 1), version="2") for name in names]
    made = found({("app", name): {"1": START - 10} for name in names}, deploy=flood)
    rest = 200 - events.MOST_JOBS + 1
    assert len({each.key for each in made}) == len(made) == events.MOST_JOBS
    assert made[-1].tags == ["sightline", "deploy", "job:app", f"environment:{rest} environments"]
    assert made[-1].text == f"Deploys of app {rest}"
    versions = {}
    found(versions, deploy=[in_environment(f"review-{n}", (10, 1), version="1") for n in range(2000)])
    assert len(versions) == 500


def test_jobs_are_counted_and_not_their_environments():
    places = [(f"job-{number:04}", name) for number in range(100) for name in ("canary", "production")]
    flood = [in_environment(name, (20, 1), version="2", job=job) for job, name in places]
    made = found({place: {"1": START - 10} for place in places}, deploy=flood)
    assert made[-1].tags == ["sightline", "deploy", "job:76 jobs"]  # the 25th has one of its two among the first 49


# The tuner


def test_a_decision_says_what_why_where_and_what_became_of_it():
    labels = {"server": "a:9101", "action": "add_worker", "reason": "queue", "outcome": "applied", "job": "tuner"}
    (made,) = found(tuner=[series((-1, 0), (10, 1), **labels)])
    assert made.text == "1 decision of the tuner: add_worker for queue at a:9101: applied 1"
    assert made.tags == ["sightline", "tuner", "job:tuner"]


def test_advice_that_is_repeated_is_said_once():
    labels = {"server": "a", "action": "add_worker", "reason": "queue"}
    assert found(tuner=[series((-50, 1), (-20, 2), (10, 3), outcome="recommended", **labels)]) == []
    assert len(found(tuner=[series((-50, 1), (-20, 2), (10, 3), outcome="applied", **labels)])) == 1


# Hostile texts


def test_a_text_is_html_to_grafana_and_labels_are_not():
    (made,) = found(reload=[series((-1, 0), (10, 1), instance="<script>alert(1)</script>\x1b[2J")])
    assert made.text == "1 reload: &lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J 1"
    versions = {("app", "<b>"): {"1": START - 10}}
    (made,) = found(versions, deploy=[in_environment("<b>", (20, 1), version="2")])
    assert made.text == "Deploy of 2 to &lt;b&gt;, after 1"


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_tag_is_what_grafana_keeps_as_it_is(one, other):
    """Else an annotation would not be found again, and be made again and again."""
    from tests.grafana.api_annotations import kept_tags

    for value in (one, other):
        made = events.tag("job", value)
        assert len(made) <= 100
        if value.strip():
            assert kept_tags([made]) == [made]
    if one != other:
        assert events.tag("job", one) != events.tag("job", other)


@given(st.dictionaries(st.sampled_from(["job", "instance", "cause", "server"]), st.text(max_size=200)))
def test_any_labels_make_a_short_text_on_one_line(labels):
    (made,) = found(death=[series((-1, 0), (10, 1), **labels)])
    assert len(made.text) < 1000
    assert made.text.isprintable()
    assert not {"<", ">"} & set(made.text)


def test_counters_of_nonsense_make_nothing():
    nan, infinite = float("nan"), float("inf")
    for values in ((0, nan), (nan, 1), (0, infinite), (infinite, infinite), (0, 0.2)):
        assert found(reload=[series((-1, values[0]), (10, values[1]))]) == []


# The spool


def annotation(number=1):
    return Annotation(RELOAD, number, number + 1, number, number + 1, ["sightline"], "text")


def test_what_is_saved_is_read_again(tmp_path):
    spool = Spool(tmp_path / "spool")
    state = State(5.0, [("app", "production", {"1": 2.0})], [annotation()], 3)
    spool.save(state)
    assert spool.load() == state
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_versions_by_job_alone_are_passed_over_and_nothing_else_is(tmp_path):
    """As earlier annotators have written them."""
    waits = '{"kind":"reload","window":1,"window_end":2,"start":1,"end":2,"tags":["sightline"],"text":"text"}'
    earlier = f'{{"looked_until":5.0,"versions":{{"app":{{"1":2.0}}}},"pending":[{waits}],"dropped":3}}'
    spool = Spool(tmp_path)
    (tmp_path / "annotator.json").write_text(earlier)
    assert spool.load() == State(5.0, [], [annotation()], 3)


def test_a_spool_has_one_annotator(tmp_path):
    Spool(tmp_path)
    with pytest.raises(GrafanaError, match="Another annotator works in"):
        Spool(tmp_path)


def test_a_half_written_file_is_never_read(tmp_path):
    spool = Spool(tmp_path)
    spool.save(State(looked_until=1.0))
    (tmp_path / "annotator.json.draft").write_text('{"looked_until": 2')
    assert spool.load().looked_until == 1.0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"looked_until": "x"}', '{"pending": [{}]}', "\x00\xff"])
def test_a_file_of_somebody_else_is_refused(tmp_path, text):
    spool = Spool(tmp_path)
    (tmp_path / "annotator.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's errors are all kinds of it
        spool.load()


def test_a_directory_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GrafanaError, match=r"GRAFANA_SPOOL: .* cannot be written to: Not a directory"):
        Spool(tmp_path / "file" / "spool")


def test_the_file_is_json_that_a_person_can_read(tmp_path):
    Spool(tmp_path).save(State(pending=[annotation()]))
    (pending,) = json.loads((tmp_path / "annotator.json").read_text())["pending"]
    assert pending["text"] == "text"


def test_scrapes_are_asked_for_of_targets_with_a_counter_that_begins_and_of_no_others():
    asked = {}

    class Prometheus:
        def series(self, selector, start, end):
            asked[selector] = (start, end)
            if selector == events._SELECTORS[RELOAD]:
                return [series((-5, 3), (5, 3)), series((5, 1), instance='b"\\:1')]
            return []

    Record.of(Prometheus(), START, END)
    assert 'up{job=~"app",instance=~"b\\"\\\\\\\\:1"}' in asked
    assert len([selector for selector in asked if selector.startswith("up")]) == 1


def test_scrapes_are_asked_for_of_many_targets_in_groups_and_of_too_many_not():
    groups = []

    class Prometheus:
        def series(self, selector, start, end):
            if selector == events._SELECTORS[RELOAD]:
                return [series((5, 1), instance=f"a:{number:04}") for number in range(1234)]
            if selector.startswith("up"):
                names = re.findall(r"a:\d+", selector)
                groups.append(len(names))
                return [series((-5, 1), instance=name) for name in names]
            return []

    record = Record.of(Prometheus(), START, END)
    assert groups == [100] * 10
    assert record.left_out == 234
    (made,) = record.annotations(START, END, {})
    assert made.text.startswith("1000 reloads")
