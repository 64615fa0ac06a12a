"""A volume of `init --integrity names`: files and directories that change names on the lower storage are noticed.

tamper_rollback.contents_exchanged_between_names and .subtrees_exchanged do the same to a volume without it.
"""

import errno
import json
import os
import shutil
from pathlib import Path

from harness import equal, on_volume, raises, run
from harness.layout import Marks

PLACES = "user.lethefs.places"


def made(volume):
    """Two files, two directories with a file each, and a file with two names; unmounted. Path on the mount → on the lower storage."""
    volume.init("--integrity", "names").mount()
    top = volume.mountpoint
    for name in ("first", "second"):
        (top / name).write_bytes(name.encode() * 100)
    for name in ("one", "two"):
        (top / name).mkdir()
        (top / name / "file").write_bytes(name.encode())
    (top / "rest").write_bytes(b"rest")
    os.link(top / "rest", top / "one/rest")
    equal([os.listxattr(path) for path in top.rglob("*")], [[]] * 8)
    marks = Marks()
    for name in ("first", "second", "one/file", "two/file", "one", "two", "rest"):
        marks.mark(top / name)
    volume.unmount()
    return {str(path.relative_to(top)): lower for path, lower in marks.find(volume.lower).items()}


def exchange(volume, one, two):
    os.rename(one, volume.root / "kept")
    os.rename(two, one)
    os.rename(volume.root / "kept", two)


def expect(volume, damaged):
    """`check` names exactly these paths; the rest can be read; the log says what was met."""
    told = json.loads(volume.command("check", volume.lower, "--json", status=1).stdout)
    equal(sorted((one["path"], one["object"]) for one in told["findings"]), [(path, "name") for path in damaged])
    log = "".join(path.read_text() for path in volume.home.rglob("*.log"))
    assert "another's name" in log or "which names are its own" in log, log[-800:]


@on_volume(limit=90, needs=["lethefs"])
def contents_exchanged(volume):
    lower = made(volume)
    exchange(volume, lower["first"], lower["second"])
    volume.mount()
    top = volume.mountpoint
    for name in ("first", "second"):
        raises(errno.EIO, (top / name).read_bytes)
        raises(errno.EIO, os.rename, top / name, top / "third")
        raises(errno.EIO, os.link, top / name, top / "third")
        raises(errno.EIO, os.truncate, top / name, 3)
    equal((top / "rest").read_bytes(), b"rest")
    (top / "new").write_bytes(b"new")
    volume.unmount()
    expect(volume, ["/first", "/second"])
    exchange(volume, lower["first"], lower["second"])
    volume.check()
    volume.mount()
    equal((top / "first").read_bytes(), b"first" * 100)
    volume.unmount()


@on_volume(limit=90, needs=["lethefs"])
def directories_exchanged(volume):
    lower = made(volume)
    exchange(volume, lower["one"], lower["two"])
    volume.mount()
    for name in ("one", "two"):
        raises(errno.EIO, os.listdir, volume.mountpoint / name)
        raises(errno.EIO, (volume.mountpoint / name / "file").read_bytes)
    equal((volume.mountpoint / "rest").read_bytes(), b"rest")
    volume.unmount()
    expect(volume, ["/one", "/two"])


@on_volume(limit=90, needs=["lethefs"])
def moved_within_the_volume(volume):
    """To the name of another file, in the same directory and in another; a second name for it; and over another directory."""
    lower = made(volume)
    second = lower["second"].name
    os.unlink(lower["second"])
    os.link(lower["first"], lower["second"].parent / second)
    os.replace(lower["one/file"], lower["two/file"])
    volume.mount()
    top = volume.mountpoint
    raises(errno.EIO, (top / "second").read_bytes)
    raises(errno.EIO, (top / "two/file").read_bytes)
    equal((top / "first").read_bytes(), b"first" * 100)
    equal(os.listdir(top / "one"), ["rest"])
    # What is damaged can be removed, and made anew.
    (top / "second").unlink()
    (top / "second").write_bytes(b"anew")
    volume.unmount()
    expect(volume, ["/two/file"])


@on_volume(limit=90, needs=["lethefs"])
def attributes_stripped_or_exchanged(volume):
    lower = made(volume)
    values = {name: os.getxattr(path, PLACES) for name, path in lower.items()}
    os.removexattr(lower["one"], PLACES)
    os.removexattr(lower["rest"], PLACES)
    os.setxattr(lower["first"], PLACES, values["second"])
    os.setxattr(lower["second"], PLACES, values["second"][:16] + values["first"][16:])
    os.setxattr(lower["two/file"], PLACES, values["two/file"] + b"!")
    volume.mount()
    top = volume.mountpoint
    raises(errno.EIO, os.listdir, top / "one")
    for name in ("first", "second", "two/file", "rest"):
        raises(errno.EIO, (top / name).read_bytes)
    volume.unmount()
    expect(volume, ["/first", "/one", "/rest", "/second", "/two/file"])
    for name, value in values.items():
        os.setxattr(lower[name], PLACES, value)
    volume.check()


@on_volume(limit=90, needs=["lethefs"])
def a_restore_without_attributes_is_accepted(volume):
    lower = made(volume)
    kept = volume.root / "backup"
    run(["cp", "-dR", "--preserve=mode,ownership,timestamps,links", volume.lower, kept])
    shutil.rmtree(volume.lower)
    os.rename(kept, volume.lower)
    volume.mount()
    raises(errno.EIO, (volume.mountpoint / "first").read_bytes)
    volume.unmount()
    expect(volume, ["/first", "/one", "/rest", "/second", "/two"])
    volume.command("check", volume.lower, "--repair", "--accept-restore")
    volume.check()
    equal(len(os.getxattr(lower["rest"], PLACES)), 48)
    volume.mount()
    equal((volume.mountpoint / "one/rest").read_bytes(), b"rest")
    equal((volume.mountpoint / "two/file").read_bytes(), b"two")
    volume.unmount()
    records = volume.command("audit", "show", volume.lower, "--json").stdout
    assert '"places":"8"' in records.replace(" ", ""), records[-800:]


@on_volume(limit=60, needs=["lethefs"])
def a_crash_is_no_attack(volume):
    """What was made, linked and moved, and flushed by nobody, is there after SIGKILL."""
    volume.init("--integrity", "names").mount()
    top = volume.mountpoint
    held = []
    for number in range(50):
        held.append(open(top / f"file{number}", "wb"))
        os.link(top / f"file{number}", top / f"link{number}")
        os.rename(top / f"file{number}", top / f"moved{number}")
    volume.kill()
    for file in held:
        try:
            file.close()
        except OSError:
            pass
    volume.mount()
    for number in range(50):
        equal((top / f"moved{number}").read_bytes(), (top / f"link{number}").read_bytes())
    volume.unmount().check()


@on_volume(limit=60, needs=["lethefs"])
def no_attributes_no_volume(volume):
    run(["mount", "-t", "ramfs", "none", volume.lower])
    try:
        told = volume.command("init", volume.lower / "volume", "--integrity", "names", status=40)
        assert "extended attributes" in told.stderr, told.stderr
        equal(os.listdir(volume.lower / "volume"), [])
        equal(list(Path(volume.home).iterdir()), [])
        volume.command("init", volume.lower / "volume")
    finally:
        run(["umount", volume.lower])
