"""The steps before the mounted tests. Each returns "" or what failed."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from .environment import REPOSITORY

MINUTES = 60


def _step(argv, limit, keep=lambda text: text[-3000:], env=None):
    # Into a file: daemons that a step starts would keep a pipe open, and its reader waiting.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            done = subprocess.run(argv, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.STDOUT, timeout=limit, env={**os.environ, **(env or {})})
        except subprocess.TimeoutExpired:
            return f"{' '.join(argv)}: still running after {limit} s"
        except FileNotFoundError:
            return f"{argv[0]} is not installed"
        output.seek(0)
        return "" if done.returncode == 0 else f"exit status {done.returncode}\n{keep(output.read())}"


def _has_test_targets():
    return ".testTarget(" in (REPOSITORY / "Package.swift").read_text()


def build():
    return _step(["swift", "build", "-c", "release", *(["--build-tests"] if _has_test_targets() else [])], 30 * MINUTES)


def unit():
    """The Swift tests, over tokens made for this run unless LETHEFS_TEST_TOKENS names some."""
    if not _has_test_targets():
        return "Package.swift has no test targets"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lethefs-test-vectors"
    failure = _step(["Tests/vectors", str(cache)], 5 * MINUTES)
    if failure:
        return f"Tests/vectors: {failure}"
    os.environ["LETHEFS_VECTORS"] = str(cache / "cryptography_vectors")
    if "LETHEFS_TEST_TOKENS" in os.environ:
        return _swift_tests()
    with tempfile.TemporaryDirectory(prefix="lethefs-tokens.", dir=os.environ.get("LETHEFS_TEST_DIR", "/tmp")) as top:
        try:
            failure = _step(["Tests/tokens/setup", top], 5 * MINUTES)
            if failure:
                return f"Tests/tokens/setup: {failure}"
            os.environ["LETHEFS_TEST_TOKENS"] = str(Path(top) / "tokens.tsv")
            return _swift_tests()
        finally:
            os.environ.pop("LETHEFS_TEST_TOKENS", None)
            _step(["Tests/tokens/teardown", top], 60)


def _swift_tests():
    """The token tests in a process of their own: they count the keys that are alive in it."""
    test, tokens = ["swift", "test", "-c", "release", "--skip-build"], "KeyProviderPKCS11Tests"
    failures = [_step([*test, which, tokens], 20 * MINUTES, _failures) for which in ("--skip", "--filter")]
    return "\n".join(failure for failure in failures if failure)


def integrity():
    """The engine's tests once more, over volumes that have all that `init --integrity` adds."""
    return _step(["swift", "test", "-c", "release", "--skip-build", "--filter", "VolumeEngineTests"], 20 * MINUTES,
                 _failures, {"LETHEFS_TEST_INTEGRITY": "tree,names"})


def _failures(text):
    """The lines of Swift Testing that say what failed, and the end."""
    lines = text.splitlines()
    telling = [line for line in lines if re.search(r"recorded an issue|error:|Fatal error|failed after", line)]
    return "\n".join(telling[:40] + lines[-5:])


def format():
    return _step(["swift", "format", "lint", "--strict", "-r", "Sources", "Tests", "Package.swift"], 10 * MINUTES)


def imports():
    return _step(["/usr/bin/python3", "Tests/imports"], 60)


def fuzz():
    """A few thousand inputs for each parser, guided by coverage, from a fixed seed; the long run is Tests/fuzz/run's own."""
    return _step(["Tests/fuzz/run", "--runs", "20000"], 15 * MINUTES)


#: Those of a quick run, and those that a full one has besides.
STEPS = {"build": build, "unit": unit, "integrity": integrity, "format": format, "imports": imports}
FULL_STEPS = {**STEPS, "fuzz": fuzz}
