"""`make help`, the pages' links, and what pipelines run."""

import re
import subprocess

import pytest
import yaml

from scripts.links import broken, pages
from scripts.options import ROOT, Options

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())


def make(*arguments: str) -> str:
    """Run make."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_help_is_the_default_and_lists_every_target():
    printed = make("help")
    assert make() == printed
    listed = re.findall(r"^  make ([a-z-]+) +\S", printed, re.MULTILINE)
    assert set(listed) == TARGETS
    assert len(listed) == len(TARGETS)
    assert set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)) == TARGETS


def test_help_lists_every_option_with_its_default():
    printed = dict(re.findall(r"^  ([A-Z_]+)=(\S*) +\S", make("help"), re.MULTILINE))
    defaults = {name.upper(): str(value) for name, value in vars(Options()).items()}
    assert defaults.items() <= printed.items()
    others = printed.keys() - defaults.keys() - {"FOLLOW", "PYTHON", "TEST_JOBS", "SIGHT_WRITE", "COMPOSE_FILE"}
    compose = "".join(path.read_text() for path in ROOT.glob("*compose*.yml"))
    for name in others:
        assert set(re.findall(rf"\$\{{{name}:-([^}}]*)\}}", compose)) == {printed[name]}, name


def test_pipelines_run_what_a_contributor_runs():
    script = (ROOT / ".ci/run").read_text()
    assert script.splitlines()[-2:] == ["make check", "make test"]
    assert "exec make test-compose" in script
    github = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    gitlab = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    for name, command in (("check-and-test", ".ci/run"), ("compose", ".ci/run compose")):
        assert github[name]["steps"][-1] == {"run": command}
        assert gitlab[name]["script"] == [command]
    job, gitlab = github["check-and-test"], gitlab["check-and-test"]
    assert job["strategy"]["matrix"]["python"] == gitlab["parallel"]["matrix"][0]["PYTHON_VERSION"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("[here](other.md) [there](other.md#a-heading-2) [up](#top) [web](https://example.org/x)\n# Top\n", 0),
        ("[gone](gone.md)", 1),
        ("[no heading](other.md#none)", 1),
        ("![picture](gone.png)", 1),
        ("`[code](gone.md)`\n\n```\n[code](gone.md)\n```\n", 0),
    ],
)
def test_a_link_has_to_lead_somewhere(tmp_path, text, problems):
    page = tmp_path / "page.md"
    page.write_text(text)
    (tmp_path / "other.md").write_text("# A heading, 2\n")
    assert len(list(broken(page, tmp_path))) == problems


def test_all_links_of_all_pages_do():
    assert [problem for page in pages() for problem in broken(page)] == []
