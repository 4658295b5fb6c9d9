"""Images under the names that the compose file has, built from Debian packages: no registry is needed.

All of them are one file system with every program in it, and differ in their command only. Building it takes about two
minutes, so it is kept in a cache directory, under a name that says what went into it.
"""

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

from tests.compose.daemon import program, run

HERE = Path(__file__).with_name("standins")
SUITE = "trixie"
WORLD = "sightline-standin"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# By repository: what the real image starts, and what it takes where the compose file names no command.
COMMANDS = {
    "python": ([], ["python3"]),
    "nginx": (["/standin/nginx.sh"], ["nginx", "-g", "daemon off;"]),
    "postgres": (["/standin/postgres.sh"], ["postgres"]),
    "redis": ([], ["redis-server"]),
    "prom/prometheus": (["prometheus"], []),
    "prom/alertmanager": (["prometheus-alertmanager"], []),
    "prom/blackbox-exporter": (["prometheus-blackbox-exporter"], []),
    "nginx/nginx-prometheus-exporter": (["prometheus-nginx-exporter"], []),
    "prometheuscommunity/postgres-exporter": (["prometheus-postgres-exporter"], []),
    "oliver006/redis_exporter": (["prometheus-redis-exporter"], []),
}


def build(images: set[str], environ: dict[str, str]) -> list[str]:
    """Make a stand-in for each image that the daemon lacks, and return their names."""
    lacking = sorted(name for name in images if not _is_there(name, environ))
    if lacking:
        world = _world(environ)
        for name in lacking:
            _tag(name, world, environ)
    return lacking


def remove(names: list[str], environ: dict[str, str]) -> None:
    """Take the stand-ins away, so that their names are the real images' again."""
    if names:
        run("docker", "image", "rm", "--force", *names, env=environ)


def _is_there(name: str, environ: dict[str, str]) -> bool:
    command = ["docker", "image", "inspect", name]
    return subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0


def _tag(name: str, world: str, environ: dict[str, str]) -> None:
    entrypoint, command = COMMANDS[name.rpartition(":")[0]]
    lines = [f"FROM {world}", f"ENTRYPOINT {_exec(entrypoint)}", f"CMD {_exec(command)}"]
    run("docker", "build", "--quiet", "--tag", name, "-", input="\n".join(lines), env=environ)


def _exec(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _world(environ: dict[str, str]) -> str:
    """Return the image with every program in it: as the daemon has it, from the cache, or built."""
    name = f"{WORLD}:{_key()}"
    if _is_there(name, environ):
        return name
    kept = _cache() / f"{name.replace(':', '-')}.tar"
    if kept.exists():
        run("docker", "load", "--quiet", "--input", kept, env=environ)
        return name
    with tempfile.TemporaryDirectory(prefix="sightline-standin-") as made:
        _build_world(Path(made), name, environ)
    _keep(name, kept, environ)
    return name


def _build_world(directory: Path, name: str, environ: dict[str, str]) -> None:
    root, context, base = directory / "root", directory / "context", f"{WORLD}-base:{_key()}"
    run(program("debootstrap"), "--variant=minbase", SUITE, root, _mirror())
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packed:
        run("docker", "import", "-", base, stdin=packed.stdout, env=environ)
    shutil.copytree(HERE, context)
    _trust(context)
    run(
        *("docker", "build", "--quiet", "--network", "host", "--build-arg", f"BASE={base}", "--tag", name, context),
        env=environ,
    )


def _trust(context: Path) -> None:
    """Have pip in the image find what it finds here: the certificates that this host trusts, and its index."""
    shutil.copy(ssl.get_default_verify_paths().cafile or CERTIFICATES, context / "certificates.crt")
    found = {
        name: os.environ[f"PIP_{name}"] for name in ("INDEX_URL", "EXTRA_INDEX_URL") if f"PIP_{name}" in os.environ
    }
    lines = [f"{name.lower().replace('_', '-')} = {value}" for name, value in found.items()]
    (context / "pip.conf").write_text("\n".join(["[global]", f"cert = {CERTIFICATES}", *lines, ""]))


def _keep(name: str, kept: Path, environ: dict[str, str]) -> None:
    """Save the image in the cache, in the place of earlier ones."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_suffix(f".{os.getpid()}")
    run("docker", "save", "--output", draft, name, env=environ)
    for old in kept.parent.glob(f"{WORLD}-*.tar"):
        old.unlink()
    draft.replace(kept)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sightline-tests"


def _key() -> str:
    """Name what goes into the image: its recipe, and how it is made here."""
    parts = [path.read_bytes() for path in sorted(HERE.iterdir())]
    return hashlib.sha256(b"\0".join([*parts, Path(__file__).read_bytes()])).hexdigest()[:16]


def _mirror() -> str:
    """Return the Debian mirror that this host uses itself.

    Raises:
        RuntimeError: its package sources name none.
    """
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in places if path.is_file())
    found = re.findall(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(https?://\S+/debian)/?\s", text, re.MULTILINE)
    if not found:
        raise RuntimeError("no Debian mirror is named in /etc/apt/sources.list or /etc/apt/sources.list.d")
    return str(found[0])
