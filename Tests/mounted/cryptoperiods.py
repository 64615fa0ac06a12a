"""Cryptoperiods on a real mount, with periods of seconds: told, rotated, recorded; the policy is authenticated."""

import json
import shutil
import time

from harness import equal, on_volume
from rotation import answer, sample, verify
from rotation_contents import wait_until, zone


def records(volume, *kinds):
    words = [word for kind in kinds for word in ("--kind", kind)]
    return [json.loads(line) for line in volume.command("audit", "show", volume.lower, "--json", *words).stdout.splitlines()]


@on_volume(limit=180, needs=["lethefs"])
def what_is_due_is_told_rotated_and_recorded(volume):
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top)
    began = time.time()
    policy = answer(volume, "policy", "set", top, "--dek", "16s", "--kek", "16s", "--cmk", "16s", "--warn", "8s",
                    "--automatic", "kek,dek")
    equal(policy["periodSeconds"], {"dek": 16, "kek": 16, "cmk": 16}, "periods")
    equal(policy["revision"], 2, "revision")

    def rotated():
        return {(record["fields"]["type"], record["fields"]["key"]) for record in records(volume, "cryptoperiod-rotated")}

    wait_until(lambda: {("kek", "KEK v1"), ("kek", "metadata key v1"), ("dek", "DEKs")} <= rotated(), limit=90)
    answer(volume, "policy", "set", top, "--preset", "none")
    wait_until(lambda: not zone(volume, top)["pending"])
    warned = records(volume, "cryptoperiod-warning")
    first = {}
    for record in warned:
        assert "failed" not in record["fields"], record
        first.setdefault((record["fields"]["key"], record["fields"]["standing"]), record["sequence"])
    cmk = answer(volume, "status", top)["zones"][0]["cmks"][0]["uri"]
    for key in "KEK v1", "metadata key v1", "DEKs", cmk:
        assert (key, "due soon") in first, (key, first)
    assert (cmk, "overdue") in first, first
    done = {record["fields"]["key"]: record for record in reversed(records(volume, "cryptoperiod-rotated"))}
    for key in "KEK v1", "metadata key v1", "DEKs":
        assert first[key, "due soon"] < done[key]["sequence"], (key, first, done)
        equal(done[key]["fields"]["automatic"], "yes", key)
    counted = zone(volume, top)
    equal(sum(dek["files"] for dek in counted["deks"] if dek["version"] == 1), 0, "files under their first DEK")
    equal(counted["mixed"], 0, "files with several DEKs")
    assert counted["oldestDEK"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)), counted["oldestDEK"]
    for kek in counted["keks"]:
        if kek["state"] != "active":
            equal((kek["files"], kek["directories"]), (0, 0), f"under KEK v{kek['version']}")
    assert counted["keks"][-1]["version"] >= 2, counted["keks"]
    verify(top, contents)
    volume.unmount()
    volume.command("audit", "verify", volume.lower)
    volume.check()


@on_volume(limit=90, needs=["lethefs"])
def without_a_policy_nothing_happens(volume):
    volume.init("--cryptoperiods", "none").mount()
    top = volume.mountpoint
    sample(top, files=6)
    answer(volume, "policy", "set", top, "--dek", "20s", "--warn", "10s")
    wait_until(lambda: records(volume, "cryptoperiod-warning"), limit=40)
    status = answer(volume, "status", top)["cryptoperiods"][0]["items"]
    equal([(item["type"], item["standing"], item["automatic"]) for item in status], [("dek", "due soon", False)], "status")
    equal(status[0]["dueSoon"], 6, "files due soon")
    answer(volume, "policy", "set", top, "--preset", "none")
    told = len(records(volume, "cryptoperiod-warning"))
    time.sleep(12)
    equal(len(records(volume, "cryptoperiod-warning")), told, "warnings")
    equal(records(volume, "cryptoperiod-rotated", "kek-rotated", "reencryption-started"), [], "rotations")
    equal(answer(volume, "status", top)["cryptoperiods"], [], "status")
    equal(zone(volume, top)["deks"][0]["version"], 1, "DEK version")
    volume.unmount()


@on_volume(limit=90, needs=["lethefs"])
def the_policy_is_authenticated(volume):
    """Edited, it is an error; an older one put back is noticed by the host that saw the newer one."""
    volume.init("--cryptoperiods", "pci-dss")
    equal(answer(volume, "policy", "show", volume.lower)["preset"], "pci-dss", "preset")
    description = volume.lower / ".lethefs/volume"
    older = volume.root / "description"
    shutil.copy2(description, older)
    set_ = answer(volume, "policy", "set", volume.lower, "--dek", "90d", "--automatic", "dek")
    equal((set_["periodSeconds"]["dek"], set_["automatic"], set_["revision"]), (90 * 86400, ["dek"], 2), "policy")
    equal(records(volume, "policy-changed")[0]["fields"]["revision"], "2", "record")
    whole = description.read_bytes()
    period = whole.index((90 * 86400).to_bytes(8, "little"))
    for offset in period, period + 3, len(whole) - 1:
        changed = bytearray(whole)
        changed[offset] ^= 0x40
        description.write_bytes(changed)
        equal(volume.command("mount", volume.lower, volume.mountpoint, check=False).returncode, 14, "exit status")
    shutil.copy2(older, description)
    equal(answer(volume, "policy", "show", volume.lower)["revertedFrom"], 2, "reverted from")
    volume.mount()
    status = answer(volume, "status", volume.mountpoint)
    equal(status["policyRevertedFrom"], 2, "reverted from")
    wait_until(lambda: records(volume, "cryptoperiod-warning"), limit=10)
    equal(records(volume, "cryptoperiod-warning")[0]["fields"], {"key": "policy", "reverted-from": "2"}, "record")
    equal(answer(volume, "policy", "set", volume.mountpoint, "--dek", "90d")["revision"], 3, "revision")
    assert "policyRevertedFrom" not in answer(volume, "status", volume.mountpoint)
    for words in (["--dek", "9s"], ["--automatic", "cmk"], ["--warn", "200d"], ["--kek", "2 years"]):
        refused = volume.command("policy", "set", volume.mountpoint, *words, check=False)
        equal(refused.returncode, 64, str(words))
    equal(answer(volume, "policy", "show", volume.mountpoint)["revision"], 3, "revision")
    volume.unmount()
    volume.command("kek", "rotate", volume.lower)
    equal(answer(volume, "policy", "show", volume.lower)["periodSeconds"]["dek"], 90 * 86400, "after a new KEK")
