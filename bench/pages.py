"""What people read: the tables of docs/performance.md and of the README, and the pictures, all from the results."""

from pathlib import Path
from types import ModuleType
from typing import Any

from bench import account, footprint, overhead, plots, report, scale, scrape
from bench import variants as of
from bench.peers import ROOT

PAGE = ROOT / "docs/performance.md"
README = ROOT / "README.md"
IMAGES = ROOT / "docs/images"
_ALT = {
    "bench-overhead": "Bars: the CPU of one request with each library, as a multiple of the bare server's",
    **{f"bench-scale-{axis.replace('_', '-')}": f"Curves: CPU by {what}" for axis, what in scale.AXES.items()},
}
TABLES: dict[str, ModuleType] = {
    "overhead": overhead,
    "scrape": scrape,
    "footprint": footprint,
    "account": account,
    "scale": scale,
}


def write() -> None:
    """Write all tables and pictures anew."""
    found = {name: result for name in TABLES if (result := report.read(name)) is not None}
    drawn = pictures(found)
    for path, picture in drawn.items():
        path.write_text(picture)
        report.say(f"written: {path.relative_to(ROOT)}")
    page = PAGE.read_text()
    for name, result in found.items():
        images = _links([path for path in drawn if path.name.startswith(f"bench-{name}")], PAGE)
        page = report.inserted(page, name, f"{_measured_on(result)}\n\n{TABLES[name].tables(result)}\n{images}")
    table = report.summary(found.values())
    PAGE.write_text(report.inserted(page, "targets", table))
    readme = README.read_text()
    if "<!-- bench:targets -->" in readme:
        images = _links([path for path in drawn if path.name == "bench-overhead.svg"], README)
        README.write_text(report.inserted(readme, "targets", f"{table}\n{images}"))


def _links(images: list[Path], page: Path) -> str:
    """Link pictures from a page; each says in words what its title does."""
    return "\n".join(f"![{_ALT[path.stem]}]({path.relative_to(page.parent)})" for path in images)


def _measured_on(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    return (
        f"Measured {result['when'][:10]} on {machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, "
        f"with Python {versions['python']}, gunicorn {versions['gunicorn']} and Flask {versions['flask']}."
    )


def pictures(found: dict[str, dict[str, Any]]) -> dict[Path, str]:
    """Return each picture that the results have the numbers of."""
    drawn: dict[Path, str] = {}
    if "gevent" in found.get("overhead", {}).get("ratios", {}):
        drawn[IMAGES / "bench-overhead.svg"] = _overhead(found["overhead"])
    if "scale" in found:
        for axis, curves in found["scale"]["medians"].items():
            picture = _curves(axis, curves, found["scale"]["ratios"][axis]["ours"])
            drawn[IMAGES / f"bench-scale-{axis.replace('_', '-')}.svg"] = picture
    return drawn


def _overhead(result: dict[str, Any]) -> str:
    ratios = result["ratios"]["gevent"]["cpu_us"]
    names = [name for name in ratios if not name.endswith("all_sampled")]
    names.sort(key=lambda name: float(ratios[name]["median"]))
    values = {of.WORDS[name]: ratios[name]["median"] for name in names}
    title = "CPU of one request, as a multiple of bare gunicorn and Flask"
    return plots.bars(title, "one gevent worker, a JSON route; lower is better", values, [of.WORDS["ours"]], 1.0, 1.10)


def _curves(axis: str, curves: dict[str, Any], exponent: float) -> str:
    scraped = axis.startswith("scrape")
    title = "CPU of a scrape" if scraped else "CPU of a request"
    names = {"ours": "Sightline", "bare": "bare"}
    ordered = {names[side]: curves[side] for side in names if side in curves}
    unit = f"{'ms' if scraped else 'µs'}, growing as x to the {exponent:.2f}"
    return plots.lines(f"{title}, by {scale.AXES[axis]}", scale.AXES[axis], unit, ordered)
