"""Programs that check their own data, while everything under them is wrapped and encrypted again, over and over."""

import os
import threading
import time

from harness import equal, on_volume, run
from programs_postgres import Server
from rotation import answer
from rotation_contents import zone

#: LETHEFS_TEST_LONG=1: ten minutes instead of seconds.
SECONDS = 600 if os.environ.get("LETHEFS_TEST_LONG") else 8


class Beside(threading.Thread):
    """Runs something in a thread; `finish` gives its result, or raises what it raised."""

    def __init__(self, body):
        super().__init__(daemon=True)
        self.body, self.result, self.failure = body, None, None
        self.start()

    def run(self):
        try:
            self.result = self.body()
        except BaseException as failure:  # Raised where somebody sees it.
            self.failure = failure

    def finish(self):
        self.join()
        if self.failure:
            raise self.failure
        return self.result


def sweep_while(volume, beside):
    """Re-encryptions, every third time after a new KEK, as long as the program runs; how many ended while it did."""
    ended = 0
    while beside.is_alive():
        if ended % 3 == 2:
            answer(volume, "kek", "rotate", volume.mountpoint)
        report = answer(volume, "reencrypt", volume.mountpoint)
        assert report["pending"] == [], report
        ended += beside.is_alive()
        time.sleep(0.2)
    return ended


def all_is_new(volume):
    counted = zone(volume, volume.mountpoint)
    equal((counted["mixed"], counted["failed"], counted["pending"]), (0, 0, []), "coverage")
    newest = max(kek["version"] for kek in counted["keks"])
    for kek in counted["keks"]:
        if kek["version"] != newest:
            equal((kek["files"], kek["directories"]), (0, 0), f"under KEK v{kek['version']}")


@on_volume(limit=SECONDS * 2 + 280, needs=["lethefs"])
def pgbench_does_not_notice(volume):
    volume.init().mount()
    server = Server(volume.mountpoint / "data", volume.root / "sockets")
    server.init()
    server.start()
    server.program("pgbench", "-i", "-q", "-s", "2")
    pgbench = Beside(lambda: server.program("pgbench", "-c", "4", "-j", "2", "-T", SECONDS, limit=SECONDS + 120))
    sweeps = sweep_while(volume, pgbench)
    output = pgbench.finish()
    assert sweeps >= 2, f"{sweeps} sweeps ended while pgbench ran"
    assert "number of failed transactions: 0 " in output, output
    equal(server.value("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM"
                       " pgbench_branches) AND (SELECT sum(delta) FROM pgbench_history) = (SELECT sum(tbalance)"
                       " FROM pgbench_tellers)"), "t", "pgbench's sums agree")
    kept = server.value("SELECT count(*), sum(delta) FROM pgbench_history")
    server.stop("fast")
    server.program("pg_checksums", "--check", "-D", server.data)
    all_is_new(volume)
    volume.remount()
    server.program("pg_checksums", "--check", "-D", server.data)
    server.start()
    equal(server.value("SELECT count(*), sum(delta) FROM pgbench_history"), kept, "history")
    server.stop("fast")
    log = (server.sockets / "log").read_text()
    assert "PANIC" not in log and "could not" not in log, log[-2000:]
    volume.unmount().check()


@on_volume(limit=SECONDS * 2 + 280, needs=["lethefs"])
def fio_reads_what_it_wrote(volume):
    volume.init().mount()
    # Without a state to save: fio would leave it in the directory that the tests were started from.
    words = ["fio", f"--directory={volume.mountpoint}", "--size=16m", "--verify=crc32c", "--verify_fatal=1",
             "--verify_state_save=0", "--thread", "--output-format=terse", "--randseed=7", "--rw=randwrite", "--bsrange=4k-64k", "--blockalign=4k",
             "--name=buffered", "--ioengine=psync", "--fsync=100", "--name=mapped", "--ioengine=mmap"]

    def rounds():
        end, done = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            run([*words[:1], "--do_verify=1", "--verify_backlog=64", *words[1:]], limit=150)
            done += 1
        return done

    fio = Beside(rounds)
    sweeps = sweep_while(volume, fio)
    assert fio.finish() >= 1 and sweeps >= 2, f"{sweeps} sweeps ended while fio ran"
    all_is_new(volume)
    volume.remount()
    run([*words[:1], "--verify_only=1", *words[1:]], limit=150)
    volume.unmount().check()
