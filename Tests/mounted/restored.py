"""A volume that is older than what this host has mounted: told, and accepted by a command of its own."""

import json
import shutil

from harness import equal, on_volume


def status(volume):
    return json.loads(volume.command("status", volume.mountpoint, "--json").stdout)


@on_volume(limit=90, needs=["lethefs"])
def older_volume_is_noticed(volume):
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"old")
    equal(status(volume).get("rolledBackFrom"), None)
    volume.unmount()
    kept = volume.root / "kept"
    shutil.copytree(volume.lower, kept, symlinks=True)
    for _ in range(2):
        volume.mount()
        (volume.mountpoint / "file").write_bytes(b"new")
        volume.unmount()
    volume.check()
    shutil.rmtree(volume.lower)
    shutil.copytree(kept, volume.lower, symlinks=True)
    # It mounts, since a restored backup is needed most when all else is lost; and it is told.
    for _ in range(2):
        volume.mount()
        equal(status(volume)["rolledBackFrom"], 3)
        assert "ROLLED BACK" in volume.command("status", volume.mountpoint).stdout
        equal((volume.mountpoint / "file").read_bytes(), b"old")
        volume.unmount()
        answer = volume.command("check", volume.lower, "--json", status=1)
        findings = json.loads(answer.stdout)["findings"]
        equal([(one["path"], one["object"]) for one in findings], [("/", "volume")])
        shutil.rmtree(volume.lower)
        shutil.copytree(kept, volume.lower, symlinks=True)
    volume.command("check", volume.lower, "--accept-restore")
    volume.check()
    volume.mount()
    equal(status(volume).get("rolledBackFrom"), None)
    shown = volume.command("audit", "show", volume.mountpoint, "--json").stdout.splitlines()
    (record,) = [one for one in map(json.loads, shown) if one["kind"] == "restore-accepted"]
    equal(record["fields"]["seen"], "3")
    volume.unmount().check()


@on_volume(limit=60, needs=["lethefs"])
def other_hosts_in_between_are_no_rollback(volume):
    """This host's record is behind when another one has mounted the volume: that is not told."""
    volume.init().mount().unmount()
    (record,) = (volume.home / "volumes").iterdir()
    known = record.read_bytes()
    volume.mount().unmount()
    volume.mount().unmount()
    record.write_bytes(known)
    volume.check()
    volume.mount()
    equal(status(volume).get("rolledBackFrom"), None)
    volume.unmount()
    volume.mount("allow_other,ro").unmount().check()


@on_volume(limit=90, needs=["lethefs"])
def a_copy_of_a_mounted_volume(volume):
    """Put back, it says that it is mounted, as after a crash: one mount later is noticed, by `check` too; accepted, it is not told again."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"old")
    kept = volume.root / "kept"
    shutil.copytree(volume.lower, kept, symlinks=True)
    for _ in range(2):
        volume.unmount().mount()
    volume.unmount()
    shutil.rmtree(volume.lower)
    shutil.copytree(kept, volume.lower, symlinks=True)
    for _ in range(2):
        findings = json.loads(volume.command("check", volume.lower, "--json", status=1).stdout)["findings"]
        equal([(one["path"], one["object"]) for one in findings], [("/", "volume")])
        volume.mount("allow_other,ro")
        equal(status(volume)["rolledBackFrom"], 3)
        volume.unmount()
    volume.command("check", volume.lower, "--accept-restore")
    volume.check()
    volume.mount()
    equal(status(volume).get("rolledBackFrom"), None)
    volume.unmount().check()
