"""Whether the links between the Markdown pages lead somewhere: files that exist, and headings that are there."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.options import ROOT

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages(root: Path = ROOT) -> Iterator[Path]:
    """Yield the Markdown pages, but for those of tools and environments."""
    for path in sorted(root.rglob("*.md")):
        if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(root).parts):
            yield path


def broken(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Yield each link of a page that leads nowhere."""
    for target in LINK.findall(_prose(page)):
        if ELSEWHERE.match(target):
            continue
        name, _, fragment = target.partition("#")
        linked = page if not name else (root / name[1:] if name.startswith("/") else page.parent / name)
        if not linked.exists():
            yield f"{page.relative_to(root)}: {target} does not exist"
        elif fragment and linked.suffix == ".md" and fragment not in _anchors(linked):
            yield f"{page.relative_to(root)}: {target} names no heading"


def _prose(page: Path) -> str:
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text()))


def _anchors(page: Path) -> set[str]:
    """Name the headings as forges do: lower case, punctuation dropped, blanks to dashes, repeats numbered."""
    anchors: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text())):
        anchor = base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        while anchor in anchors:
            count += 1
            anchor = f"{base}-{count}"
        anchors.add(anchor)
    return anchors


def main() -> int:
    """Print every broken link, and return whether there was one."""
    found = [problem for page in pages() for problem in broken(page)]
    print("\n".join(found) if found else "links: all lead somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
