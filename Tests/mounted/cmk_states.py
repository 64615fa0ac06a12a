"""`cmk disable`, `enable`, `destroy`: the token itself refuses, mounts follow at once, states and times are kept; and who would be hit."""

import errno
import json
import os
import subprocess
import sys
import time

from harness import Volume, equal, on_volume, raises, run
from harness.tokens import FaultyModule, keys_of

CKR_ACTION_PROHIBITED = 0x1B

CONTENT = b"a record " * 1000


def command(volume, *words, **settings):
    return volume.command(*words, **settings)


def told(volume, *words, **settings):
    return json.loads(command(volume, *words, "--json", **settings).stdout)


def states(volume, target=None):
    """The states of the first CMK so far."""
    return [entered["state"] for entered in told(volume, "status", target or volume.lower)["zones"][0]["cmks"][0]["history"]]


@on_volume(limit=120, needs=["lethefs"])
def off_and_on_while_mounted(volume):
    volume.init().mount()
    file = volume.mountpoint / "file"
    file.write_bytes(CONTENT)
    fd = os.open(file, os.O_RDONLY)
    os.pread(fd, 10, 0)
    outcome = told(volume, "cmk", "disable", volume.mountpoint)[0]
    raises((errno.EKEYREVOKED,), os.pread, fd, 10, 0)
    raises((errno.EKEYREVOKED,), file.read_bytes)
    equal(outcome["state"], "suspended")
    equal(outcome["usableAtOwner"], False, "SoftHSM2 refuses by itself")
    equal([zone["state"] for zone in outcome["zones"]], ["revoked"])
    assert outcome["zones"][0]["milliseconds"] < 60_000
    equal(told(volume, "cmk", "show", volume.lower)[0]["cmk"]["enabled"], False)
    equal(states(volume), ["active", "suspended"])
    # Again is no new state.
    command(volume, "cmk", "disable", volume.mountpoint)
    text = command(volume, "cmk", "enable", volume.lower).stdout
    assert "open" in text, text
    equal(os.pread(fd, 10, 0), CONTENT[:10])
    equal(states(volume), ["active", "suspended", "active"])
    os.close(fd)
    volume.remount()
    equal(file.read_bytes(), CONTENT)
    equal(states(volume), ["active", "suspended", "active"])
    audited = command(volume, "audit", "show", volume.mountpoint).stdout
    assert audited.count("cmk-disabled") == 2 and audited.count("cmk-enabled") == 1, audited
    shown = command(volume, "cmk", "show", volume.lower).stdout
    assert shown.count("suspended") == 1, shown
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def off_while_not_mounted(volume):
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(CONTENT)
    volume.unmount()
    outcome = told(volume, "cmk", "disable", volume.lower)[0]
    assert "notNoted" not in outcome["zones"][0], outcome
    equal(states(volume), ["active", "suspended"])
    command(volume, "mount", volume.lower, volume.mountpoint, status=23)
    # Nothing can be sealed without the key; it is switched on all the same, and noted then.
    command(volume, "cmk", "enable", volume.lower)
    equal(states(volume), ["active", "suspended", "active"])
    volume.mount()
    equal((volume.mountpoint / "file").read_bytes(), CONTENT)
    volume.unmount().check()


@on_volume(limit=120, needs=["lethefs"])
def by_uri(volume):
    """A bare URI finds the mounts of this host that hang on the key."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(CONTENT)
    record = next((volume.home / "volumes").glob("*.json"))
    trusted = json.loads(record.read_text())["roots"][0]
    outcome = told(volume, "cmk", "disable", trusted)[0]
    equal([zone["state"] for zone in outcome["zones"]], ["revoked"])
    raises((errno.EKEYREVOKED,), (volume.mountpoint / "file").read_bytes)
    equal([zone["state"] for zone in told(volume, "cmk", "enable", trusted)[0]["zones"]], ["open"])
    equal((volume.mountpoint / "file").read_bytes(), CONTENT)


@on_volume(limit=120, needs=["lethefs"])
def destroyed(volume):
    volume.init().mount()
    file = volume.mountpoint / "file"
    file.write_bytes(CONTENT)
    copy = Volume(volume.root / "copy")
    name = told(volume, "cmk", "show", volume.lower)[0]["cmk"]["label"]
    for words in ([], ["--yes", name + "x"], ["--yes", ""]):
        command(volume, "cmk", "destroy", volume.mountpoint, *words, status=64)
    equal(file.read_bytes(), CONTENT)
    os.rmdir(copy.lower)
    run(["cp", "-a", volume.lower, copy.lower])
    outcome = told(volume, "cmk", "destroy", volume.mountpoint, "--yes", name)[0]
    equal([outcome["state"], outcome["zones"][0]["state"]], ["destroyed", "revoked"])
    raises((errno.EKEYREVOKED,), file.read_bytes)
    equal(states(volume), ["active", "destroyed"])
    command(volume, "cmk", "enable", volume.mountpoint, status=22)
    equal(states(volume), ["active", "destroyed"])
    volume.unmount()
    command(volume, "mount", volume.lower, volume.mountpoint, status=22)
    command(volume, "mount", copy.lower, volume.mountpoint, status=22)


def audited(volume, kind):
    return [json.loads(line)["fields"] for line in command(
        volume, "audit", "show", volume.lower, "--kind", kind, "--json").stdout.splitlines()]


@on_volume(limit=180, needs=["lethefs"])
def an_act_that_the_token_refuses(volume):
    """Nothing of it stays noted, the zones stay open, and the audit log has the attempt; a KEK rotation goes on as before."""
    module = FaultyModule(volume)
    volume.init("--root", module.uri).mount()
    file = volume.mountpoint / "file"
    file.write_bytes(CONTENT)
    for target in (volume.mountpoint, volume.lower):
        if target == volume.lower:
            volume.unmount()
        module.fail("C_DestroyObject", CKR_ACTION_PROHIBITED, 1)
        refused = command(volume, "cmk", "destroy", target, "--yes", "cmk", "--json", status=25)
        assert "The key is active now" in refused.stderr, refused.stderr
        equal(json.loads(refused.stdout)[0]["state"], "active")
        equal(states(volume), ["active"])
    equal([(fields["asked"], fields["state"]) for fields in audited(volume, "cmk-change-failed")],
          [("destroyed", "active")] * 2)
    equal(audited(volume, "cmk-destroyed"), [])
    volume.mount()
    equal(file.read_bytes(), CONTENT)
    module.fail("C_SetAttributeValue", CKR_ACTION_PROHIBITED, 1)
    command(volume, "cmk", "disable", volume.mountpoint, status=25)
    equal(states(volume), ["active", "suspended", "active"])
    equal(told(volume, "kek", "rotate", volume.mountpoint)["kek"], 2)
    equal(file.read_bytes(), CONTENT)
    command(volume, "cmk", "destroy", volume.mountpoint, "--yes", "cmk")
    equal(states(volume)[-1], "destroyed")
    raises((errno.EKEYREVOKED,), file.read_bytes)


@on_volume(limit=180, needs=["lethefs"])
def after_a_rotation_the_key_in_use_is_meant(volume):
    """The one before is left alone, and may be gone."""
    volume.init().mount()
    file = volume.mountpoint / "file"
    file.write_bytes(CONTENT)
    command(volume, "cmk", "rotate", volume.mountpoint)
    new, old = keys_of(volume)
    for is_gone in (False, True):
        if is_gone:
            old.by_other_program("destroy")
        outcomes = told(volume, "cmk", "disable", volume.mountpoint)
        equal([zone["state"] for outcome in outcomes for zone in outcome["zones"]], ["revoked"])
        raises((errno.EKEYREVOKED,), file.read_bytes)
        equal([shown["cmk"]["enabled"] for shown in told(volume, "cmk", "show", volume.mountpoint)], [False])
        if not is_gone:
            equal(told(volume, "cmk", "show", old.uri)[0]["cmk"]["enabled"], True, "the former key")
        command(volume, "cmk", "enable", volume.mountpoint)
        equal(file.read_bytes(), CONTENT)
    volume.unmount().check()


@on_volume(limit=180, needs=["lethefs"])
def one_of_two_that_cannot_be_reached(volume):
    """The other one is switched off all the same, and the command says what was not done."""
    first, second = FaultyModule(volume, "first"), FaultyModule(volume, "second")
    volume.init("--root", first.uri, "--root", second.uri, "--policy", "all-of").mount()
    (volume.mountpoint / "file").write_bytes(CONTENT)
    first.fail("C_SetAttributeValue", CKR_ACTION_PROHIBITED, 1_000_000)
    refused = command(volume, "cmk", "disable", volume.mountpoint, "--json", status=25)
    equal([outcome["state"] for outcome in json.loads(refused.stdout)], ["active", "suspended"])
    raises((errno.EKEYREVOKED,), (volume.mountpoint / "file").read_bytes)


@on_volume(limit=180, needs=["lethefs"])
def a_token_with_another_label(volume):
    """The URI given at the mount stands for the CMK from then on, also when the host comes to know others."""
    module = FaultyModule(volume, "before")
    volume.init("--root", module.uri)
    module.relabel("before", "behind")
    command(volume, "mount", volume.lower, volume.mountpoint, "--root", module.uri, "-o", "probe=0.2")
    (volume.mountpoint / "file").write_bytes(CONTENT)
    command(volume, "zone", "create", volume.mountpoint / "zone")
    (volume.mountpoint / "zone" / "file").write_bytes(CONTENT)
    for _ in range(2):
        time.sleep(1)
        for place in (volume.mountpoint, volume.mountpoint / "zone"):
            equal((place / "file").read_bytes(), CONTENT)
        volume.command("unmount", volume.mountpoint)
        volume.command("mount", volume.lower, volume.mountpoint, "-o", "probe=0.2")
    equal([zone["state"] for zone in told(volume, "cmk", "disable", volume.mountpoint)[0]["zones"]], ["revoked"])
    equal([zone["state"] for zone in told(volume, "cmk", "enable", volume.mountpoint)[0]["zones"]], ["open"])


class User:
    """A program with a file open, another one mapped, and its working directory in the mount."""

    def __init__(self, top):
        code = ("import mmap,os,sys; os.chdir(sys.argv[1]); f=open('open file','rb'); g=open('mapped file','r+b'); "
                "m=mmap.mmap(g.fileno(),4096); m[0]; print('ready',flush=True); sys.stdin.read()")
        self.process = subprocess.Popen([sys.executable, "-c", code, str(top)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        equal(self.process.stdout.readline(), b"ready\n")

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


@on_volume(limit=120, needs=["lethefs"])
def dry_run(volume):
    volume.init().mount()
    top = volume.mountpoint
    command(volume, "zone", "create", top / "zone")
    for place in (top, top / "zone"):
        (place / "open file").write_bytes(CONTENT)
        (place / "mapped file").write_bytes(CONTENT)
    users = [User(top), User(top / "zone")]
    try:
        for words in (["cmk", "disable", top / "zone", "--dry-run"], ["revoke", top / "zone", "--dry-run"]):
            told_of = told(volume, *words)
            equal([zone["path"] for zone in told_of["zones"]], ["zone"])
            zone = told_of["zones"][0]
            assert zone["knownInodes"] >= 3 and zone["openFiles"] >= 2, zone
            assert 0 < zone["probeSeconds"] <= zone["leaseSeconds"], zone
            equal([process["pid"] for process in told_of["processes"]], [users[1].process.pid])
            process = told_of["processes"][0]
            assert process["command"].startswith(sys.executable), process
            equal({(use["kind"], use["path"]) for use in process["uses"]},
                  {("file", "zone/open file"), ("file", "zone/mapped file"), ("mapping", "zone/mapped file"), ("cwd", "zone")})
        text = command(volume, "revoke", top, "--dry-run").stdout
        for user in users:
            assert f"pid {user.process.pid} " in text, text
        # Nothing happened.
        equal((top / "zone" / "open file").read_bytes(), CONTENT)
        equal(told(volume, "cmk", "show", top)[0]["cmk"]["enabled"], True)
        # Another user sees what he may, and is told that there is more.
        seen = run([volume.backend.program(), "revoke", top, "--dry-run"], env=volume.env, user="nobody", check=False)
        assert seen.returncode != 0, "another user asks a daemon that is not his"
    finally:
        for user in users:
            user.end()


@on_volume(limit=120, needs=["lethefs"])
def zones_by_what_is_there(volume):
    """A path means the zone of what is there now: roots of zones are renamed, exchanged, and removed as other directories are."""
    volume.init().mount()
    top = volume.mountpoint

    def zone_of(name, verb="revoke"):
        return told(volume, verb, top / name, "--dry-run")["zones"][0]["zone"]

    for name in ("first", "second", "third"):
        command(volume, "zone", "create", top / name)
        (top / name / "file").write_bytes(CONTENT)
    (top / "project").mkdir()
    (top / "project" / "file").write_bytes(CONTENT)
    command(volume, "zone", "assign", top / "project", "--zone", top / "first")
    os.rename(top / "first", top / "old")
    os.rename(top / "second", top / "first")
    os.rename(top / "third", top / "third renamed")
    (top / "third").mkdir()
    os.symlink("first", top / "link")
    expected = {"project": 1, "old": 1, "first": 2, "third renamed": 3, "third": 0, "old/file": 1}
    for name, number in expected.items():
        equal(zone_of(name), number, name)
    refused = volume.command("revoke", top / "link", check=False)
    assert refused.returncode != 0 and "symbolic link" in refused.stderr, refused
    report = told(volume, "revoke", top / "first")["lastRevocation"]
    equal([report["zone"], report["canary"] != "READ"], [2, True])
    for name, is_open in (("first", False), ("old", True), ("project", True), ("third", True)):
        refused = False
        try:
            os.listdir(top / name)
        except OSError as error:
            refused = error.errno == errno.EKEYREVOKED
        equal(refused, not is_open, name)
