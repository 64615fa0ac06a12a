"""Programs that open all that they can: they are told EMFILE, and what the daemon needs for itself stays."""

import errno
import json
import os
import time

from harness import equal, on_volume, run
from harness.environment import program

LIMIT = 512


def mount(volume):
    run(["prlimit", f"--nofile={LIMIT}:{LIMIT}", program(), "mount", volume.lower, volume.mountpoint, "-o", "allow_other"],
        env=volume.env)


@on_volume(limit=120, needs=["lethefs"])
def open_files(volume):
    mount(volume.init())
    names = [volume.mountpoint / str(number) for number in range(LIMIT)]
    for name in names:
        name.write_bytes(b"x")
    held = [handle for handle in (attempt(name, os.O_RDONLY) for name in names) if handle is not None]
    try:
        assert len(held) < LIMIT, "nothing was refused: the limit is not the daemon's"
        assert attempt(volume.mountpoint / "new", os.O_CREAT | os.O_RDWR) is None
        assert not (volume.mountpoint / "new").exists(), "a file that could not be opened was made"
        goes_on(volume)
    finally:
        for handle in held:
            os.close(handle)
    assert "revoked" not in log(volume), log(volume)
    (volume.mountpoint / "new").write_bytes(b"new")
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def open_directories(volume):
    """They cost the daemon none, and listings that were left at their beginning but few."""
    mount(volume.init())
    names = [volume.mountpoint / str(number) for number in range(LIMIT)]
    for name in names:
        name.mkdir()
        (name / "inside").write_bytes(b"x")
    held = [os.open(name, os.O_RDONLY | os.O_DIRECTORY) for name in names]
    try:
        for handle in held:
            equal(os.listdir(handle), ["inside"])
        listings = [os.scandir(handle) for handle in held]
        for listing in listings:
            equal(next(listing).name, "inside")
        (volume.mountpoint / "new").write_bytes(b"new")
        for listing in listings:
            equal(list(listing), [])
        goes_on(volume)
    finally:
        for handle in held:
            os.close(handle)
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def read_files_with_page_trees(volume):
    """Each takes another descriptor, for its tree, when it is first read."""
    mount(volume.init("--integrity=tree"))
    names = [volume.mountpoint / str(number) for number in range(LIMIT)]
    for name in names:
        name.write_bytes(b"x" * 20_000)
    volume.unmount()
    mount(volume)
    held = [handle for handle in (attempt(name, os.O_RDONLY) for name in names) if handle is not None]
    try:
        assert len(held) < LIMIT, "nothing was refused: the limit is not the daemon's"
        for handle in held:
            try:
                os.pread(handle, 10, 15_000)
            except OSError as error:
                assert error.errno == errno.EMFILE, error
        goes_on(volume)
    finally:
        for handle in held:
            os.close(handle)
    for name in names:
        equal(name.read_bytes(), b"x" * 20_000)
    assert "revoked" not in log(volume), log(volume)
    volume.unmount().check()


def goes_on(volume):
    """The daemon asks its token every second, which opens files for that, and still answers."""
    time.sleep(4)
    assert state(volume) == "open", (state(volume), log(volume))
    run([program(), "cmk", "show", volume.mountpoint], env=volume.env)


def attempt(path, flags=os.O_RDONLY | os.O_DIRECTORY):
    try:
        return os.open(path, flags)
    except OSError as error:
        assert error.errno == errno.EMFILE, error
        return None


def state(volume):
    told = json.loads(volume.command("status", volume.mountpoint, "--json").stdout)
    told = told[0] if isinstance(told, list) else told
    return told["zones"][0]["condition"]["state"]


def log(volume):
    return "".join(path.read_text() for path in volume.home.rglob("*.log"))
