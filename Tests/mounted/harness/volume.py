"""A volume under test: its lower directory, its mount point, its daemon."""

import json
import os
import signal
import socket
from pathlib import Path

from . import fuse
from .backends import BACKENDS
from .environment import backend_name
from .process import Failed, processes_of, run, wait_gone


class Volume:
    """Everything lies below `root`. Used as a context manager: leaving it removes every mount, however it failed."""

    def __init__(self, root: Path, user=None):
        self.root = Path(root)
        self.user = user
        self.lower = self.root / "lower"
        self.mountpoint = self.root / "mount"
        self.home = self.root / "home"
        for directory in (self.root, self.lower, self.mountpoint, self.home):
            directory.mkdir(parents=True, exist_ok=True)
            os.chmod(directory, 0o755)
            if user is not None:
                import pwd
                entry = pwd.getpwnam(user)
                os.chown(directory, entry.pw_uid, entry.pw_gid)
        self.daemon = None
        self.backend = BACKENDS[backend_name()](self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        fuse.release_under(self.root)

    @property
    def env(self):
        return self.backend.env()

    def command(self, *words, **settings):
        """Runs the program under test with these arguments; as `run` does."""
        settings.setdefault("user", self.user)
        return run([self.backend.program(), *words], env=self.env, **settings)

    def ask(self, verb, **arguments):
        """As a command does, over the daemon's socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            directory = os.open(self.home / "run", os.O_RDONLY | os.O_DIRECTORY)
            connection.connect(f"/proc/self/fd/{directory}/{self.daemon}.sock")
            os.close(directory)
            connection.sendall(json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n")
            return json.loads(connection.makefile().readline())

    def init(self, *words):
        self.backend.init(*words)
        return self

    def mount(self, options="allow_other", lower=None, mountpoint=None):
        self.backend.mount(lower or self.lower, mountpoint or self.mountpoint, options)
        point = mountpoint or self.mountpoint
        if not fuse.is_mounted(point):
            raise Failed(f"mount succeeded, and nothing is mounted at {point}")
        self.daemon = self.pid() or self._serving()
        return self

    def _serving(self):
        """The daemon without asking `status`, whose own truth status.py tests."""
        if "daemon" not in self.backend.abilities:
            return None
        found = processes_of(f"{self.root}/")
        if len(found) != 1:
            raise Failed(f"one daemon was due, processes {found} are there: {self.backend.complaint}")
        return found[0]

    def unmount(self, mountpoint=None):
        """Unmounts cleanly; afterwards nothing is mounted and no daemon is left."""
        point = mountpoint or self.mountpoint
        self.backend.unmount(point)
        if fuse.is_mounted(point):
            raise Failed(f"unmount succeeded, and {point} is still mounted")
        if self.daemon is not None:
            wait_gone(self.daemon, 1 if backend_name() == "lethefs" else 10)
        return self

    def remount(self, options="allow_other"):
        return self.unmount().mount(options)

    def pid(self):
        """The daemon's process id, or None when nothing serves the mount."""
        return self.backend.pid()

    def kill(self, writers=()):
        """kill -9 of the daemon, as a crash does it. The dead mount is detached when the `writers`, child processes,
        have met its errors and ended: earlier, they would go on in the directory below it."""
        os.kill(self.daemon, signal.SIGKILL)
        wait_gone(self.daemon)
        fuse.abort_under(self.mountpoint)
        for writer in writers:
            wait_gone(writer)
            os.waitpid(writer, 0)
        fuse.release_under(self.mountpoint)

    def check(self, damaged=False):
        """The offline check must find nothing, or, of a damaged volume, must find that."""
        self.backend.check(damaged)
