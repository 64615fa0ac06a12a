"""Programs at work in a directory that is about to be revoked: ../prober.c, and what is found afterwards."""

import errno
import os
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .environment import work_root
from .process import Failed, run, spawn

RECORD, PAGE, WINDOW = 64, 4096, 16384
#: What a program may get of a zone that is closed; EFAULT is the prober's word for SIGBUS.
REFUSALS = {errno.EKEYREVOKED, errno.ENOKEY, errno.EFAULT}
READS = ["cached", "mapped-shared", "mapped-private", "mapped-locked", "open", "directory", "open-directory", "attribute",
         "link", "direct", "status"]
WRITES = ["append", "synced", "pages"]


def compiled(source: Path, *flags, libraries=()) -> Path:
    """A C program or module of the tests, compiled once into the work directory."""
    target = Path(work_root()) / (source.stem + (".so" if "-shared" in flags else ""))
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        run(["gcc", "-O2", "-Wall", *flags, "-o", partial, source, "-pthread", *libraries], limit=120)
        os.chmod(partial, 0o755)
        partial.rename(target)
    return target


@dataclass
class Way:
    """One way to the data, as the prober counts it. `last` is of time.monotonic(), in seconds."""
    last: float
    good: int
    bad: int
    error: int


class Scene:
    """Files, open handles and running programs in `directory`. `small`, `handles`: counts; `mebibytes` of cached plaintext."""

    def __init__(self, directory: Path, small=200, handles=50, mebibytes=16):
        self.directory = directory
        (directory / "small").mkdir()
        for number in range(max(small, 100)):
            (directory / "small" / str(number)).write_bytes(b"small file %d\n" % number)
        with open(directory / "cached", "wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
        (directory / "locked").write_bytes(os.urandom(16 * PAGE))
        (directory / "attr").write_bytes(b"attr")
        os.setxattr(directory / "attr", "user.secret", b"attribute")
        os.symlink("cached", directory / "link")
        self.handles = [os.open(directory / "small" / str(number), os.O_RDONLY) for number in range(min(handles, small))]
        for entry in os.scandir(directory / "small"):
            entry.stat()
        program = compiled(Path(__file__).resolve().parent.parent / "prober.c")
        self.prober = spawn([program, directory], stdin=subprocess.PIPE, stderr=None)
        if self.prober.stdout.readline() != "ready\n":
            raise Failed("the prober did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.prober.poll() is None:
            self.prober.kill()
            self.prober.wait()
        for handle in self.handles:
            os.close(handle)
        self.handles = []

    def ask(self) -> dict[str, Way]:
        self.prober.stdin.write("r\n")
        self.prober.stdin.flush()
        ways = {}
        while (line := self.prober.stdout.readline()) != ".\n":
            if not line:
                raise Failed(f"the prober died: {self.prober.poll()}")
            name, last, good, bad, error = line.split()
            ways[name] = Way(int(last) / 1e9, int(good), int(bad), int(error))
        return ways

    def wait_working(self, limit=60):
        """Every way leads to the data again."""
        before, deadline = self.ask(), time.monotonic() + limit
        while True:
            ways = self.ask()
            idle = [name for name in ways if ways[name].good < before[name].good + 3]
            if not idle:
                return
            if time.monotonic() > deadline:
                raise Failed(f"not working after {limit} s: " + ", ".join(
                    f"{name} ({os.strerror(ways[name].error)})" for name in idle))
            time.sleep(0.02)

    def wait_refused(self, limit=60, quiet=0.3):
        """No way leads to the data for `quiet` seconds; returns when the last one did, by way."""
        deadline = time.monotonic() + limit
        while True:
            ways = self.ask()
            now = time.monotonic()
            if all(now - way.last > quiet for way in ways.values()):
                break
            if now > deadline:
                raise Failed("still readable: " + ", ".join(
                    name for name, way in ways.items() if now - way.last <= quiet))
            time.sleep(0.02)
        wrong = {name: os.strerror(way.error) for name, way in ways.items() if way.error not in REFUSALS}
        if wrong:
            raise Failed(f"refused with the wrong errors: {wrong}")
        for handle in self.handles:
            try:
                os.pread(handle, 1, 0)
            except OSError as error:
                if error.errno in REFUSALS:
                    continue
                raise
            raise Failed("an open handle still reads")
        return {name: way.last for name, way in ways.items()}

    def lost(self) -> list[str]:
        """Acknowledged writes that are not there. The programs may go on meanwhile: what counts is what was acknowledged before."""
        ways = self.ask()
        lost = []
        for name in ("append", "synced"):
            data = (self.directory / name).read_bytes()
            for number in range(ways[name].good):
                if not data.startswith(b"%020d" % number, number * RECORD):
                    there = data[number * RECORD:number * RECORD + 20]
                    lost.append(f"{name}: record {number} of {ways[name].good} is {there!r} in a file of {len(data)} bytes")
        # The last WINDOW pages may be overwritten by later rounds: each page holds the newest count for its place, or a later one.
        acknowledged = ways["pages"].good
        with open(self.directory / "pages", "rb", buffering=0) as file:
            for number in range(max(0, acknowledged - WINDOW), acknowledged):
                for _ in range(3):  # A page that is being written may be seen half.
                    page = os.pread(file.fileno(), PAGE, number % WINDOW * PAGE)
                    words = set(struct.unpack("<512Q", page)) if len(page) == PAGE else {0}
                    if len(words) == 1:
                        break
                word = min(words)
                if len(words) != 1 or word < number + 1 or (word - number - 1) % WINDOW:
                    lost.append(f"pages: page {number} of {acknowledged} holds {sorted(words)[:3]}")
        return lost
