"""Rotation on a real mount: CMKs, KEKs, coverage, retiring; with programs at work, and offline."""

import json
import os
import shutil
import time

from harness import equal, on_volume, run, wait_until
from harness.tokens import FaultyModule

CKR_DEVICE_ERROR = 0x30


def sample(directory, files=24):
    """Files of several sizes, directories, links, attributes, long names; returns contents by path."""
    contents = {}
    for index in range(files):
        parent = directory / f"d{index % 4}"
        parent.mkdir(exist_ok=True)
        path = parent / (f"f{index}" if index % 7 else "long-" * 40 + str(index))
        data = os.urandom((0, 1, 3552, 3553, 40_000, 300_000)[index % 6])
        path.write_bytes(data)
        contents[path.relative_to(directory)] = data
    os.link(directory / "d1/f1", directory / "second name")
    os.symlink("d1/f1", directory / "link")
    os.setxattr(directory / "d2/f2", "user.color", b"green")
    os.setxattr(directory / "d2", "user.kind", b"directory")
    return contents


def verify(directory, contents):
    for path, data in contents.items():
        equal((directory / path).read_bytes(), data, str(path)[-40:])
    equal(os.readlink(directory / "link"), "d1/f1", "link")
    equal(os.getxattr(directory / "d2/f2", "user.color"), b"green", "attribute")
    equal(os.getxattr(directory / "d2", "user.kind"), b"directory", "attribute of a directory")


def answer(volume, *words, **settings):
    return json.loads(volume.command(*words, "--json", **settings).stdout)


def keks(volume, target):
    return {kek["version"]: kek for kek in answer(volume, "coverage", target)["zones"][0]["keks"]}


@on_volume(limit=180, needs=["lethefs"])
def a_new_kek_while_mounted(volume):
    """Everything is wrapped anew; the old version is refused while needed, then destroyed; an old copy of the keyring is useless."""
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top)
    held = open(top / "d0/held", "wb", buffering=0)
    held.write(b"before")
    old = volume.root / "keyring-before"
    shutil.copytree(volume.lower / ".lethefs", old)
    report = answer(volume, "kek", "rotate", top)
    assert report["newKEK"] and not report["newCMK"] and report["kek"] == 2 and report["reencrypted"] == 0, report
    assert report["rewrapped"] >= len(contents) + 4, report
    counts = keks(volume, top)
    equal(counts[1]["files"] + counts[1]["directories"], 0, "what the old version still protects")
    assert counts[1]["mayRetire"] and counts[2]["files"] == len(contents) + 1, counts
    held.write(b", after")
    held.close()
    equal((top / "d0/held").read_bytes(), b"before, after", "a file that was open")
    retired = answer(volume, "kek", "retire", top, "1")
    assert retired["versionKeysDestroyed"] >= 1, retired
    equal(keks(volume, top)[1]["state"], "destroyed", "state")
    verify(top, contents)
    volume.unmount().mount()
    verify(top, contents)
    volume.unmount()
    volume.check()
    # The volume's own directory as it was before: the token has no version key for it any more.
    shutil.move(volume.lower / ".lethefs", volume.root / "keyring-now")
    shutil.copytree(old, volume.lower / ".lethefs")
    refused = volume.command("mount", volume.lower, top, check=False)
    assert refused.returncode == 22, refused
    assert "version key" in refused.stderr, refused.stderr
    shutil.rmtree(volume.lower / ".lethefs")
    shutil.move(volume.root / "keyring-now", volume.lower / ".lethefs")
    volume.mount()
    verify(top, contents)
    volume.unmount()


@on_volume(limit=120, needs=["lethefs"])
def retiring_what_is_needed_is_refused(volume):
    volume.init().mount()
    sample(volume.mountpoint)
    volume.unmount()
    kept = volume.root / "kept"
    paths = [os.path.join(top, name) for top, _, names in os.walk(volume.lower) for name in sorted(names)
             if ".lethefs" not in top and not os.path.islink(os.path.join(top, name))]
    victim = next(path for path in sorted(paths) if os.path.getsize(path) == 4097)
    shutil.copy2(victim, kept)
    answer(volume, "kek", "rotate", volume.lower)
    # A file comes back from a backup with the wrap that it had.
    shutil.copy2(kept, victim)
    refused = volume.command("kek", "retire", volume.lower, "1", check=False)
    equal(refused.returncode, 41, "exit status")
    paths = [line.strip() for line in refused.stderr.splitlines() if line.strip().startswith("/")]
    assert "1 files" in refused.stderr and len(paths) == 1, refused.stderr
    answer(volume, "kek", "rotate", volume.lower)
    for version in "1", "2":
        answer(volume, "kek", "retire", volume.lower, version)
    volume.check()


@on_volume(limit=120, needs=["lethefs"])
def a_new_cmk(volume):
    """Beside the old one, named after it, twice; the old ones are not asked any more."""
    volume.init().mount()
    contents = sample(volume.mountpoint)
    first = answer(volume, "status", volume.mountpoint)["zones"][0]["cmks"][0]["uri"]
    report = answer(volume, "cmk", "rotate", volume.mountpoint)
    assert report["newCMK"] and not report["newKEK"] and report["rewrapped"] == 0, report
    assert len(report["cmks"]) == 1 and report["cmks"][0] != first and "-v2" in report["cmks"][0], report
    volume.unmount()
    answer(volume, "cmk", "rotate", volume.lower)
    volume.mount()
    verify(volume.mountpoint, contents)
    states = [cmk["state"] for cmk in answer(volume, "status", volume.mountpoint)["zones"][0]["cmks"]]
    equal(states, ["deactivated", "deactivated", "active"], "states")
    answer(volume, "kek", "rotate", volume.mountpoint)
    answer(volume, "kek", "retire", volume.mountpoint, "1")
    verify(volume.mountpoint, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=180, needs=["lethefs"])
def a_former_cmk_that_this_host_does_not_know(volume):
    """Version keys beside it are not taken for destroyed: the note stays until a host knows it, and they are."""
    before, after = FaultyModule(volume, "before"), FaultyModule(volume, "after")
    volume.init("--root", before.uri).mount()
    contents = sample(volume.mountpoint, files=6)
    before.fail("C_DestroyObject", CKR_DEVICE_ERROR, 1_000_000)
    old = volume.root / "keyring-before"
    shutil.copytree(volume.lower / ".lethefs", old)
    refused = volume.command("cmk", "rotate", volume.mountpoint, "--root", after.uri, check=False)
    assert refused.returncode != 0 and "The CMK is rotated" in refused.stderr, refused
    told = [json.loads(line) for line in volume.command("audit", "show", volume.mountpoint, "--json").stdout.splitlines()]
    told = [record for record in told if record["kind"] in ("cmk-rotated", "cmk-change-failed")]
    equal([record["kind"] for record in told], ["cmk-rotated", "cmk-change-failed"], "records")
    assert "token=after" in told[0]["fields"]["cmk"] and "token=before" in told[1]["fields"]["cmk"], told
    equal((told[1]["fields"]["asked"], told[1]["zone"]), ("version-keys-destroyed", 0), "what was not done")
    volume.unmount()
    before.fail("C_DestroyObject", CKR_DEVICE_ERROR, 0)
    # This host has known both; another one would not.
    shutil.rmtree(volume.home / "volumes")

    def pending():
        return answer(volume, "reencrypt", volume.mountpoint, "--status")["pending"]

    volume.command("mount", volume.lower, volume.mountpoint, "--root", after.uri, "-o", "allow_other")
    time.sleep(3)
    verify(volume.mountpoint, contents)
    equal(pending(), ["zone 0: destroy unused version keys of KEK v1"], "what waits for the former CMK")
    volume.command("unmount", volume.mountpoint)
    volume.command("mount", volume.lower, volume.mountpoint, "--root", after.uri, "--root", before.uri, "-o", "allow_other")
    wait_until(lambda: not pending())
    volume.command("unmount", volume.mountpoint)
    shutil.rmtree(volume.lower / ".lethefs")
    shutil.move(old, volume.lower / ".lethefs")
    refused = volume.command("mount", volume.lower, volume.mountpoint, check=False)
    equal(refused.returncode, 22, "exit status")


@on_volume(limit=120, needs=["lethefs"])
def a_root_that_is_given_takes_no_other_zones_away(volume):
    """`mount --root` adds to what this host knows; what has moved gives way."""
    one, other = FaultyModule(volume, "one"), FaultyModule(volume, "other")
    volume.init("--root", one.uri).mount()
    volume.command("zone", "create", volume.mountpoint / "ward", "--root", other.uri)
    contents = sample(volume.mountpoint, files=6)
    (volume.mountpoint / "ward/file").write_bytes(b"ward")
    record, = (volume.home / "volumes").glob("*.json")
    moved = volume.root / "moved-pin"
    shutil.copy2(one.pin, moved)
    for root in (one.uri, one.uri.replace(str(one.pin), str(moved)), other.uri):
        volume.unmount()
        volume.command("mount", volume.lower, volume.mountpoint, "--root", root, "-o", "allow_other")
        volume.daemon = volume.pid()
        verify(volume.mountpoint, contents)
        equal((volume.mountpoint / "ward/file").read_bytes(), b"ward", "the other zone")
        roots = json.loads(record.read_text())["roots"]
        equal(len(roots), 2, f"roots {roots}")
    assert any(str(moved) in root for root in roots) and not any(str(one.pin) in root for root in roots), roots
    volume.remount()
    equal((volume.mountpoint / "ward/file").read_bytes(), b"ward", "the other zone")
    verify(volume.mountpoint, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=120, needs=["lethefs"])
def edited_rotation_state_is_an_error(volume):
    """Older pieces of the volume's own directory put back one by one: refused, never a way back to an older key."""
    volume.init().mount()
    contents = sample(volume.mountpoint, files=6)
    volume.unmount()
    old = volume.root / "before"
    shutil.copytree(volume.lower / ".lethefs", old)
    answer(volume, "kek", "rotate", volume.lower)
    answer(volume, "kek", "retire", volume.lower, "1")
    for name in "zones/0", "volume", "state":
        current = (volume.lower / ".lethefs" / name).read_bytes()
        shutil.copy2(old / name, volume.lower / ".lethefs" / name)
        refused = volume.command("mount", volume.lower, volume.mountpoint, check=False)
        assert refused.returncode in (14, 22), (name, refused)
        (volume.lower / ".lethefs" / name).write_bytes(current)
    keyring = volume.lower / ".lethefs/zones/0"
    whole = keyring.read_bytes()
    for offset in range(0, len(whole), 37):
        changed = bytearray(whole)
        changed[offset] ^= 1 << offset % 8
        keyring.write_bytes(changed)
        refused = volume.command("coverage", volume.lower, check=False)
        assert refused.returncode != 0, f"byte {offset}"
    keyring.write_bytes(whole)
    volume.mount()
    verify(volume.mountpoint, contents)
    volume.unmount()
