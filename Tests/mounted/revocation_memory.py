"""After a revocation the daemon's memory is searched for every key that it held before, and for what it has opened."""

import json
import os
import re
import time
from pathlib import Path

from harness import equal, on_volume, spawn, wait_until
from harness.ring import switched

SLOT = 32


def regions(pid):
    """(start, end, flags) of the process's writable mappings."""
    found, current = [], None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
            current = (int(match[1], 16), int(match[2], 16)) if "w" in match[3] else None
        elif line.startswith("VmFlags:") and current:
            found.append((*current, set(line.split()[1:])))
    return found


def contents(pid, start, end):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(start)
        parts = []
        while start < end:
            part = memory.read(min(end - start, 1 << 20))
            if not part:
                break
            parts.append(part)
            start += len(part)
        return b"".join(parts)


def keys_held(pid):
    """Every key in the daemon's arenas: pages that are left out of dumps and emptied in a forked child."""
    held = set()
    for start, end, flags in regions(pid):
        if {"dd", "wf"} <= flags:
            data = contents(pid, start, end)
            slots = {data[at:at + SLOT] for at in range(0, len(data), SLOT)}
            held |= {slot for slot in slots if len(set(slot)) > 8}  # Neither zeros nor text of a PIN.
    return held


def traces(pid, keys):
    """Where the keys are in the daemon's memory: as keys, or at the head of a cipher's key schedule. A line for each key that is."""
    memory = []
    for start, end, flags in regions(pid):
        try:
            memory.append((start, flags, contents(pid, start, end)))
        except OSError:
            continue  # Guard pages.
    found = []
    for key in keys:
        places = [f"{start + at:x} of {'/'.join(sorted(flags))}" for start, flags, part in memory if (at := part.find(key)) >= 0]
        if places:
            found.append(", ".join(places))
    return found


@on_volume(limit=180, needs=["lethefs"])
def no_key_is_left(volume):
    volume.init().mount()
    handles = []
    for number in range(10):
        directory = volume.mountpoint / f"d{number}"
        directory.mkdir()
        (directory / "file").write_bytes(b"contents" * 1000)
        handles.append(open(directory / "file", "r+b", buffering=0))
        handles[-1].read()
    before = keys_held(volume.daemon)
    assert len(before) > 50, f"only {len(before)} keys were found in the daemon's arenas"
    equal(len(traces(volume.daemon, before)), len(before), "keys found by the search while the zone is open")
    volume.command("revoke", volume.mountpoint)
    equal(traces(volume.daemon, before), [], "keys left in the daemon's memory")
    volume.command("restore", volume.mountpoint)
    for handle in handles:
        handle.seek(0)
        equal(handle.read(8), b"contents")
        handle.close()
    volume.unmount().check()


MARK = b"opened, and not to be left:"


def marks(pid, mark=MARK):
    """How many places of the daemon's memory hold what was opened."""
    found = 0
    for start, end, _ in regions(pid):
        try:
            found += contents(pid, start, end).count(mark)
        except OSError:
            continue  # Guard pages.
    return found


#: Bytes of a file, and where its last page of 4096 bytes begins on the lower storage.
SIZE, LAST_PAGE = 100_000, 24 * 4096


def damage_last_page(volume):
    """Of the one large file that there is."""
    stored = max((path for path in volume.lower.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with open(stored, "r+b") as file:
        file.seek(LAST_PAGE + 500)
        byte = file.read(1)
        file.seek(LAST_PAGE + 500)
        file.write(bytes([byte[0] ^ 1]))


def read_damaged_and_revoke(volume):
    """Of the first request all pages but the last are opened before it fails; the kernel asks again for single ones."""
    with open(volume.mountpoint / "file", "rb", buffering=0) as file:
        data = file.read(200_000)
        assert data.startswith(MARK) and len(data) < SIZE, f"{len(data)} bytes were read"
    volume.command("revoke", volume.mountpoint)
    equal(marks(volume.daemon), 0, "places in the daemon's memory that hold what was opened")
    volume.unmount()


def damaged_file(volume):
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes((MARK * SIZE)[:SIZE])
    volume.unmount()
    damage_last_page(volume)


@on_volume(limit=120, needs=["lethefs"])
def nothing_of_a_read_that_failed_is_left(volume):
    damaged_file(volume)
    volume.mount("allow_other,transport=dev-fuse")
    read_damaged_and_revoke(volume)


@on_volume(limit=120, needs=["lethefs", "io_uring"])
def nothing_of_a_read_that_failed_is_left_over_io_uring(volume):
    damaged_file(volume)
    with switched("Y"):
        volume.mount("allow_other,transport=io_uring")
    read_damaged_and_revoke(volume)


#: In every name, attribute value and link target of the following.
NAME, VALUE, TARGET = b"no-name-is-left", b"no value is left", b"no/target/is/left"
LONG = 255


def name(number, length=30):
    return (f"{number}-{NAME.decode()}-" + "x" * LONG)[:length]


def make_tree(top):
    for number in range(12):
        directory = top / name(number) / name(number, LONG)
        directory.mkdir(parents=True)
        for length in (30, LONG):
            file = directory / name(number, length)
            file.write_bytes(MARK * 300)
            for size in (20, 900):
                os.setxattr(file, f"user.{NAME.decode()}.{size}", (VALUE * size)[:size])
        os.setxattr(directory, f"user.{NAME.decode()}", VALUE)
        os.symlink(TARGET.decode(), directory / f"short-{name(number)}")
        os.symlink((TARGET.decode() + "/") * 200, directory / f"long-{name(number)}")


def use_tree(top):
    for place, directories, files in os.walk(top):
        for entry in directories + files:
            path = Path(place, entry)
            for attribute in os.listxattr(path, follow_symlinks=False):
                assert VALUE in os.getxattr(path, attribute, follow_symlinks=False)
            if path.is_symlink():
                assert TARGET.decode() in os.readlink(path)
            elif path.is_file():
                assert path.read_bytes().startswith(MARK)
        for entry in files:
            os.rename(Path(place, entry), Path(place, "y" + entry[1:]))


def nothing_is_left(volume, options):
    volume.init().mount(options)
    top = volume.mountpoint
    make_tree(top)
    use_tree(top)
    volume.command("revoke", top)
    left = {mark: marks(volume.daemon, mark) for mark in (MARK, NAME, VALUE, TARGET)}
    equal(left, dict.fromkeys(left, 0), "places in the daemon's memory that hold what was opened")
    volume.unmount()


@on_volume(limit=120, needs=["lethefs"])
def no_name_value_or_target_is_left(volume):
    nothing_is_left(volume, "allow_other,transport=dev-fuse")


@on_volume(limit=120, needs=["lethefs", "io_uring"])
def no_name_value_or_target_is_left_over_io_uring(volume):
    with switched("Y"):
        nothing_is_left(volume, "allow_other,transport=io_uring")


@on_volume(limit=120, needs=["lethefs"])
def no_key_is_left_of_a_paused_reencryption(volume):
    """It waits in the midst of a tree, with directories before it and around it."""
    volume.init("--cryptoperiods", "none").mount()
    top = volume.mountpoint
    directory = top
    for number in range(5):
        directory = directory / name(number)
        directory.mkdir()
        (directory / "file").write_bytes((MARK * (2 << 20))[:2 << 20])
    volume.unmount().mount()

    def sweeps():
        return json.loads(volume.command("reencrypt", top, "--status", "--json").stdout)["sweeps"]

    volume.command("reencrypt", top, "--background", "--rate", "1")
    wait_until(lambda: any(sweep["passedBytes"] > 0 for sweep in sweeps()), limit=30)
    volume.command("reencrypt", top, "--pause")
    before = keys_held(volume.daemon)
    assert len(before) > 20, f"only {len(before)} keys were found in the daemon's arenas"
    volume.command("revoke", top)
    equal(traces(volume.daemon, before), [], "keys left in the daemon's memory")
    left = {mark: marks(volume.daemon, mark) for mark in (MARK, NAME)}
    equal(left, dict.fromkeys(left, 0), "places in the daemon's memory that hold what was opened")
    volume.unmount()


@on_volume(limit=120, needs=["lethefs"])
def nothing_is_left_of_an_online_check_that_waits(volume):
    """After each MiB for ten seconds."""
    volume.init().mount()
    top = volume.mountpoint
    (top / name(1)).write_bytes((MARK * (4 << 20))[:4 << 20])
    volume.unmount().mount()
    check = spawn([volume.backend.program(), "check", top, "--online", "--rate", "0.1"], env=volume.env)
    try:
        time.sleep(2)
        assert check.poll() is None, "the check has ended"
        volume.command("revoke", top)
        equal(marks(volume.daemon), 0, "places in the daemon's memory that hold what was opened")
        wait_until(lambda: marks(volume.daemon, NAME) == 0, limit=2)
    finally:
        check.kill()
        check.communicate()
    volume.unmount()
