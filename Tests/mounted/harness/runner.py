"""Runs groups of cases in worker processes, holds each case to its limit and cleans up whatever is left."""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import fuse, worker
from .backends import BACKENDS
from .environment import backend_name
from .process import processes_of, run

#: Limit of a shared mount's own steps: making the volume, mounting, unmounting, checking.
STEP_SECONDS = 120


class Tally:
    def __init__(self):
        self.passed, self.failed, self.left_out = 0, [], 0
        #: Printed after each title.
        self.where = ""

    def note(self, title, seconds, failure):
        title += self.where
        if failure:
            self.failed.append(title)
            print(f"FAIL {title} {seconds:.2f} s\n     " + failure.replace("\n", "\n     "), flush=True)
        else:
            self.passed += 1
            print(f"ok   {title} {seconds:.2f} s", flush=True)


def run_cases(cases, tally: Tally):
    """Runs these cases, group by group, below a work directory of this run's own."""
    base = os.environ.get("LETHEFS_TEST_DIR", "/tmp")
    root = Path(tempfile.mkdtemp(prefix="lethefs-tests.", dir=base))
    root.chmod(0o755)
    os.environ["LETHEFS_TEST_WORK"] = str(root)
    abilities = BACKENDS[backend_name()].abilities
    fitting = [case for case in cases if case.needs <= abilities]
    tally.left_out += len(cases) - len(fitting)
    try:
        for number, group in enumerate(_groups(fitting)):
            _run_group(group, root / str(number), tally)
    finally:
        _clean(root)
        shutil.rmtree(root, ignore_errors=True)


def _groups(cases):
    """Cases of a module that share a mount go together; each of the others is alone."""
    shared, groups = {}, []
    for case in cases:
        if not case.shared:
            groups.append([case])
        elif case.module in shared:
            shared[case.module].append(case)
        else:
            shared[case.module] = [case]
            groups.append(shared[case.module])
    return groups


def _run_group(group, root, tally):
    """A worker that hangs or dies costs the case it was at; the rest go on in a new worker on a new volume."""
    remaining, attempt = list(group), 0
    while remaining:
        finished = _run_worker(remaining, Path(f"{root}.{attempt}"), tally)
        remaining = [case for case in remaining if case.title not in finished]
        attempt += 1


def _run_worker(cases, root, tally):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            worker.run_group(cases, root, writing)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    hung = True
    try:
        finished, hung = _follow(cases, reading, tally)
    finally:
        if hung:
            _kill_group(pid)
        os.close(reading)
        _clean(root)
        _reap(pid, root)
        shutil.rmtree(root, ignore_errors=True)
    return finished


def _follow(cases, reading, tally):
    """Prints the worker's reports. Returns the titles done with, and whether the worker had to be given up."""
    limits = {case.title: case.limit_seconds for case in cases}
    finished, current, started, buffer = set(), "", time.monotonic(), b""
    while True:
        left = started + limits.get(current, STEP_SECONDS) - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            tally.note(current or f"{cases[0].module}.clean_up", time.monotonic() - started, "still running at its limit")
            finished.add(current)
            return finished if current in limits else set(limits), True
        data = os.read(reading, 65536)
        if not data:
            if current:
                tally.note(current, time.monotonic() - started, "the test process died")
                finished.add(current)
            return finished if current in limits or not current else set(limits), False
        *lines, buffer = (buffer + data).split(b"\n")
        for line in map(json.loads, lines):
            current, started = (line["title"] if line["seconds"] is None else ""), time.monotonic()
            if line["seconds"] is not None:
                tally.note(line["title"], line["seconds"], line["failure"])
                finished.add(line["title"])


def _kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _reap(pid, root):
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        fuse.abort_under(root)
        time.sleep(0.1)
    print(f"     the test process {pid} cannot be ended", flush=True)


def _clean(root):
    """Ends what the group left behind: its mounts, its processes, its loop devices."""
    fuse.release_under(root)
    for pid in processes_of(f"{root}/"):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for line in run(["losetup", "-nO", "NAME,BACK-FILE"], check=False).stdout.splitlines():
        device, _, file = line.strip().partition(" ")
        if file.strip().startswith(f"{root}/"):
            run(["losetup", "-d", device], check=False)
