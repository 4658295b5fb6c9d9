"""How long a request waited between the proxy and the application, from the X-Request-Start header."""

import re

# Some proxies send seconds (nginx: t=${msec}), others milliseconds, microseconds (Apache: t=%t) or nanoseconds;
# the magnitude of a Unix time in this century tells them apart.
_FORM = re.compile(r"(?:t=)?(\d{10,19}(?:\.\d{1,9})?)", re.ASCII)
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
LONGEST = 3600.0  # a request that waited longer has no client any more: such a header is nonsense


def queue_seconds(header: str, now: float) -> float | None:
    """Return the seconds from the header's time to `now`, a Unix time; None for nonsense and the future."""
    found = _FORM.fullmatch(header.strip())
    if found is None:
        return None
    value = float(found[1])
    started = next(value / unit for below, unit in _UNITS if value < below)
    waited = now - started
    return waited if 0.0 <= waited <= LONGEST else None
