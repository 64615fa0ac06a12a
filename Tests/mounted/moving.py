"""A tree goes to another zone while programs use it: `zone create` on a directory that is not empty, and `zone assign`."""

import errno
import json
import mmap
import os
import random
import shutil
import subprocess

from harness import equal, full_run, on_volume, raises
from harness.scene import Scene
from rotation import answer, sample, verify
from rotation_contents import wait_until

KILLS = int(os.environ.get("LETHEFS_KILLS", 20 if full_run() else 5))


def zones(volume):
    """What `coverage` counts, by zone."""
    return {zone["zone"]: zone for zone in answer(volume, "coverage", volume.mountpoint)["zones"]}


def files(zone):
    return sum(kek["files"] for kek in zone["keks"])


def arrived(volume, number, source, count):
    """Everything is the zone's, under new DEKs; the source has none of it."""
    counted = zones(volume)
    there, here = counted[number], counted[source]
    equal((there["failed"], here["failed"]), (0, 0), f"not counted: {there['failures']} {here['failures']}")
    equal(files(there), count, "files in the zone")
    equal(there["mixed"], 0, "files with several DEKs")
    equal(sum(dek["files"] for dek in there["deks"] if dek["version"] == 1), 0, "files under the DEKs of before")
    equal((there["pending"], here["pending"]), ([], []), "to be done")
    return here


def unwatched(volume, *words):
    """The program, running beside us."""
    environment = {**os.environ, **{name: str(value) for name, value in volume.env.items()}}
    return subprocess.Popen([volume.backend.program(), *map(str, words), "--json"], env=environment,
                            stdout=subprocess.PIPE, text=True)


def largest(lower):
    found = [os.path.join(top, name) for top, _, names in os.walk(lower) for name in names if ".lethefs" not in top]
    return max((path for path in found if not os.path.islink(path)), key=os.path.getsize)


@on_volume(limit=240, needs=["lethefs"])
def a_directory_becomes_a_zone(volume):
    """With programs at work in it. Afterwards each zone is revoked for itself, and what the source's keys opened is not there any more."""
    volume.init().mount()
    top = volume.mountpoint
    tree = top / "tree"
    tree.mkdir()
    contents = sample(tree)
    (tree / "big").write_bytes(os.urandom(5 << 20))
    (top / "outside").write_bytes(b"outside")
    with open(tree / "sparse", "wb") as file:
        file.truncate(4 << 20)
        file.seek(3 << 20)
        file.write(b"after a hole")
    volume.unmount()
    copy = volume.root / "copy"
    shutil.copytree(volume.lower, copy, symlinks=True)
    victim = os.path.relpath(largest(volume.lower), volume.lower)
    volume.mount()
    os.mkfifo(tree / "pipe")
    before = os.stat(tree / "d1/f5")
    held = open(tree / "d0/held", "wb", buffering=0)
    log = open(tree / "log", "ab", buffering=0)
    handle = os.open(tree / "big", os.O_RDWR)
    mapping = mmap.mmap(handle, 5 << 20)
    big = bytearray(mapping[:])
    work = tree / "work"
    work.mkdir()
    with Scene(work, small=100, mebibytes=4) as scene:
        scene.wait_working()
        job = unwatched(volume, "zone", "create", tree)
        lines = 0
        while job.poll() is None:
            data = os.urandom(3000)
            at = int.from_bytes(os.urandom(4), "little") % (len(big) - 3000)
            mapping[at:at + 3000] = data
            big[at:at + 3000] = data
            held.write(b"%8d\n" % lines)
            log.write(b"%8d\n" % lines)
            name = tree / f"made {lines}"
            name.write_bytes(b"made")
            os.rename(name, tree / f"renamed {lines}")
            os.unlink(tree / f"renamed {lines}")
            lines += 1
        made = json.loads(job.stdout.read())
        assert job.returncode == 0, made
        number, moved = made["status"]["zone"], made["moved"]
        assert moved["isFinished"] and moved["source"] == 0 and moved["files"] >= len(contents), moved
        scene.wait_working()
        here = arrived(volume, number, 0, files(zones(volume)[number]))
        equal(files(here), 1, "files that the source still has")
        raises(errno.EXDEV, os.rename, tree / "log", top / "log")
        raises(errno.EXDEV, os.link, top / "outside", tree / "outside")
        volume.command("revoke", tree)
        scene.wait_refused()
        equal((top / "outside").read_bytes(), b"outside", "a file of the other zone")
        volume.command("restore", tree)
        scene.wait_working()
        equal(scene.lost(), [], "what programs had written")
    mapping.flush()
    mapping.close()
    os.close(handle)
    held.close()
    log.close()
    shutil.rmtree(work)
    equal(os.stat(tree / "d1/f5").st_mtime_ns, before.st_mtime_ns, "mtime")
    equal([zone["path"] for zone in answer(volume, "zone", "list", top)], ["", "tree"], "paths of the zones")
    kinds = [json.loads(line)["kind"] for line in volume.command("audit", "show", top, "--json").stdout.splitlines()]
    assert "zone-move-started" in kinds and "zone-moved" in kinds, kinds
    for again in range(2):
        equal((tree / "big").read_bytes(), bytes(big), "big")
        equal(len((tree / "log").read_bytes()), 9 * lines, "log")
        equal(len((tree / "d0/held").read_bytes()), 9 * lines, "held")
        with open(tree / "sparse", "rb") as file:
            file.seek(3 << 20)
            equal(file.read(12), b"after a hole", "sparse")
        verify(tree, contents)
        if again == 0:
            volume.unmount()
            volume.check()
            volume.mount()
    volume.unmount()
    # Whoever has a copy from before, with the source's keys: its header does not open what is there now.
    with open(volume.lower / victim, "rb") as now, open(copy / victim, "r+b") as old:
        now.seek(512)
        old.seek(512)
        old.write(now.read())
    volume.command("mount", copy, top)
    raises(errno.EIO, (tree / "big").read_bytes)
    volume.command("unmount", top)
    volume.command("check", volume.lower)


@on_volume(limit=180 + 20 * KILLS, needs=["lethefs"])
def killed_in_the_middle_it_goes_on_by_itself(volume):
    chance = random.Random(int(os.environ.get("LETHEFS_SEED", "1")))
    volume.init().mount()
    top = volume.mountpoint
    tree = top / "tree"
    tree.mkdir()
    contents = sample(tree, files=120)
    big = os.urandom(6 << 20)
    (tree / "big").write_bytes(big)
    os.sync()
    other = answer(volume, "zone", "create", top / "other")["status"]["zone"]
    volume.unmount().mount()
    target = other
    for number in range(KILLS):
        job = None
        if not answer(volume, "reencrypt", top, "--status")["pending"]:
            with open(os.devnull, "w") as nothing:
                environment = {**os.environ, **{name: str(value) for name, value in volume.env.items()}}
                words = ["zone", "assign", tree, "--zone", target, "--rate", "20"]
                job = subprocess.Popen([volume.backend.program(), *map(str, words)], env=environment, stdout=nothing,
                                       stderr=nothing)
            target = 0 if target else other
        # The conversion takes a moment, the re-encryption longer.
        moment = chance.random() * (0.4 if job else 0.9)
        try:
            if job:
                job.wait(moment)
        except subprocess.TimeoutExpired:
            pass
        volume.kill()
        if job:
            job.wait(30)
        volume.mount()
        equal((tree / "big").read_bytes(), big, f"big, after kill {number + 1}, {moment:.3f} s into it")
        if number % 3 == 2:
            verify(tree, contents)
        if number % 2 == 1:
            wait_until(lambda: not answer(volume, "reencrypt", top, "--status")["pending"], limit=60)
    wait_until(lambda: not answer(volume, "reencrypt", top, "--status")["pending"], limit=120)
    counted = zones(volume)
    total = len(contents) + 1
    equal(sorted([files(counted[0]), files(counted[other])]), [0, total], "files in the zones")
    for zone in counted.values():
        equal((zone["failed"], zone["mixed"]), (0, 0), f"zone {zone['zone']}: {zone['failures']}")
    verify(tree, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=120, needs=["lethefs"])
def from_zone_to_zone(volume):
    """Afterwards the tree hangs on its new zone alone; the old zone's first KEK can go."""
    volume.init().mount()
    top = volume.mountpoint
    ward = top / "ward"
    first = answer(volume, "zone", "create", ward)["status"]["zone"]
    contents = sample(ward)
    second = answer(volume, "zone", "create", top / "archive")["status"]["zone"]
    report = answer(volume, "zone", "assign", ward, "--zone", top / "archive")
    equal((report["zone"], report["source"], report["isFinished"]), (second, first, True), "the report")
    equal(files(arrived(volume, second, first, len(contents))), 0, "files that the source still has")
    volume.command("revoke", top, "--zone", str(first))
    verify(ward, contents)
    volume.command("restore", top, "--zone", str(first))
    volume.command("revoke", ward)
    raises(errno.EKEYREVOKED, os.listdir, ward)
    volume.command("restore", top, "--zone", str(second))
    verify(ward, contents)
    answer(volume, "kek", "rotate", top, "--zone", str(first))
    answer(volume, "kek", "retire", top, "1", "--zone", str(first))
    verify(ward, contents)
    # In the background, and back to the zone around it.
    answer(volume, "zone", "assign", ward, "--zone", "0", "--background")
    wait_until(lambda: not answer(volume, "reencrypt", top, "--status")["pending"])
    arrived(volume, 0, second, len(contents))
    os.rename(ward / "d1/f1", top / "one zone again")
    os.rename(top / "one zone again", ward / "d1/f1")
    verify(ward, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=120, needs=["lethefs"])
def refused(volume):
    volume.init().mount()
    top = volume.mountpoint
    (top / "tree").mkdir()
    contents = sample(top / "tree")
    os.link(top / "tree/d1/f1", top / "outside")
    for _ in range(2):
        answered = volume.command("zone", "create", top / "tree", check=False)
        equal(answered.returncode, 64, "exit status")
        assert "1 files have names outside" in answered.stderr and "/tree/" in answered.stderr, answered.stderr
    equal(len(answer(volume, "zone", "list", top)), 1, "zones")
    os.unlink(top / "outside")
    answered = volume.command("zone", "assign", top, "--zone", "0", check=False)
    assert answered.returncode == 64 and "root of the volume" in answered.stderr, answered
    answered = volume.command("zone", "assign", top / "tree", "--zone", "0", check=False)
    assert answered.returncode == 64 and "that zone already" in answered.stderr, answered
    answered = volume.command("zone", "assign", top / "tree", "--zone", "7", check=False)
    equal(answered.returncode, 64, "exit status")
    moved = answer(volume, "zone", "create", top / "tree")["moved"]
    assert moved["isFinished"], moved
    verify(top / "tree", contents)
    volume.unmount()
    volume.check()
