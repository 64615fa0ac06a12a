"""What an attacker can do to the lower storage without being noticed: docs/SECURITY.md, "What is not protected".

Each case does it, and holds the limit of it: what is read is something authentic that stood in that volume before, never
anything else, and nothing beside it is touched. Where one of them fails, the attack is noticed: then the page is out of date.
"""

import errno
import json
import os
import shutil

from harness import equal, on_volume, raises
from harness.layout import PAGE, PAYLOAD, Marks

#: Where all tests run on volumes of `init --integrity names`, which notice exchanges: see tamper_places.py.
HAS_NAMES = "names" in os.environ.get("LETHEFS_TEST_INTEGRITY", "")


def stored(volume, paths):
    """Unmounts; gives the lower forms of these paths."""
    marks = Marks()
    for path in paths:
        marks.mark(path)
    volume.unmount()
    found = marks.find(volume.lower)
    return [found[path] for path in paths]


@on_volume(limit=60, needs=["sealed", "lethefs"])
def page_put_back(volume):
    """An older version of one page, in its own place, in a file that was not stored anew since."""
    volume.init().mount()
    path = volume.mountpoint / "file"
    path.write_bytes(b"old" * 4000)
    (lower,) = stored(volume, [path])
    page = lower.read_bytes()[PAGE:2 * PAGE]
    volume.mount()
    with open(path, "r+b") as file:
        file.write(b"new" * 4000)
    volume.unmount()
    with open(lower, "r+b") as file:
        file.seek(PAGE)
        file.write(page)
    volume.mount()
    data = path.read_bytes()
    start = PAGE - 512 - 32
    equal(data[start:start + PAYLOAD], (b"old" * 4000)[start:start + PAYLOAD])
    equal(data[:start], (b"new" * 4000)[:start])
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def file_put_back(volume):
    volume.init().mount()
    path, other = volume.mountpoint / "file", volume.mountpoint / "other"
    path.write_bytes(b"old" * 4000)
    other.write_bytes(b"other")
    lower, _ = stored(volume, [path, other])
    shutil.copyfile(lower, volume.root / "kept")
    volume.mount()
    path.write_bytes(b"newer and longer" * 4000)
    other.write_bytes(b"other again")
    volume.unmount()
    shutil.copyfile(volume.root / "kept", lower)
    volume.mount()
    equal(path.read_bytes(), b"old" * 4000)
    equal(other.read_bytes(), b"other again")
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def tree_put_back(volume):
    """The whole lower directory as it was, on a host that knows nothing of the time between (restored.py has one that does)."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"old")
    volume.unmount()
    shutil.copytree(volume.lower, volume.root / "kept", symlinks=True)
    (record,) = (volume.home / "volumes").iterdir()
    known = record.read_bytes()
    volume.mount()
    (volume.mountpoint / "file").write_bytes(b"new")
    volume.unmount()
    for entry in volume.lower.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    shutil.copytree(volume.root / "kept", volume.lower, symlinks=True, dirs_exist_ok=True)
    record.write_bytes(known)
    volume.mount()
    equal((volume.mountpoint / "file").read_bytes(), b"old")
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def contents_exchanged_between_names(volume):
    volume.init().mount()
    first, second = volume.mountpoint / "first", volume.mountpoint / "second"
    first.write_bytes(b"1" * 100)
    second.write_bytes(b"2" * 200)
    lower = stored(volume, [first, second])
    os.rename(lower[0], volume.root / "kept")
    os.rename(lower[1], lower[0])
    os.rename(volume.root / "kept", lower[1])
    volume.mount()
    if HAS_NAMES:
        raises(errno.EIO, first.read_bytes)
        volume.unmount().check(damaged=True)
        return
    equal((first.read_bytes(), second.read_bytes()), (b"2" * 200, b"1" * 100))
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def entry_removed(volume):
    volume.init().mount()
    kept, gone = volume.mountpoint / "kept", volume.mountpoint / "gone"
    kept.write_bytes(b"kept")
    gone.write_bytes(b"gone")
    _, lower = stored(volume, [kept, gone])
    lower.unlink()
    volume.mount()
    equal(os.listdir(volume.mountpoint), ["kept"])
    equal(kept.read_bytes(), b"kept")
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def subtrees_exchanged(volume):
    volume.init().mount()
    for name in "ab":
        (volume.mountpoint / name).mkdir()
        (volume.mountpoint / name / "file").write_bytes(name.encode())
    lower = stored(volume, [volume.mountpoint / "a", volume.mountpoint / "b"])
    os.rename(lower[0], volume.root / "kept")
    os.rename(lower[1], lower[0])
    os.rename(volume.root / "kept", lower[1])
    volume.mount()
    if HAS_NAMES:
        raises(errno.EIO, (volume.mountpoint / "a/file").read_bytes)
        volume.unmount().check(damaged=True)
        return
    equal(((volume.mountpoint / "a/file").read_bytes(), (volume.mountpoint / "b/file").read_bytes()), (b"b", b"a"))
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def pages_of_a_sparse_file_emptied(volume):
    volume.init().mount()
    path = volume.mountpoint / "sparse"
    with open(path, "wb") as file:
        file.write(b"start" * 2000)
        file.seek(20 * PAYLOAD)
        file.write(b"end")
    (lower,) = stored(volume, [path])
    with open(lower, "r+b") as file:
        file.seek(PAGE)
        file.write(bytes(PAGE))
    volume.mount()
    data = path.read_bytes()
    start = PAGE - 512 - 32
    equal(data[start:start + PAYLOAD], bytes(PAYLOAD))
    equal(data[:start], (b"start" * 2000)[:start])
    equal(data[-3:], b"end")
    volume.unmount().check()


@on_volume(limit=60, needs=["sealed", "lethefs"])
def state_of_a_mounted_time_put_back(volume):
    """The next mount believes in a crash: truncation of a file that is older than it goes unnoticed; contents stay authentic."""
    volume.init().mount()
    path = volume.mountpoint / "file"
    path.write_bytes(b"content " * 2000)
    (lower,) = stored(volume, [path])
    volume.mount()
    state = (volume.lower / ".lethefs/state").read_bytes()
    volume.unmount()
    (volume.lower / ".lethefs/state").write_bytes(state)
    os.truncate(lower, 2 * PAGE)
    volume.mount()
    data = path.read_bytes()
    assert 0 < len(data) < 16_000 and data == (b"content " * 2000)[:len(data)], len(data)
    told = json.loads(volume.command("status", volume.mountpoint, "--json").stdout)
    assert told["afterCrash"], told
    volume.unmount()
