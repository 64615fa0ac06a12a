"""Declaring a case: `@on_mount` gets an empty directory of a shared mount, `@on_volume` a volume of its own."""

from dataclasses import dataclass, field
from typing import Callable

#: Abilities that stand-ins lack. A case that needs one is left out on that stand-in, never on LetheFS.
ABILITIES = {
    "daemon",  # a process serves the mount and can be killed
    "sealed",  # the lower tree is ciphertext and authenticated
    "lethefs",  # the case speaks of LetheFS's own command line or format
    "io_uring",  # the kernel has FUSE over io_uring
}


@dataclass(frozen=True)
class Case:
    module: str
    name: str
    function: Callable
    shared: bool
    limit_seconds: float
    quick: bool
    needs: frozenset = field(default_factory=frozenset)

    @property
    def title(self) -> str:
        return f"{self.module}.{self.name}"


_declared: list[Case] = []


def _declare(shared, limit, quick, needs, suffix, function):
    assert set(needs) <= ABILITIES, needs
    _declared.append(
        Case(function.__module__, function.__name__ + suffix, function, shared, limit, quick, frozenset(needs)))
    return function


def on_mount(limit=30, quick=True, needs=()):
    """A case `f(directory: Path)` that runs as root in a fresh directory of its module's shared mount."""
    return lambda function: _declare(True, limit, quick, needs, "", function)


def on_volume(limit=60, quick=True, needs=()):
    """A case `f(volume: Volume)` with a volume of its own, neither initialised nor mounted."""
    return lambda function: _declare(False, limit, quick, needs, "", function)


def part(suffix, function, **settings):
    """Declares one of several cases made in a loop, on a volume: `part("[3552]", f, name="cut", limit=…)`."""
    if "name" in settings:
        function.__name__ = settings["name"]
    _declare(False, settings.get("limit", 60), settings.get("quick", True), settings.get("needs", ()), suffix, function)


def declared() -> list[Case]:
    return list(_declared)
