"""Numbers as people read them, with their units."""


def percent(share: float) -> str:
    """Write a share: 83 %."""
    return f"{share * 100:.0f} %"


def duration(seconds: float) -> str:
    """Write seconds in the unit that suits them: 80 ms, 1.2 s, 10 min, 24 h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


def rate(per_second: float) -> str:
    """Write a rate of requests: 25 req/s."""
    return f"{per_second:.0f} req/s" if per_second >= 10 else f"{per_second:.2g} req/s"


def size(number_of_bytes: float) -> str:
    """Write bytes: 768 MiB."""
    return f"{number_of_bytes / 2**20:.0f} MiB"


def cores(number: float) -> str:
    """Write cores: 1 core, 1.5 cores."""
    return "1 core" if number == 1 else f"{number:.3g} cores"


def workers(number: int) -> str:
    """Write workers: 1 worker, 2 workers."""
    return "1 worker" if number == 1 else f"{number} workers"


def requests(number: float) -> str:
    """Write requests: 1 request, 32 requests."""
    return "1 request" if round(number) == 1 else f"{number:.0f} requests"
