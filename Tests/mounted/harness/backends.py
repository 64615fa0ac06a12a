"""How each system is made, mounted and checked. Only LetheFS is tested; the others are there to try the tests."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path

from .environment import program
from .process import processes_of, run
from .ring import can_switch, switched


class LetheFS:
    abilities = {"daemon", "sealed", "lethefs"} | ({"io_uring"} if can_switch() else set())
    lacking_operations = ""
    complaint = ""

    def __init__(self, volume):
        self.volume = volume

    def program(self):
        return program()

    def env(self):
        return {"LETHEFS_HOME": str(self.volume.home)}

    def init(self, *words):
        extra = [f"--integrity={word}" for word in os.environ.get("LETHEFS_TEST_INTEGRITY", "").split(",") if word]
        self.volume.command("init", self.volume.lower, *words, *extra)

    def mount(self, lower, mountpoint, options):
        # Of `Tests/run --transport`.
        chosen = os.environ.get("LETHEFS_TEST_TRANSPORT")
        if "transport=" in (options or ""):
            chosen = None
        if chosen:
            options = ",".join(filter(None, [options, f"transport={chosen}"]))
        with switched("Y") if chosen == "io_uring" else nullcontext():
            self.volume.command("mount", lower, mountpoint, *(["-o", options] if options else []))
        if chosen:
            told = json.loads(self.volume.command("status", mountpoint, "--json").stdout)
            assert told["transport"] == chosen, f"{chosen} was asked for, and not taken: {told.get('transportNote')}"

    def unmount(self, mountpoint):
        # It flushes the whole lower file system, which others may have been writing to.
        self.volume.command("unmount", mountpoint, limit=180)

    def pid(self):
        answer = self.volume.command("status", self.volume.lower, "--json", check=False)
        logs = "".join(path.read_text(errors="replace") for path in self.volume.home.rglob("*.log"))
        self.complaint = f"exit status {answer.returncode}: {answer.stderr.strip()}\nlog: …{logs[-900:]}"
        if answer.returncode != 0:
            return None
        return _find_pid(json.loads(answer.stdout))

    def check(self, damaged):
        self.volume.command("check", self.volume.lower, limit=120, status=1 if damaged else 0)


def _find_pid(status):
    """The "pid" of a status, which may be an object or a list of objects."""
    for one in status if isinstance(status, list) else [status]:
        if one.get("pid"):
            return int(one["pid"])
    return None


class PlainDirectory:
    """The lower directory itself, bound to the mount point: shows that a test demands what ext4 does."""
    abilities: set = set()
    lacking_operations = ""

    def __init__(self, volume):
        self.volume = volume

    def program(self):
        return "false"

    def env(self):
        return {}

    def init(self):
        pass

    def mount(self, lower, mountpoint, options):
        run(["mount", "--bind", lower, mountpoint])
        if options and "ro" in options.split(","):
            run(["mount", "-o", "remount,ro,bind", mountpoint])

    def unmount(self, mountpoint):
        run(["umount", mountpoint])

    def pid(self):
        return None

    def check(self, damaged):
        pass


class Gocryptfs:
    """A FUSE file system of the same kind: shows that the tests run on one, and that they can fail."""
    abilities = {"daemon", "sealed"}
    lacking_operations = "punch,zero,copy"
    complaint = "no process"

    def __init__(self, volume):
        self.volume = volume
        self.key = volume.home / "password"

    def run(self, argv, **settings):
        return run(argv, user=self.volume.user, **settings)

    def program(self):
        return "gocryptfs"

    def env(self):
        return {}

    def init(self):
        self.key.write_text("password\n")
        self.run(["gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", self.key, self.volume.lower])

    def mount(self, lower, mountpoint, options):
        options = ["-allow_other"] if "allow_other" in (options or "") else []
        if self.volume.user is None:
            options += ["-o", "dev,suid"]
        self.run(["gocryptfs", "-q", "-acl", "-passfile", self.key, *options, lower, mountpoint])

    def unmount(self, mountpoint):
        for _ in range(20):
            if self.run(["fusermount3", "-u", mountpoint], check=False).returncode == 0:
                return
            time.sleep(0.1)
        self.run(["fusermount3", "-u", mountpoint])

    def pid(self):
        for pid in processes_of(self.volume.root):
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == "gocryptfs":
                    return pid
            except OSError:
                continue
        return None

    def check(self, damaged):
        self.run(["gocryptfs", "-q", "-fsck", "-passfile", self.key, self.volume.lower], limit=120,
                 status=26 if damaged else 0)


BACKENDS = {"lethefs": LetheFS, "ext4": PlainDirectory, "gocryptfs": Gocryptfs}
