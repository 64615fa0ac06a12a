"""The process that runs one group of cases and reports each over a pipe, one JSON line a case."""

import gc
import json
import os
import time
import traceback
from pathlib import Path

from .volume import Volume


def run_group(cases, root: Path, report):
    """Runs `cases`: one case with its own volume, or those of a module that share a mount."""
    with Volume(root) as volume:
        if not cases[0].shared:
            _attempt(volume, cases[0].title, report, cases[0].function, volume)
            return
        if not _attempt(volume, f"{cases[0].module}.mount", report, lambda: volume.init().mount(), silent=True):
            for case in cases:
                _say(report, case.title, 0, "the mount failed")
            return
        for case in cases:
            directory = volume.mountpoint / case.name
            _attempt(volume, case.title, report, _in_directory, case.function, directory)
        _attempt(volume, f"{cases[0].module}.unmount_and_check", report, lambda: (volume.unmount(), volume.check()))


def _in_directory(function, directory):
    os.umask(0o022)
    os.chdir("/")
    directory.mkdir()
    before = _descriptors()
    try:
        function(directory)
    finally:
        os.chdir("/")
        gc.collect()
        for fd in _descriptors() - before:  # What a failed case left open would keep the mount busy.
            try:
                os.close(fd)
            except OSError:
                pass


def _descriptors():
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}  # The listing's own is closed by now.


def _attempt(volume, title, report, function, *arguments, silent=False):
    _say(report, title, None, None)
    started = time.monotonic()
    try:
        function(*arguments)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = next((frame for frame in reversed(frames) if "/harness/" not in frame.filename), frames[-1])
        place = f"{os.path.basename(where.filename)}:{where.lineno}"
        told = "\n".join([str(error), *getattr(error, "__notes__", [])])
        told = told if len(told) <= 1500 else told[:900] + " … " + told[-600:]
        _say(report, title, time.monotonic() - started, f"{place}: {type(error).__name__}: {told}{_log(volume)}")
        return False
    if not silent:
        _say(report, title, time.monotonic() - started, "")
    return True


def _log(volume):
    """What the daemon said last: a volume that was revoked, or a daemon that ended, explains most errors."""
    logs = "".join(path.read_text(errors="replace") for path in sorted(volume.home.rglob("*.log")))
    return f"\nlog: …{logs[-1200:].rstrip()}" if logs else ""


def _say(report, title, seconds, failure):
    """`seconds` None: the case begins. `failure` "": it passed."""
    line = json.dumps({"title": title, "seconds": seconds, "failure": failure}) + "\n"
    os.write(report, line.encode("utf-8", "surrogateescape"))
