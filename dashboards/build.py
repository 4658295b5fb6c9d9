"""Write every dashboard's JSON, or check that what is committed is what would be written.

python -m dashboards.build [--check]
"""

import json
import sys
from pathlib import Path

from dashboards import service
from dashboards.panels import Json

HERE = Path(__file__).parent


def build() -> dict[str, Json]:
    """Return every dashboard by its file's name."""
    return {"service.json": service.build()}


def write(directory: Path = HERE) -> None:
    """Write the dashboards."""
    for name, dashboard in build().items():
        (directory / name).write_text(_rendered(dashboard))


def outdated(directory: Path = HERE) -> list[str]:
    """Name the files that are not what would be written, and those that nothing writes."""
    built = {name: _rendered(dashboard) for name, dashboard in build().items()}
    found = {path.name: path.read_text() for path in directory.glob("*.json")}
    return sorted(name for name in built.keys() | found.keys() if built.get(name) != found.get(name))


def _rendered(dashboard: Json) -> str:
    return json.dumps(dashboard, indent=2) + "\n"


def main() -> int:
    """Write the files, or with --check say which are not current."""
    if "--check" not in sys.argv[1:]:
        write()
        return 0
    stale = outdated()
    print(f"Not current: {', '.join(stale)}; `make dashboards` writes them" if stale else "dashboards: current")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
