"""X-Request-Start in all its forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.queue_time import LONGEST, queue_seconds

NOW = 1_795_000_000.5


@pytest.mark.parametrize("prefix", ["", "t="])
@pytest.mark.parametrize(
    "form",
    ["{:.3f}", "{:.0f}ms", "{:.0f}us", "{:.0f}ns"],
    ids=["seconds", "milliseconds", "microseconds", "nanoseconds"],
)
def test_every_unit_with_and_without_t(prefix: str, form: str) -> None:
    factor = {"ms": 1e3, "us": 1e6, "ns": 1e9}.get(form[-2:], 1)
    header = prefix + form.removesuffix("ms").removesuffix("us").removesuffix("ns").format((NOW - 0.25) * factor)
    assert queue_seconds(header, NOW) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=",
        "nonsense",
        "t=-1795000000",
        "1e9",
        "inf",
        "nan",
        "t=t=1795000000",
        "1795000000 1795000000",
        "٣" * 10,
        "9" * 40,
    ],
)
def test_nonsense_is_ignored(header: str) -> None:
    assert queue_seconds(header, NOW) is None


def test_the_future_and_the_distant_past_are_ignored() -> None:
    assert queue_seconds(f"t={NOW + 1:.3f}", NOW) is None
    assert queue_seconds(f"t={NOW - LONGEST - 1:.3f}", NOW) is None


@given(st.text())
def test_no_header_raises(header: str) -> None:
    found = queue_seconds(header, NOW)
    assert found is None or 0 <= found <= LONGEST
