"""After a revocation the daemon's memory is searched for every key that it held before, and for what it has opened."""

import re
from pathlib import Path

from harness import equal, on_volume
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


def marks(pid):
    """Bytes of the daemon's memory that hold what was opened."""
    found = 0
    for start, end, _ in regions(pid):
        try:
            found += contents(pid, start, end).count(MARK)
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
