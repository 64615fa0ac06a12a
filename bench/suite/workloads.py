"""The loads, in steps. Each gets a mounted system and gives figures: {name: value}."""

import json
import os
import random
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from harness.process import run

MEBI = 1 << 20
#: No measured command may take longer, whatever the scale.
LIMIT_SECONDS = 240


@dataclass
class Figure:
    """What is printed of a figure. `target` is how many times as good as the better of gocryptfs and securefs it is to be, and `floor`
    the same of the pass-through."""
    title: str
    unit: str
    more_is_better: bool = True
    target: float | None = None
    floor: float | None = 0.8


FIGURES = {
    "seq_write": Figure("sequential write", "MB/s", target=1.3),
    "seq_read": Figure("sequential read", "MB/s", target=1.2),
    "rand_read_1": Figure("random 4 KiB read, 1 job", "IOPS", target=1.0),
    "rand_read_4": Figure("random 4 KiB read, 4 jobs", "IOPS", target=1.8),
    "rand_write_1": Figure("random 4 KiB write, 1 job", "IOPS", target=1.8),
    "rand_write_4": Figure("random 4 KiB write, 4 jobs", "IOPS", target=1.8),
    "write_512": Figure("512-byte writes", "MB/s", target=6.0),
    "datasync": Figure("4 KiB write + fdatasync", "IOPS", target=1.0),
    "mmap_read": Figure("mapped read", "MB/s"),
    "create": Figure("create 1 KiB files", "/s", floor=0.9),
    "readdir": Figure("list them", "s", False, floor=0.9),
    "stat": Figure("stat them", "/s", floor=0.9),
    "cold_open": Figure("cold open and read", "/s", floor=0.9),
    "rename": Figure("rename them", "/s", floor=0.9),
    "unlink": Figure("unlink them", "/s", floor=0.9),
    "untar": Figure("untar", "s", False, target=1.3),
    "find": Figure("find, with stat", "s", False, target=1.3, floor=0.9),
    "tar_read": Figure("tar read", "s", False, target=1.3),
    "git_status": Figure("git status", "s", False, floor=0.9),
    "rm": Figure("rm -r", "s", False, target=1.7, floor=0.9),
    "sqlite": Figure("SQLite, 100 transactions", "s", False, target=1.0),
    "pgbench": Figure("pgbench", "tps"),
    "cpu_write": Figure("daemon CPU per GiB written", "s", False, target=1.0, floor=None),
    "cpu_read": Figure("daemon CPU per GiB read", "s", False, target=1.0, floor=None),
    "idle_memory": Figure("daemon memory, idle", "MiB", False, floor=None),
    "later_memory": Figure("daemon memory, idle after that", "MiB", False, floor=None),
    "peak_memory": Figure("daemon memory, peak", "MiB", False, floor=None),
}


@dataclass
class Bench:
    """What a load needs beside its system."""
    worker: Path
    tarball: Path
    scale: float
    files: int = field(init=False)

    def __post_init__(self):
        self.files = max(200, int(20_000 * self.scale))

    def bytes(self, mebibytes):
        return max(4, int(mebibytes * self.scale)) * MEBI

    def work(self, *words):
        """Runs the worker; returns (seconds, operations)."""
        answer = json.loads(run([self.worker, *words], limit=LIMIT_SECONDS).stdout)
        (phase,) = answer.values()
        return phase["seconds"], phase["operations"]


def timed(argv, **settings):
    start = time.monotonic()
    run(argv, limit=LIMIT_SECONDS, **settings)
    return time.monotonic() - start


def processor_time(system, name, total, measure):
    """With the daemon's processor time for each GiB."""
    before = system.cpu_now()
    figures = measure()
    if system.pid:
        figures[name] = (system.cpu_now() - before) / (total / 2**30)
    return figures


def write_big(system, bench):
    total, path = bench.bytes(512), system.top / "big"

    def measure():
        return {"seq_write": total / 1e6 / bench.work("write", path, total, MEBI)[0]}
    return processor_time(system, "cpu_write", total, measure)


def read_big(system, bench):
    total, path = bench.bytes(512), system.top / "big"

    def measure():
        return {"seq_read": total / 1e6 / bench.work("read", path, MEBI)[0]}
    return processor_time(system, "cpu_read", total, measure)


def map_big(system, bench):
    return {"mmap_read": bench.bytes(512) / 1e6 / bench.work("map", system.top / "big")[0]}


def later_memory(system, bench):
    if not system.pid:
        return {}
    # Longer than it takes until an idle daemon gives memory back.
    time.sleep(12)
    return {"later_memory": system.resident_kib() / 1024}


def random_blocks(jobs, kind):
    """Of 256 MiB in one file, or in several."""
    def measure(system, bench):
        size = bench.bytes(256) // jobs
        blocks = size // 4096 // (2 if kind == "read" else 4)
        seconds, operations = bench.work("random", system.top / f"jobs-{jobs}", jobs, blocks, kind)
        return {f"rand_{kind}_{jobs}": operations / seconds}
    return measure


def make_blocks(jobs):
    def make(system, bench):
        top = system.top / f"jobs-{jobs}"
        if not top.exists():
            top.mkdir()
            for job in range(jobs):
                bench.work("write", top / f"job-{job}", bench.bytes(256) // jobs, MEBI)
    return make


def write_small(system, bench):
    total = bench.bytes(32)
    return {"write_512": total / 1e6 / bench.work("write", system.top / "small", total, 512)[0]}


def write_log(system, bench):
    count = max(100, int(2000 * bench.scale))
    seconds, operations = bench.work("write", system.top / "log", count * 4096, 4096, "datasync")
    return {"datasync": operations / seconds}


def files(phase, figure, share=1):
    def measure(system, bench):
        directory = system.top / "files"
        directory.mkdir(exist_ok=True)
        seconds, operations = bench.work("files", directory, bench.files // share, phase)
        return {figure: operations / seconds}
    return measure


def list_files(system, bench):
    start = time.monotonic()
    assert len(os.listdir(system.top / "files")) == bench.files
    return {"readdir": time.monotonic() - start}


def untar(system, bench):
    top = system.top / "tree"
    top.mkdir()
    return {"untar": timed(["tar", "-xf", bench.tarball, "-C", top])}


def find(system, bench):
    return {"find": timed(["find", system.top / "tree", "-printf", "%s\\n"])}


def tar_read(system, bench):
    # Not to /dev/null: tar would notice, and read nothing.
    return {"tar_read": timed(["sh", "-c", f"tar -cf - -C '{system.top / 'tree'}' . | cat > /dev/null"])}


def git(system, *words):
    options = ["-c", "gc.auto=0", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", system.top / "tree"]
    return timed(["git", *options, *words], env={"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"})


def commit(system, bench):
    git(system, "init", "-q")
    git(system, "add", "-A")
    git(system, "commit", "-q", "-m", "tree")


def remove(system, bench):
    return {"rm": timed(["rm", "-r", system.top / "tree"])}


SQLITE = """
import sqlite3, sys, time
base = sqlite3.connect(sys.argv[1])
base.execute("create table t (a integer primary key, b text)")
base.commit()
start = time.monotonic()
for number in range(100):
    base.executemany("insert into t (b) values (?)", [(f"row {number} {i}" * 8,) for i in range(10)])
    base.commit()
print(time.monotonic() - start)
"""


def sqlite(system, bench):
    answer = run([sys.executable, "-c", SQLITE, system.top / "base.db"], limit=LIMIT_SECONDS)
    return {"sqlite": float(answer.stdout)}


def postgres():
    """The newest PostgreSQL's programs; `None` without any."""
    return next((place for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
                 if (place / "initdb").exists()), None)


def pgbench(system, bench):
    """A cluster below the mount, by its own user."""
    system.top.chmod(0o755)
    binary, data = postgres(), system.top / "postgres"
    data.mkdir()
    run(["chown", "postgres:", data])
    socket = system.home / "socket"
    socket.mkdir(exist_ok=True)
    run(["chown", "postgres:", socket])
    system.root.chmod(0o755)
    run([binary / "initdb", "-D", data, "-A", "trust", "--no-sync"], user="postgres", limit=LIMIT_SECONDS)
    options = f"-k {socket} -c listen_addresses='' -c shared_buffers=16MB"
    run([binary / "pg_ctl", "-D", data, "-w", "-l", socket / "log", "-o", options, "start"], user="postgres", limit=60)
    try:
        client = ["-h", str(socket), "-U", "postgres", "postgres"]
        run([binary / "pgbench", "-i", "-q", "-s", "2", *client], user="postgres", limit=LIMIT_SECONDS)
        seconds = max(3, int(10 * bench.scale))
        answer = run([binary / "pgbench", "-c", "4", "-T", str(seconds), *client], user="postgres", limit=LIMIT_SECONDS)
    finally:
        run([binary / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop"], user="postgres", check=False, limit=60)
    rate = next(line for line in answer.stdout.splitlines() if line.startswith("tps ="))
    return {"pgbench": float(rate.split()[2])}


def memory(system, bench):
    """Idle: some seconds after the first use."""
    if not system.pid:
        return {}
    os.listdir(system.top)
    time.sleep(2)
    return {"idle_memory": system.resident_kib() / 1024}


@dataclass
class Step:
    """What is measured by itself: gives figures, {name: value}. `prepare` is not measured."""
    measure: Callable
    #: On a mount that knows nothing.
    is_cold: bool = False
    prepare: Callable | None = None

    def run(self, system, bench):
        if self.prepare:
            self.prepare(system, bench)
        if self.is_cold:
            system.remount()
        return self.measure(system, bench)


#: In this order; each workload on an empty tree, each of its steps in what those before it left.
WORKLOADS = {
    "memory": {"idle_memory": Step(memory)},
    "sequential": {
        "seq_write": Step(write_big), "seq_read": Step(read_big, True), "mmap_read": Step(map_big, True),
        "later_memory": Step(later_memory)},
    "random": {
        f"rand_{kind}_{jobs}": Step(random_blocks(jobs, kind), True, make_blocks(jobs)) for jobs in (1, 4) for kind in ("read", "write")},
    "small": {"write_512": Step(write_small), "datasync": Step(write_log)},
    "files": {
        "create": Step(files("create", "create")), "readdir": Step(list_files, True), "stat": Step(files("stat", "stat"), True),
        "cold_open": Step(files("open", "cold_open", 2), True), "rename": Step(files("rename", "rename"), True),
        "unlink": Step(files("unlink", "unlink"))},
    "tree": {
        "untar": Step(untar), "find": Step(find, True), "tar_read": Step(tar_read, True),
        "git_status": Step(lambda system, bench: {"git_status": git(system, "status", "--porcelain")}, True, commit),
        "rm": Step(remove, True)},
    "sqlite": {"sqlite": Step(sqlite)},
    "pgbench": {"pgbench": Step(pgbench)},
}


def make_tarball(path, scale):
    """A tree like a source archive: some thousand files, most small, always the same."""
    chance = random.Random(7)
    directories = [f"d{number}" for number in range(12)]
    for number in range(max(20, int(600 * scale))):
        directories.append(f"{chance.choice(directories)}/sub{number}")
    with tarfile.open(path, "w") as archive:
        for directory in directories:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for number in range(max(200, int(8000 * scale))):
            size = min(400_000, int(chance.lognormvariate(8, 1.4)))
            entry = tarfile.TarInfo(f"{chance.choice(directories)}/file-{number}.c")
            entry.size, entry.mode = size, 0o644
            archive.addfile(entry, BytesIO(chance.randbytes(size)))
