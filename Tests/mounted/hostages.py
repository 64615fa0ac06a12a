"""Something holds the kernel up. Nothing else stays readable for that.

A program lists a directory into memory that never comes: the kernel copies a listing that it has to the program with the page of the listing
locked. Where the program's memory is a mapping whose page has to be read first, the copy waits for that read, and the purge of that directory
waits for the copy. Or the lower storage hangs in a read: the pages that are to be read stay locked.
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import time

from harness import Volume, equal, on_volume
from harness.process import alive, wait_gone

from guardian import SECRET, Witness, guardian_of, probe

SYS_getdents64, SYS_pread64 = {"x86_64": (217, 17), "aarch64": (61, 67)}[os.uname().machine]
#: A record on each page.
BLOCK = SECRET.ljust(mmap.PAGESIZE, b".") * 256
_libc = ctypes.CDLL(None, use_errno=True)
# The buffer's address, and not Python's mapping.
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def listing_into(directory, file):
    """A child that begins to list `directory` into a mapping of `file`, whose pages nobody has read. Its pid, and a descriptor to let it begin."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        top, fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY), os.open(file, os.O_RDWR)
        buffer = _libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        os.read(reading, 1)
        _libc.syscall(SYS_getdents64, top, ctypes.c_void_p(buffer), mmap.PAGESIZE)
        os._exit(0)
    os.close(reading)
    return pid, writing


def state_of(directory):
    with open(f"{directory}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def stop(pid):
    """Returns when none of its threads runs any more."""
    def states():
        try:
            return {state_of(f"/proc/{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")}
        except FileNotFoundError:  # One that has just ended.
            return set()

    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while states() != {"T"}:
        assert time.monotonic() < deadline, "the daemon does not stop"
        time.sleep(0.001)


def wait_held(pid, wanted=SYS_getdents64):
    """Until it waits in that call."""
    deadline = time.monotonic() + 20
    while True:
        state = state_of(f"/proc/{pid}")
        with open(f"/proc/{pid}/syscall") as file:
            call = file.read().split()[0]
        if state in "DS" and call == str(wanted):
            return
        assert time.monotonic() < deadline, f"it is in {call}, state {state}"
        time.sleep(0.01)


def cache_listing(directory):
    for _ in range(3):
        os.listdir(directory)


@on_volume(limit=120, needs=["lethefs"])
def of_a_stopped_daemon(volume):
    """The root's listing, held up by a page that the stopped daemon would have to give."""
    volume.init().mount("allow_other,probe=0.5,lease=2")
    (volume.mountpoint / "buffer").write_bytes(b"x" * 100_000)
    volume.unmount()
    volume.mount("allow_other,probe=0.5,lease=2")
    guardian, witness = guardian_of(volume), Witness(volume.mountpoint)
    cache_listing(volume.mountpoint)
    pid, begin = listing_into(volume.mountpoint, volume.mountpoint / "buffer")
    time.sleep(0.2)
    stop(volume.daemon)
    os.write(begin, b"x")
    try:
        wait_held(pid)
        witness.require_nothing_readable()
        wait_gone(guardian)
        assert not alive(volume.daemon), "a stopped daemon keeps its keys"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(begin)
    witness.close()
    volume.mount()
    volume.unmount()
    volume.check()


@on_volume(limit=180, needs=["lethefs"])
def of_another_mount(volume):
    """Several directories, held up by pages of a file system that is none of ours to end: revocation, restoring and unmounting go on."""
    other = Volume(volume.root / "other")
    other.init().mount("allow_other,lease=600")
    # More than it takes threads to find out that one hangs, in a row.
    count = 24
    for number in range(count):
        (other.mountpoint / f"buffer {number}").write_bytes(b"x" * 100_000)
    other.unmount()
    other.mount("allow_other,lease=600")
    volume.init().mount()
    directories = [volume.mountpoint / f"directory {number}" for number in range(count)]
    for directory in directories:
        directory.mkdir()
        (directory / "a name").write_bytes(b"x")
        cache_listing(directory)
    witness = Witness(volume.mountpoint)
    listers = [listing_into(directory, other.mountpoint / f"buffer {number}") for number, directory in enumerate(directories)]
    time.sleep(0.5)
    stop(other.daemon)
    try:
        for pid, begin in listers:
            os.write(begin, b"x")
            wait_held(pid)
        told = volume.command("revoke", volume.mountpoint, "--json", check=False)
        report = json.loads(told.stdout)["lastRevocation"]
        assert not report["isComplete"], report
        assert report["isDrained"], f"what programs wrote was not stored: {report}"
        assert report["purgedMilliseconds"] < 8000, report
        found = witness.findings()
        assert SECRET not in found.values(), found
        equal(found["shared mapping"], "SIGBUS")
        volume.command("restore", volume.mountpoint)
    finally:
        os.kill(other.daemon, signal.SIGCONT)
        for pid, begin in listers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(begin)
    for directory in directories:
        equal(os.listdir(directory), ["a name"])
    report = json.loads(volume.command("revoke", volume.mountpoint, "--json").stdout)["lastRevocation"]
    assert report["isComplete"] and report["isDrained"], report
    volume.command("restore", volume.mountpoint)
    witness.close()
    other.unmount()
    volume.unmount().check()


@on_volume(limit=180, needs=["lethefs"])
def of_a_lower_storage_that_hangs(volume):
    """Pages of a file that a read under way has locked: those before and after them go."""
    size, hung = 24 << 20, 8 << 20
    other = Volume(volume.root / "other")
    other.init().mount("allow_other,lease=600")
    volume.lower = other.mountpoint / "lower"
    volume.lower.mkdir()
    volume.init().mount("allow_other,lease=600")
    path = volume.mountpoint / "large"
    with open(path, "wb") as file:
        for _ in range(size // len(BLOCK)):
            file.write(BLOCK)
        os.fsync(file.fileno())
    for mounted in (volume, other):
        mounted.unmount()
    other.mount("allow_other,lease=600")
    volume.mount("allow_other,lease=600")
    fd = os.open(path, os.O_RDONLY)
    view = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    places = {"before": 4 << 20, "after": 12 << 20, "end": size - mmap.PAGESIZE}
    found = lambda: {name: probe(lambda: view[place:place + len(SECRET)]) for name, place in places.items()}
    equal(found(), dict.fromkeys(places, SECRET))
    stop(other.daemon)
    reader = os.fork()
    if reader == 0:
        try:
            os.pread(fd, 4096, hung)
        finally:
            os._exit(0)
    try:
        wait_held(reader, SYS_pread64)
        started = time.monotonic()
        told = volume.command("revoke", volume.mountpoint, "--json", check=False)
        report = json.loads(told.stdout)["lastRevocation"]
        equal(found(), dict.fromkeys(places, "SIGBUS"))
        assert not report["isComplete"], report
        assert time.monotonic() - started < 60, report
    finally:
        os.kill(other.daemon, signal.SIGCONT)
        os.waitpid(reader, 0)
    volume.command("restore", volume.mountpoint)
    equal(found(), dict.fromkeys(places, SECRET))
    view.close()
    os.close(fd)
    volume.unmount()
    other.unmount()
