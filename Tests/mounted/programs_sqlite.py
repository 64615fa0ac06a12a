"""SQLite on the mount, in both journal modes: concurrent writers, killed writers, integrity."""

import os
import signal
import sqlite3
import sys
import time

from harness import equal, full_run, on_mount, spawn

WRITER = """
import sqlite3, sys
path, writer, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base = sqlite3.connect(path, timeout=60, isolation_level=None)
base.execute("PRAGMA synchronous=FULL")
for turn in range(count):
    base.execute("BEGIN IMMEDIATE")
    base.execute("INSERT INTO entry(writer, turn, blob) VALUES (?, ?, randomblob(3000))", (writer, turn))
    base.execute("UPDATE total SET n = n + 1")
    base.execute("COMMIT")
    print(turn, flush=True)
"""

MODES = ("wal", "delete", "truncate", "persist")


def create(path, mode):
    base = sqlite3.connect(path)
    equal(base.execute(f"PRAGMA journal_mode={mode}").fetchone()[0], mode, "journal mode")
    base.executescript("CREATE TABLE entry(writer, turn, blob); CREATE TABLE total(n); INSERT INTO total VALUES (0);"
                       "CREATE INDEX by_turn ON entry(turn, writer);")
    base.commit()
    base.close()


def inspect(path):
    base = sqlite3.connect(path, timeout=60)
    equal(base.execute("PRAGMA integrity_check").fetchall(), [("ok",)], f"integrity of {path.name}")
    entries, total = base.execute("SELECT count(*) FROM entry").fetchone()[0], base.execute("SELECT n FROM total").fetchone()[0]
    equal(entries, total, "entries and their count")
    base.close()
    return total


def writer(path, number, count):
    return spawn([sys.executable, "-c", WRITER, path, number, count])


@on_mount(limit=240)
def concurrent_writers(d):
    count = 150 if full_run() else 40
    for mode in MODES:
        path = d / f"{mode}.db"
        create(path, mode)
        children = [writer(path, number, count) for number in range(3)]
        for child in children:
            _, err = child.communicate(timeout=100)
            equal(child.returncode, 0, f"{mode} writer: {err[-400:]}")
        equal(inspect(path), 3 * count, mode)


@on_mount(limit=240)
def killed_writers(d):
    """What a writer said was committed is there after kill -9; the base is sound."""
    for mode in MODES[:2]:
        path = d / f"{mode}.db"
        create(path, mode)
        done = 0
        for round_number in range(8 if full_run() else 3):
            child = writer(path, round_number, 1_000_000)
            for _ in range(5):
                child.stdout.readline()
            time.sleep(0.05 * (round_number % 3))
            os.killpg(child.pid, signal.SIGKILL)
            rest = child.communicate(timeout=20)[0]
            done += 5 + rest.count("\n")
            total = inspect(path)
            assert total >= done, f"{mode}: {done} commits were reported, {total} are there"
            done = total


@on_mount(limit=120)
def vacuum_and_bulk(d):
    base = sqlite3.connect(d / "bulk.db")
    base.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    with base:
        base.executemany("INSERT INTO t(b) VALUES (?)", ((os.urandom(200),) for _ in range(20_000)))
    with base:
        base.execute("DELETE FROM t WHERE a % 3 = 0")
    base.execute("VACUUM")
    base.execute("PRAGMA mmap_size=67108864")
    equal(base.execute("SELECT count(*) FROM t").fetchone()[0], 13_334)
    equal(base.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
    base.close()
