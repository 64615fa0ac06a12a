"""A zone is revoked: nothing of it can be read by any path, nothing acknowledged is lost, and it comes back without a remount."""

import errno
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

from harness import equal, on_volume, raises
from harness.process import Failed, alive
from harness.scene import Scene
from harness.tokens import FaultyModule, keys_of

CKR_DEVICE_REMOVED = 0x32


def state(volume, zone=0):
    told = json.loads(volume.command("status", volume.mountpoint, "--json").stdout)
    return next(one["condition"] for one in told["zones"] if one["zone"] == zone)


def wait_state(volume, wanted, zone=0, limit=60):
    deadline = time.monotonic() + limit
    while (now := state(volume, zone))["state"] != wanted:
        if time.monotonic() > deadline:
            raise Failed(f"zone {zone} is not {wanted} after {limit} s: {now}")
        time.sleep(0.05)
    return now


def scene_of(volume, name="work", **settings):
    directory = volume.mountpoint / name
    directory.mkdir()
    return Scene(directory, **settings)


@on_volume(limit=180, needs=["lethefs"])
def by_command_and_back(volume):
    """`lethefs revoke`: cached pages, open handles, mappings (one mlocked), names, attributes, links, O_DIRECT; then `restore`."""
    volume.init().mount()
    with scene_of(volume) as scene:
        scene.wait_working()
        for _ in range(3):
            report = json.loads(volume.command("revoke", volume.mountpoint, "--json").stdout)["lastRevocation"]
            equal(report["canary"], "refused")
            assert report["isDrained"] and report["isComplete"], report
            assert report["openFiles"] >= 50, report
            scene.wait_refused()
            raises(errno.EKEYREVOKED, os.listdir, scene.directory)
            raises(errno.EKEYREVOKED, os.stat, scene.directory / "small" / "1")
            volume.command("restore", volume.mountpoint)
            scene.wait_working()
            equal(scene.lost(), [], "acknowledged writes lost")
        volume.command("revoke", volume.mountpoint)
        volume.command("restore", volume.mountpoint)
        scene.wait_working()
        equal(scene.lost(), [])
    volume.unmount().check()


@on_volume(limit=180, needs=["lethefs"])
def by_the_token(volume):
    """Another program switches the key off in the token; on again, and everything goes on."""
    volume.init().mount()
    key = keys_of(volume)[0]
    with scene_of(volume) as scene:
        scene.wait_working()
        for _ in range(2):
            key.by_other_program("disable")
            wait_state(volume, "revoked")
            scene.wait_refused()
            key.by_other_program("enable")
            wait_state(volume, "open")
            scene.wait_working()
            equal(scene.lost(), [])
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def unmounted_while_revoked(volume):
    """A revoked volume is unmounted: it was stored before the keys went, so that the next mount finds nothing in doubt."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"x" * 10000)
    volume.command("revoke", volume.mountpoint)
    volume.unmount().mount()
    equal((volume.mountpoint / "file").read_bytes(), b"x" * 10000)
    assert not json.loads(volume.command("status", volume.mountpoint, "--json").stdout)["afterCrash"]
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def killed_while_revoked(volume):
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"y" * 10000)
    volume.command("revoke", volume.mountpoint)
    volume.kill()
    volume.mount()
    equal((volume.mountpoint / "file").read_bytes(), b"y" * 10000)
    volume.unmount().check()


@on_volume(limit=240, needs=["lethefs"])
def one_zone_of_two(volume):
    """Each zone goes and comes back on its own; rename and link across zones give EXDEV; mounts find the zones again."""
    volume.init().mount()
    made = json.loads(volume.command("zone", "create", volume.mountpoint / "ward", "--json").stdout)
    equal(made["status"]["zone"], 1)
    zone = volume.mountpoint / "ward"
    (volume.mountpoint / "outside").write_bytes(b"outside")
    (zone / "inside").write_bytes(b"inside")
    raises(errno.EXDEV, os.rename, zone / "inside", volume.mountpoint / "moved")
    raises(errno.EXDEV, os.link, volume.mountpoint / "outside", zone / "linked")
    (zone / "deep").mkdir()
    os.rename(zone / "inside", zone / "deep" / "inside")
    with Scene(zone / "deep") as inner, scene_of(volume) as outer:
        inner.wait_working()
        outer.wait_working()
        volume.command("revoke", zone)
        inner.wait_refused()
        outer.wait_working()
        equal(state(volume, 0)["state"], "open")
        raises(errno.EKEYREVOKED, os.listdir, zone)
        volume.command("restore", volume.mountpoint, "--zone", "1")
        inner.wait_working()
        volume.command("revoke", volume.mountpoint)
        outer.wait_refused()
        volume.command("restore", volume.mountpoint)
        outer.wait_working()
        inner.wait_working()
        equal(inner.lost() + outer.lost(), [])
    key = keys_of(volume)[1]
    volume.unmount()
    key.by_other_program("disable")
    volume.mount()  # The other zone is there all the same.
    equal((volume.mountpoint / "outside").read_bytes(), b"outside")
    raises(errno.EKEYREVOKED, os.listdir, zone)
    key.by_other_program("enable")
    wait_state(volume, "open", 1)
    equal((zone / "deep" / "inside").read_bytes(), b"inside")
    volume.unmount().check()


@on_volume(limit=240, needs=["lethefs"])
def a_root_that_hangs(volume):
    """C_Decrypt does not return: the zone is closed when its lease ends, with ENOKEY, and comes back when the module does."""
    module = FaultyModule(volume)
    volume.init("--root", module.uri)
    volume.mount("allow_other,probe=0.5,lease=3")
    with scene_of(volume) as scene:
        scene.wait_working()
        module.hang()
        began = time.monotonic()
        told = wait_state(volume, "revoked")
        equal(told["lastRevocation"]["errno"], errno.ENOKEY)
        last = max(scene.wait_refused().values())
        assert last - began < 3 + 20, f"readable for {last - began} s with a lease of 3 s"
        module.hang(False)
        wait_state(volume, "open")
        scene.wait_working()
        equal(scene.lost(), [])
    volume.unmount().check()


@on_volume(limit=240, needs=["lethefs"])
def a_root_that_fails_for_a_while(volume):
    """Errors shorter than the lease are bridged; longer ones are not."""
    module = FaultyModule(volume)
    volume.init("--root", module.uri)
    volume.mount("allow_other,probe=0.5,lease=30")
    with scene_of(volume, small=100, handles=20, mebibytes=4) as scene:
        scene.wait_working()
        module.fail("C_Decrypt", CKR_DEVICE_REMOVED, 4)
        deadline = time.monotonic() + 60
        while (module.control / "inject.C_Decrypt").exists() and time.monotonic() < deadline:
            equal(state(volume)["state"], "open")
            time.sleep(0.1)
        scene.wait_working()
        equal(state(volume)["state"], "open")
    volume.unmount()
    for kind in ("outage", "outage-over"):
        told = volume.command("audit", "show", volume.lower, "--kind", kind).stdout
        equal(len(told.splitlines()), 1, kind)
    volume.mount("allow_other,probe=0.5,lease=2")
    module.fail("C_Decrypt", CKR_DEVICE_REMOVED, 1_000_000)
    equal(wait_state(volume, "revoked")["lastRevocation"]["errno"], errno.ENOKEY)
    module.fail("C_Decrypt", CKR_DEVICE_REMOVED, 0)
    wait_state(volume, "open")
    volume.unmount().check()


@on_volume(limit=300, needs=["lethefs"])
def a_key_that_flaps(volume):
    """Off and on every 100 ms under load: no deadlock, and nothing acknowledged is lost."""
    volume.init().mount("allow_other,probe=0.1,lease=5")
    key = keys_of(volume)[0]
    seconds = 60 if os.environ.get("LETHEFS_TEST_LONG") else 10
    with scene_of(volume, small=100, handles=20, mebibytes=4) as scene:
        scene.wait_working()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for action in ("disable", "enable"):
                key.by_other_program(action)
                time.sleep(0.1)
        wait_state(volume, "open")
        scene.wait_working()
        equal(scene.lost(), [])
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def only_the_owner_may(volume):
    """Another user can neither revoke nor restore."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"z")
    answer = volume.command("revoke", volume.mountpoint, user="nobody", check=False)
    assert answer.returncode != 0, answer
    equal(state(volume)["state"], "open")
    equal((volume.mountpoint / "file").read_bytes(), b"z")
    volume.unmount()


@on_volume(limit=120, needs=["lethefs"])
def times_while_revoked(volume):
    """futimens(2) is let through, and lets no write follow: what it answers about a file is asked again at once."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"a" * 8192)
    fd = os.open(volume.mountpoint / "file", os.O_RDWR)
    equal(os.pread(fd, 2, 0), b"aa")
    volume.command("revoke", volume.mountpoint)
    for _ in range(2):
        try:
            os.utime(fd, (1, 1))
        except OSError as error:
            equal(error.errno, errno.EKEYREVOKED)
        raises(errno.EKEYREVOKED, os.pwrite, fd, b"b" * 4096, 0)
        raises(errno.EKEYREVOKED, os.fstat, fd)
    volume.command("restore", volume.mountpoint)
    equal(os.pread(fd, 8192, 0), b"a" * 8192)
    os.pwrite(fd, b"c" * 4096, 0)
    os.close(fd)
    volume.remount()
    equal((volume.mountpoint / "file").read_bytes(), b"c" * 4096 + b"a" * 4096)
    volume.unmount().check()


PIDS = Path("/sys/fs/cgroup/pids")


@contextmanager
def no_more_threads(pid):
    """The process can start none."""
    group = PIDS / f"lethefs-test-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text("1")
        yield
    finally:
        (group / "pids.max").write_text("max")
        (PIDS / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@on_volume(limit=180, needs=["lethefs"])
def without_another_thread(volume):
    """The daemon can start no thread: the zone is closed when its lease ends all the same, and comes back afterwards."""
    if not (PIDS / "cgroup.procs").exists():
        return
    volume.init().mount("allow_other,probe=0.5,lease=3")
    guardian = json.loads(volume.command("status", volume.mountpoint, "--json").stdout)["guardian"]
    (volume.mountpoint / "file").write_bytes(b"d" * 10000)
    fd = os.open(volume.mountpoint / "file", os.O_RDONLY)
    with no_more_threads(volume.daemon):
        began = time.monotonic()
        while True:
            try:
                equal(os.pread(fd, 1, 0), b"d")
            except OSError as error:
                equal(error.errno, errno.ENOKEY)
                break
            assert time.monotonic() - began < 20, "read without a lease"
            time.sleep(0.05)
        # It answers, by its one thread that listens.
        told = state(volume)
        equal(told["state"], "revoked")
        report = told["lastRevocation"]
        assert report["isComplete"] and report["closedMilliseconds"] < 5000, report
        assert alive(guardian) and alive(volume.daemon)
    wait_state(volume, "open")
    equal(os.pread(fd, 1, 0), b"d")
    os.close(fd)
    volume.unmount().check()
