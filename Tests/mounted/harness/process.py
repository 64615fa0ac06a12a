"""Subprocesses with a time limit, and calls made as another user."""

import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from . import fuse
from .environment import work_root


class Failed(AssertionError):
    """A program that ended otherwise than the test demands."""


class TimedOut(Failed):
    """A program that was still running at its limit."""


def _describe(argv) -> str:
    text = " ".join(str(word) for word in argv)
    return text if len(text) < 300 else text[:300] + "…"


def _ends(text) -> str:
    """The beginning and the end of what a program said: the error is in one of them."""
    text = (text if isinstance(text, str) else repr(text or "")).strip()
    return text if len(text) <= 1000 else f"{text[:400]}\n…\n{text[-600:]}"


def _end(child):
    """Ends a process group for certain: what hangs in a dead mount is freed by aborting the connection."""
    for step in range(3):
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            child.communicate(timeout=3)
            return
        except subprocess.TimeoutExpired:
            fuse.abort_under(work_root())


def run(argv, limit=30, check=True, user=None, env=None, cwd=None, input=None, text=True, status=0):
    """Runs a program to its end within `limit` seconds. With `check`, its exit status must be `status`."""
    argv = [str(word) for word in argv]
    child = spawn(argv, user=user, env=env, cwd=cwd, text=text,
                  stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL)
    try:
        out, err = child.communicate(input, timeout=limit)
    except subprocess.TimeoutExpired:
        _end(child)
        raise TimedOut(f"{_describe(argv)}: still running after {limit} s") from None
    if check and child.returncode != status:
        raise Failed(f"{_describe(argv)}: exit status {child.returncode}: {_ends(err) or _ends(out)}")
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def spawn(argv, user=None, env=None, cwd=None, text=True, stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    """Starts a program in a session of its own. `user`: a name, or (uid, gid)."""
    identity = {}
    if user is not None:
        uid, gid = user if isinstance(user, tuple) else _ids(user)
        identity = dict(user=uid, group=gid, extra_groups=[])
    return subprocess.Popen([str(word) for word in argv], stdin=stdin, stdout=stdout, stderr=stderr, text=text,
                            errors="surrogateescape" if text else None, cwd=cwd,
                            env={**os.environ, **(env or {})}, start_new_session=True, **identity)


def _ids(name):
    import pwd
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def as_user(uid, gid, function, *arguments, groups=(), limit=20):
    """Calls `function` in a child process with these ids; returns its result or raises what it raised."""
    def become():
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        return function(*arguments)
    return in_child(become, limit=limit)


def in_child(function, *arguments, limit=20):
    """Calls `function` in a forked child, so that locks, ids, working directory and crashes stay there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = (True, function(*arguments))
        except BaseException as error:  # The parent raises it again.
            error.add_note(traceback.format_exc())
            answer = (False, error if isinstance(error, OSError) else AssertionError(traceback.format_exc()))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = _read_within(pipe, limit)
    if data is None:
        os.kill(pid, signal.SIGKILL)
        fuse.abort_under(work_root())
        os.waitpid(pid, 0)
        raise TimedOut(f"a child process: still running after {limit} s")
    _, status = os.waitpid(pid, 0)
    if not data:
        raise Failed(f"a child process died: wait status {status}")
    good, value = pickle.loads(data)
    if good:
        return value
    raise value


def _read_within(pipe, limit):
    import select
    deadline, chunks = time.monotonic() + limit, []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return None
        chunk = os.read(pipe.fileno(), 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def processes_of(root) -> list[int]:
    """Processes that name `root` in their command line or environment: those that this run started."""
    mark, found = os.fsencode(str(root)), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # It ended meanwhile.
    return found


def alive(pid) -> bool:
    """Whether the process still runs. A zombie does not, unless it has other threads: they still have its descriptors."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    fields = stat.rsplit(")", 1)[1].split()
    return fields[0] not in "ZX" or int(fields[17]) > 1


def _doing(pid) -> str:
    """What a process waits for, as far as the kernel tells."""
    told = []
    for name in ("comm", "wchan", "syscall", "stack"):
        try:
            told.append(f"{name} {Path(f'/proc/{pid}/{name}').read_text().strip()}")
        except OSError:
            continue
    return "; ".join(told)


def wait_gone(pid, limit=10):
    deadline = time.monotonic() + limit
    while alive(pid):
        if time.monotonic() > deadline:
            raise TimedOut(f"process {pid} is still there after {limit} s: {_doing(pid)}")
        time.sleep(0.02)
