"""The real compose file on a real Docker daemon.

Asked for by name only (`make test-compose`): it takes some minutes and root.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts import secret_files
from tests.compose import standins
from tests.compose.daemon import Daemon, answers, lacking, program, run
from tests.compose.stack import Stack

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out unless they were asked for by their directory, or a file in it."""
    if HERE not in (collection_path, *collection_path.parents):
        return None
    asked = [Path(each.partition("::")[0]).resolve() for each in config.args]
    return None if any(HERE in (path, *path.parents) for path in asked) else True


@pytest.fixture(scope="session")
def host() -> Iterator[str]:
    """Give the address of a daemon: "" for one that runs already, else one that is started for the tests."""
    if answers():
        yield ""
        return
    reason = lacking()
    if reason:
        pytest.skip(f"{reason}, and no Docker daemon answers")
    for name in ("dockerd", "docker", "debootstrap", "iptables"):
        assert program(name), f"{name} is not installed: python -m scripts.packages containers"
    with Daemon() as daemon:
        yield daemon.host
    assert daemon.left() == [], "the host is not as it was found"


@pytest.fixture(scope="session")
def images(host: str) -> Iterator[None]:
    """Have the daemon know every image by its name, as the real one or as its stand-in."""
    made = Stack(host, "compose.local.yml")
    secret_files.ensure()
    names = standins.build(made.images(), made.environ)
    yield
    standins.remove(names, made.environ)


@pytest.fixture(scope="session")
def stack(host: str, images: None) -> Iterator[Stack]:
    """Give the running stack as `make up` has it, but for what no machine without a registry can have."""
    made = Stack(host, "compose.local.yml")
    with ExitStack() as after:
        after.callback(made.compose, "down", "--volumes", "--remove-orphans", check=False)
        made.compose("build", "app")
        made.up()
        yield made
        made.down()
        assert made.left() == [], "`down` has left something"


@pytest.fixture(scope="session")
def certificate() -> Iterator[Path]:
    """Give a certificate for `localhost` that nobody trusts, with its key beside it, where compose.tls.yml has them."""
    places = secret_files.DIRECTORY / "test.crt", secret_files.DIRECTORY / "test.key"
    names = (
        "-keyout",
        places[1],
        "-out",
        places[0],
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    )
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    run("openssl", "req", "-x509", *curve, "-nodes", "-days", "30", *names)
    for path in places:
        path.chmod(secret_files.FILE_MODE)
    yield places[0]
    for path in places:
        path.unlink()
