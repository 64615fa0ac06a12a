"""Comparisons whose failures can be read: long values are shortened, the first difference is named."""

import errno as errno_module
import time


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]}…({len(text)} characters)"


def equal(got, want, what="value"):
    if got == want:
        return
    note = ""
    if isinstance(got, (bytes, bytearray)) and isinstance(want, (bytes, bytearray)):
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        note = f"; first difference at {at}, lengths {len(got)} and {len(want)}"
    if isinstance(got, (set, frozenset)) and isinstance(want, (set, frozenset)):
        note = f"; extra {_short(sorted(got - want)[:5])}, missing {_short(sorted(want - got)[:5])}"
    raise AssertionError(f"{what}: got {_short(got)}, want {_short(want)}{note}")


def differs(got, unwanted, what="value"):
    assert got != unwanted, f"{what}: is {_short(got)}"


def raises(errnos, function, *arguments, **named):
    """Calls `function`; it must raise OSError with one of `errnos` (an int or several)."""
    wanted = {errnos} if isinstance(errnos, int) else set(errnos)
    names = "/".join(errno_module.errorcode[number] for number in sorted(wanted))
    what = getattr(function, "__name__", "call")
    try:
        result = function(*arguments, **named)
    except OSError as error:
        got = errno_module.errorcode.get(error.errno, str(error.errno))
        assert error.errno in wanted, f"{what}: {got} where {names} was due"
        return
    raise AssertionError(f"{what}: returned {_short(result)} where {names} was due")


def wait_until(what, limit=60):
    """Until `what()` is true, in at most `limit` seconds."""
    end = time.monotonic() + limit
    while not what():
        assert time.monotonic() < end, "it did not end in time"
        time.sleep(0.2)
