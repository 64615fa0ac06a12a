"""A daemon that is killed, or stopped past its lease, leaves nothing readable: its guardian purges what the kernel holds."""

import errno
import json
import mmap
import os
import pwd
import signal
import time
from pathlib import Path

from harness import Volume, as_user, equal, on_volume, part, run
from harness.fuse import CONNECTIONS, detach
from harness.process import alive, wait_gone

SECRET = b"plaintext of a medical record "
SIZE = 256 << 10
#: Unreadable 2 s after the daemon's end is what docs/REVOCATION.md says; a loaded machine gets more.
DEADLINE_SECONDS = 20


def probe(function, *arguments):
    """What a program gets: bytes, an errno's name, or the signal that ends it. In a child of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = b"=" + (function(*arguments) or b"")
        except OSError as error:
            answer = errno.errorcode[error.errno].encode()
        os.write(writing, answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return answer[1:] if answer[:1] == b"=" else answer.decode()


class Witness:
    """A program that has a file open and mapped, and another one with pages that were never flushed."""

    def __init__(self, top):
        self.top = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self.file = os.open(top / "record", os.O_RDWR | os.O_CREAT)
        os.write(self.file, SECRET * (SIZE // len(SECRET)))
        os.fsync(self.file)
        os.symlink("a secret target", top / "link")
        self.shared = mmap.mmap(self.file, 8192, mmap.MAP_SHARED)
        self.private = mmap.mmap(self.file, 8192, mmap.MAP_PRIVATE)
        self.dirty = os.open(top / "draft", os.O_RDWR | os.O_CREAT)
        os.write(self.dirty, SECRET * 1000)
        equal(self.findings(), dict.fromkeys(self.findings(), SECRET), "before the daemon's end")

    def findings(self):
        count = len(SECRET)
        return {
            "read": probe(os.pread, self.file, count, 0),
            "shared mapping": probe(lambda: self.shared[:count]),
            "private mapping": probe(lambda: self.private[:count]),
            "unflushed": probe(os.pread, self.dirty, count, 0),
            "new open": probe(lambda: os.pread(os.open("record", os.O_RDONLY, dir_fd=self.top), count, 0)),
        }

    def require_nothing_readable(self):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while SECRET in (found := self.findings()).values():
            assert time.monotonic() < deadline, f"still readable: {found}"
            time.sleep(0.05)
        equal(found["shared mapping"], "SIGBUS")
        equal(found["private mapping"], "SIGBUS")
        for way in ("read", "unflushed", "new open"):
            assert isinstance(found[way], str), f"{way}: {found[way]}"
        assert probe(lambda: os.fsync(self.dirty)) != b"", "fsync of lost pages succeeds"
        assert probe(lambda: os.readlink("link", dir_fd=self.top).encode()) in ("ENOTCONN", "EIO")

    def close(self):
        self.shared.close()
        self.private.close()
        for fd in (self.file, self.dirty, self.top):
            try:
                os.close(fd)
            except OSError:
                pass  # The flush fails; the descriptor is gone all the same.


def status_of(volume):
    return json.loads(volume.command("status", volume.lower, "--json").stdout)


def guardian_of(volume):
    return status_of(volume).get("guardian")


def mount_again(volume):
    """Right after the crash, over what is left of the last mount."""
    volume.mount()
    equal((volume.mountpoint / "record").read_bytes()[:len(SECRET)], SECRET, "what was fsynced")
    volume.unmount()
    volume.check()


def killed(volume, lazily):
    volume.init().mount()
    guardian, witness = guardian_of(volume), Witness(volume.mountpoint)
    if lazily:
        assert detach(volume.mountpoint)
    os.kill(volume.daemon, signal.SIGKILL)
    witness.require_nothing_readable()
    wait_gone(guardian)
    witness.close()
    mount_again(volume)


part("", lambda volume: killed(volume, False), name="killed", needs=["lethefs"])
part("", lambda volume: killed(volume, True), name="killed_after_a_lazy_unmount", needs=["lethefs"])


@on_volume(needs=["lethefs"])
def stopped_past_its_lease(volume):
    volume.init().mount("allow_other,probe=0.5,lease=2")
    guardian, witness = guardian_of(volume), Witness(volume.mountpoint)
    os.kill(volume.daemon, signal.SIGSTOP)
    witness.require_nothing_readable()
    wait_gone(guardian)
    assert not alive(volume.daemon), "a stopped daemon keeps its keys"
    witness.close()
    mount_again(volume)


@on_volume(needs=["lethefs"])
def killed_where_fusectl_is_missing(volume):
    """Then the guardian answers what is asked of the dead daemon, and its own end closes the connection."""
    volume.init().mount()
    guardian, witness = guardian_of(volume), Witness(volume.mountpoint)
    empty = volume.root / "empty"
    empty.mkdir()
    run(["mount", "--bind", empty, CONNECTIONS])
    try:
        os.kill(volume.daemon, signal.SIGKILL)
        witness.require_nothing_readable()
        wait_gone(guardian)
    finally:
        detach(CONNECTIONS)
    witness.close()
    mount_again(volume)


@on_volume(needs=["lethefs"])
def guardian_comes_back(volume):
    volume.init().mount()
    witness = Witness(volume.mountpoint)
    for _ in range(2):
        lost = guardian_of(volume)
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(lost, sign)
        assert alive(lost), "ended by a signal that ends daemons"
        os.kill(lost, signal.SIGKILL)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while guardian_of(volume) in (lost, None):
            assert time.monotonic() < deadline, "no new guardian"
            time.sleep(0.05)
    guardian = guardian_of(volume)
    equal(witness.findings()["read"], SECRET)
    os.kill(volume.daemon, signal.SIGKILL)
    witness.require_nothing_readable()
    wait_gone(guardian)
    witness.close()


@on_volume(needs=["lethefs"])
def ends_with_the_mount(volume):
    volume.init().mount()
    (volume.mountpoint / "record").write_bytes(SECRET)
    guardian = guardian_of(volume)
    volume.unmount()
    wait_gone(guardian)


@on_volume(needs=["lethefs"])
def sigterm_while_in_use(volume):
    volume.init().mount()
    guardian, witness = guardian_of(volume), Witness(volume.mountpoint)
    os.kill(volume.daemon, signal.SIGTERM)
    witness.require_nothing_readable()
    wait_gone(guardian)
    wait_gone(volume.daemon)
    witness.close()
    mount_again(volume)


@on_volume(needs=["lethefs"])
def holds_nothing_else(volume):
    volume.init().mount()
    guardian = guardian_of(volume)
    lines = Path(f"/proc/{guardian}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    for field in ("CapEff", "CapPrm", "CapInh"):
        equal(int(status[field], 16), 0, field)
    equal(status["NoNewPrivs"], "1")
    equal(Path(f"/proc/{guardian}/environ").read_bytes(), b"", "environment")
    held = {int(fd): os.readlink(f"/proc/{guardian}/fd/{fd}") for fd in os.listdir(f"/proc/{guardian}/fd")}
    equal(sorted(held), [0, 1, 2, 3, 4, 5, *sorted(fd for fd, what in held.items() if "pidfd" in what)], "descriptors")
    equal(held[3], "/dev/fuse")
    assert Path(f"/proc/{guardian}/cwd").readlink() == Path("/")
    volume.unmount()


def killed_by_its_user(top, daemon):
    witness = Witness(top)
    os.kill(daemon, signal.SIGKILL)
    witness.require_nothing_readable()
    witness.close()


@on_volume(needs=["lethefs"])
def of_a_plain_user(volume):
    """fusectl's file belongs to who mounted, so his guardian needs no root; his next mount takes the dead one away."""
    entry = pwd.getpwnam("nobody")
    mine = Volume(volume.root / "personal", user="nobody")
    mine.init().mount(None)
    guardian = guardian_of(mine)
    equal(os.stat(f"/proc/{guardian}").st_uid in (0, entry.pw_uid), True)
    as_user(entry.pw_uid, entry.pw_gid, killed_by_its_user, mine.mountpoint, mine.daemon, limit=40)
    wait_gone(guardian)
    mine.mount(None)
    found = as_user(entry.pw_uid, entry.pw_gid, lambda: (mine.mountpoint / "record").read_bytes()[:len(SECRET)])
    equal(found, SECRET, "what was fsynced")
    mine.unmount()
