"""After a revocation the daemon's memory is searched for every key that it held before."""

import re
from pathlib import Path

from harness import equal, on_volume

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
