"""A manifest outside the lower tree finds files, and trees, that were put back to an earlier time."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path

from harness import equal, on_volume, raises


def lower_file(volume, size):
    """The lower file of one page: its length tells the size (FORMAT §3)."""
    found = [entry for entry in volume.lower.rglob("*") if entry.is_file() and ".lethefs" not in entry.parts
             and entry.stat().st_size == 4096 + size]
    assert len(found) == 1, found
    return found[0]


def findings(volume, status):
    return json.loads(volume.command("check", volume.lower, "--json", status=status).stdout)["findings"]


def put_back(kept, lower):
    shutil.rmtree(lower)
    shutil.copytree(kept, lower, symlinks=True)


@on_volume(limit=90, needs=["lethefs"])
def an_older_file_is_refused(volume):
    volume.init().mount("allow_other,manifest")
    path, other = volume.mountpoint / "record", volume.mountpoint / "other"
    path.write_bytes(b"a" * 1000)
    other.write_bytes(b"b" * 2000)
    volume.unmount()
    lower = lower_file(volume, 1000)
    kept = lower.read_bytes()
    volume.mount()  # It is remembered.
    with open(path, "r+b") as file:
        file.write(b"new")
    volume.unmount()
    findings(volume, 0)
    lower.write_bytes(kept)
    volume.mount()
    raises(errno.EIO, path.read_bytes)
    equal(other.read_bytes(), b"b" * 2000)
    volume.unmount()
    (one,) = findings(volume, 1)
    assert one["path"] == "/record" and "older than the manifest" in one["reason"], one
    # A backup that was put back on purpose.
    volume.command("check", volume.lower, "--accept-restore")
    volume.check()
    volume.mount()
    equal(path.read_bytes(), b"a" * 1000)
    volume.unmount()


@on_volume(limit=90, needs=["lethefs"])
def a_restore_with_damage_is_accepted_but_for_that(volume):
    volume.init().mount("allow_other,manifest")
    old, broken = volume.mountpoint / "old", volume.mountpoint / "broken"
    old.write_bytes(b"a" * 1000)
    broken.write_bytes(b"b" * 2000)
    volume.unmount()
    lower = lower_file(volume, 1000)
    kept = lower.read_bytes()
    volume.mount()
    with open(old, "r+b") as file:
        file.write(b"new")
    volume.unmount()
    lower.write_bytes(kept)
    with open(lower_file(volume, 2000), "r+b") as file:
        file.seek(700)
        file.write(b"!")
    equal(len(findings(volume, 1)), 2)
    volume.command("check", volume.lower, "--accept-restore", status=1)
    (one,) = findings(volume, 1)
    equal(one["path"], "/broken")
    volume.mount()
    equal(old.read_bytes(), b"a" * 1000)
    volume.unmount()


@on_volume(limit=90, needs=["lethefs"])
def removed_files_stay_removed_and_missing_ones_are_told(volume):
    volume.init().mount("allow_other,manifest")
    gone, stays = volume.mountpoint / "gone", volume.mountpoint / "stays"
    gone.write_bytes(b"a" * 1000)
    stays.write_bytes(b"b" * 2000)
    volume.unmount()
    lower = lower_file(volume, 1000)
    kept = lower.read_bytes()
    volume.mount()
    gone.unlink()
    volume.unmount()
    findings(volume, 0)
    lower.write_bytes(kept)
    volume.mount()
    raises(errno.EIO, gone.read_bytes)
    volume.unmount()
    lower.unlink()
    volume.check()
    lower_file(volume, 2000).unlink()
    (one,) = findings(volume, 1)
    assert one["object"] == "manifest" and one["reason"].startswith("1 files"), one
    volume.command("check", volume.lower, "--accept-restore")
    volume.check()


@on_volume(limit=120, needs=["lethefs"])
def a_tree_put_back_is_refused_file_by_file(volume):
    volume.init().mount("allow_other,manifest")
    for number in range(20):
        (volume.mountpoint / f"f{number}").write_bytes(b"x" * 3000)
    volume.unmount()
    kept = volume.root / "kept"
    shutil.copytree(volume.lower, kept, symlinks=True)
    volume.mount()
    for number in range(10):
        (volume.mountpoint / f"f{number}").write_bytes(b"y" * 3000)
    volume.unmount()
    put_back(kept, volume.lower)
    told = findings(volume, 1)
    equal(sorted(one["path"] for one in told), sorted(["/", *(f"/f{number}" for number in range(10))]))
    volume.command("check", volume.lower, "--accept-restore")
    volume.check()


@on_volume(limit=120, needs=["lethefs"])
def crashes_and_rotations_are_no_rollback(volume):
    """kill -9 loses what was not stored of the manifest; nothing that is right is refused for it."""
    volume.init().mount("allow_other,manifest")
    top = volume.mountpoint
    for number in range(30):
        (top / f"f{number}").write_bytes(b"x" * 5000)
    for round_ in range(3):
        descriptor = os.open(top / "held", os.O_RDWR | os.O_CREAT)
        os.pwrite(descriptor, b"z" * 9000, round_ * 9000)
        os.fsync(descriptor)
        for number in range(0, 30, 3):
            (top / f"f{number}").write_bytes(bytes([round_]) * 5000)
        (top / f"f{round_}").unlink()
        (top / f"f{round_}").write_bytes(b"again")
        os.sync()
        os.close(descriptor)
        volume.kill()
        volume.mount()
        for number in range(30):
            (top / f"f{number}").read_bytes()
        equal(len((top / "held").read_bytes()), 9000 * (round_ + 1))
        volume.command("kek", "rotate", volume.mountpoint)
        volume.command("reencrypt", volume.mountpoint)
        volume.command("kek", "retire", volume.mountpoint, str(round_ + 1))
    volume.unmount()
    findings(volume, 0)
    volume.mount().unmount().check()


@on_volume(limit=90, needs=["lethefs"])
def counting_beside_programs_finds_nothing(volume):
    """Headers that change, and files that go, while something reads them all."""
    volume.init().mount("allow_other,manifest")
    top, over, failures = volume.mountpoint, threading.Event(), []

    def write(number):
        path = top / f"{number}"
        path.write_bytes(b"x" * 100)
        with open(path, "r+b", buffering=0) as file:
            os.unlink(path)
            file.write(b"y" * 5000)
            equal(Path(f"/proc/self/fd/{file.fileno()}").read_bytes(), b"y" * 5000, "by a file without a name")
        path.write_bytes(b"z")

    def go_on(number):
        try:
            while not over.is_set():
                write(number)
        except Exception as failure:  # noqa: BLE001  told below
            failures.append(failure)

    writers = [threading.Thread(target=go_on, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(8):
            report = json.loads(volume.command("coverage", volume.mountpoint, "--json").stdout)
            assert all(zone["failed"] == 0 for zone in report["zones"]), report
    finally:
        over.set()
        for writer in writers:
            writer.join()
    equal(failures, [])
    volume.unmount()
    findings(volume, 0)


@on_volume(limit=60, needs=["lethefs"])
def one_that_is_missing_or_edited_is_refused(volume):
    volume.init()
    volume.mount(f"allow_other,manifest={volume.root}/anchor")
    (volume.mountpoint / "file").write_bytes(b"x")
    volume.unmount()
    anchor = volume.root / "anchor"
    whole = anchor.read_bytes()
    equal(anchor.stat().st_mode & 0o777, 0o600)
    for damaged in (whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], whole[:50] + b"\x01" + whole[51:], b"", None):
        anchor.unlink() if damaged is None else anchor.write_bytes(damaged)
        volume.command("mount", volume.lower, volume.mountpoint, check=False)
        assert not os.path.ismount(volume.mountpoint), damaged
    anchor.write_bytes(whole)
    volume.mount()
    equal((volume.mountpoint / "file").read_bytes(), b"x")
    volume.unmount()
    refused = volume.command("mount", "-o", f"manifest={volume.lower}/x", volume.lower, volume.mountpoint, check=False)
    assert "outside" in refused.stderr, refused.stderr
    volume.mount("allow_other,nomanifest").unmount()
    anchor.unlink()
    volume.mount().unmount().check()
