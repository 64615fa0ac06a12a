"""Re-encryption and shredding on a real mount."""

import base64
import errno
import hashlib
import json
import os
import shutil
import subprocess
import time

from harness import equal, on_volume, raises, run, wait_until
from rotation import answer, keks, sample, verify


def zone(volume, target):
    return answer(volume, "coverage", target)["zones"][0]


@on_volume(limit=240, needs=["lethefs"])
def contents_while_programs_write(volume):
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top)
    big = bytearray(os.urandom(24 << 20))
    (top / "big").write_bytes(big)
    before = os.stat(top / "d1/f5")
    writer = open(top / "big", "r+b", buffering=0)
    log = open(top / "log", "ab", buffering=0)
    job = subprocess.Popen([volume.backend.program(), "reencrypt", str(top), "--json"],
                           env={**os.environ, **{k: str(v) for k, v in volume.env.items()}}, stdout=subprocess.PIPE, text=True)
    lines = 0
    while job.poll() is None:
        data = os.urandom(5000)
        at = int.from_bytes(os.urandom(4), "little") % (len(big) - 5000)
        os.pwrite(writer.fileno(), data, at)
        big[at:at + 5000] = data
        log.write(b"%8d\n" % lines)
        lines += 1
        if lines % 20 == 0:
            os.fsync(writer.fileno())
    report = json.loads(job.stdout.read())
    assert job.returncode == 0 and report["reencrypted"] >= len(contents), report
    assert not report["newKEK"] and not report["newCMK"], report
    writer.close()
    log.close()
    counted = zone(volume, top)
    equal(counted["mixed"], 0, "files with several DEKs")
    equal(sum(dek["files"] for dek in counted["deks"] if dek["version"] == 1), 0, "files under their first DEK")
    equal(counted["pending"], [], "pending")
    after = os.stat(top / "d1/f5")
    equal(after.st_mtime_ns, before.st_mtime_ns, "mtime")
    volume.unmount().mount()
    equal((top / "big").read_bytes(), bytes(big), "big")
    equal(len((top / "log").read_bytes()), 9 * lines, "log")
    verify(top, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=240, needs=["lethefs"])
def killed_in_the_middle_it_goes_on_by_itself(volume):
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top)
    data = os.urandom(6 << 20)
    (top / "big").write_bytes(data)
    os.sync()
    answer(volume, "reencrypt", top, "--background", "--rate", "4")
    for _ in range(3):
        time.sleep(0.5)
        volume.kill()
        volume.mount()
        equal((top / "big").read_bytes(), data, "big")
    wait_until(lambda: not zone(volume, top)["pending"])
    counted = zone(volume, top)
    equal(counted["mixed"], 0, "files with several DEKs")
    equal(sum(dek["files"] for dek in counted["deks"] if dek["version"] == 1), 0, "files under their first DEK")
    verify(top, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=240, needs=["lethefs"])
def paused_resumed_and_cancelled(volume):
    volume.init().mount()
    top = volume.mountpoint
    (top / "big").write_bytes(os.urandom(8 << 20))
    answer(volume, "reencrypt", top, "--background", "--rate", "1")
    told = []
    wait_until(lambda: told.extend(sweep for sweep in answer(volume, "reencrypt", top, "--status")["sweeps"]
                                   if sweep.get("secondsLeft")) or told, limit=20)
    equal((told[0]["totalFiles"], told[0]["totalBytes"]), (1, 8 << 20), "how much there is")
    assert 0 < told[0]["passedBytes"] < 8 << 20 and 0 < told[0]["secondsLeft"] < 10, told
    paused = answer(volume, "reencrypt", top, "--pause")
    assert all("secondsLeft" not in sweep for sweep in answer(volume, "reencrypt", top, "--status")["sweeps"])
    assert "paused" in paused["pending"][0], paused
    volume.unmount().mount()
    assert "paused" in answer(volume, "reencrypt", top, "--status")["pending"][0]
    answer(volume, "reencrypt", top, "--resume")
    answer(volume, "reencrypt", top, "--cancel")
    equal(answer(volume, "reencrypt", top, "--status")["pending"], [], "pending")
    refused = volume.command("reencrypt", top, "--pause", check=False)
    equal(refused.returncode, 64, "exit status")
    volume.unmount()
    # Offline, to the end.
    report = answer(volume, "reencrypt", volume.lower)
    assert report["reencrypted"] == 1 and report["pending"] == [], report
    volume.check()


@on_volume(limit=240, needs=["lethefs"])
def what_is_cancelled_meanwhile_does_not_begin(volume):
    """Two trees are to be re-encrypted, one after the other. While the first is under way, both are cancelled."""
    volume.init().mount()
    top = volume.mountpoint
    for tree in "a", "b":
        (top / tree).mkdir()
        (top / tree / "big").write_bytes(os.urandom(8 << 20))
        answer(volume, "reencrypt", top / tree, "--background", "--rate", "1")

    def sweeps():
        return answer(volume, "reencrypt", top, "--status")["sweeps"]

    # Both are listed when the daemon looks what there is to do.
    volume.unmount().mount()
    wait_until(lambda: [sweep for sweep in sweeps() if sweep["sealedBytes"]], limit=20)
    equal(answer(volume, "reencrypt", top, "--cancel")["pending"], [], "pending")
    wait_until(lambda: not sweeps(), limit=6)
    for _ in range(20):
        equal(sweeps(), [], "sweeps")
        time.sleep(0.1)
    volume.unmount()
    volume.check()


def certificates_that_were_changed_are_found(volume, signed):
    def findings(change, *words):
        changed = json.loads(json.dumps(signed))
        change(changed)
        file = volume.root / "changed.json"
        file.write_text(json.dumps(changed))
        result = volume.command("certificate", "verify", file, *words, "--json", check=False)
        equal(result.returncode, 1, "exit status")
        report, = json.loads(result.stdout)
        return " ".join(report["findings"])

    def both(name, value):
        def change(changed):
            changed["certificate"]["person"][name] = value
            changed["statement"] = changed["statement"].replace('"host":"%s"' % signed["certificate"]["person"]["host"],
                                                                '"host":"%s"' % value)
        return change

    def text_alone(changed):
        changed["certificate"]["deleted"]["files"] = 22

    def no_signature(changed):
        del changed["signature"]

    def other_key(changed):
        private = volume.root / "forger.pem"
        subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", private], check=True)
        public = subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-outform", "DER"], check=True,
                                capture_output=True).stdout
        volume_bytes = bytes.fromhex(changed["certificate"]["media"]["serialNumber"].replace("-", ""))
        message = b"LETHESIG\x02" + volume_bytes + changed["statement"].encode()
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", private], input=message, check=True,
                                   capture_output=True).stdout
        changed["publicKeys"] = [base64.b64encode(public).decode()]
        changed["key"] = hashlib.sha256(public).hexdigest()
        changed["signature"] = base64.b64encode(signature).decode()

    assert "not the statement" in findings(text_alone)
    assert "does not fit" in findings(both("host", "elsewhere"))
    assert "not signed" in findings(no_signature)
    # Forged with a key of somebody's own: good by itself, and not the volume's.
    assert "not one of the volume's" in findings(other_key, volume.mountpoint)
    changed = json.loads(json.dumps(signed))
    other_key(changed)
    (volume.root / "forged.json").write_text(json.dumps(changed))
    report, = answer(volume, "certificate", "verify", volume.root / "forged.json")
    equal((report["findings"], report["keySource"]), ([], "certificate"), "a forgery by itself")


@on_volume(limit=120, needs=["lethefs"])
def a_shredding_that_a_crash_interrupts_gets_its_certificate(volume):
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top, files=6)
    (top / "tree/busy").mkdir(parents=True)
    (top / "tree/secret").write_bytes(b"to be forgotten" * 100)
    run(["mount", "-t", "tmpfs", "none", top / "tree/busy"])
    try:
        refused = volume.command("shred", top / "tree", check=False)
        equal(refused.returncode, 42, "exit status")
    finally:
        run(["umount", top / "tree/busy"])
    volume.kill()
    volume.mount()
    wait_until(lambda: not zone(volume, top)["pending"])
    wait_until(lambda: list((volume.home / "certificates").glob("*.txt")), limit=10)
    file, = (volume.home / "certificates").glob("*.json")
    report, = answer(volume, "certificate", "verify", file, top)
    assert report["findings"] == [] and report["destroyed"] == [1] and report["keySource"] == "sealed", report
    assert "deleted" not in json.loads(file.read_text())[0]["certificate"], "what was deleted is not known"
    equal(keks(volume, top)[1]["state"], "destroyed", "state")
    verify(top, contents)
    volume.unmount()
    volume.check()


@on_volume(limit=240, needs=["lethefs"])
def shredded_files_open_from_no_copy(volume):
    volume.init().mount()
    top = volume.mountpoint
    contents = sample(top)
    (top / "tree/deep").mkdir(parents=True)
    for index in range(20):
        (top / f"tree/deep/{index}").write_bytes(os.urandom(5000))
    (top / "secret").write_bytes(b"to be forgotten" * 100)
    volume.unmount()
    copy = volume.root / "copy"
    shutil.copytree(volume.lower, copy, symlinks=True)
    volume.mount()
    signed, = answer(volume, "shred", top / "secret", top / "tree", "--certificate", volume.root / "certificate")
    certificate = signed["certificate"]
    files = volume.root / "certificate.json"
    for words in ([files], [files, top]):
        report, = answer(volume, "certificate", "verify", *words)
        assert report["findings"] == [] and report["destroyed"] == [1], report
    equal(report["keySource"], "sealed", "who vouches for the key")
    certificates_that_were_changed_are_found(volume, json.loads(files.read_text())[0])
    assert signed["signature"] and signed["publicKeys"], "the certificate is not signed"
    equal(json.loads(signed["statement"])["deleted"]["files"], 21, "files in the signed text")
    equal(certificate["deleted"]["files"], 21, "files")
    key = certificate["keys"][0]
    assert key["destroyed"] == [1] and key["refused"] == [1] and key["versionKeysDestroyed"] >= 1, key
    equal(certificate["sanitization"]["method"], "Cryptographic Erase", "method")
    assert "Cryptographic Erase" in (volume.root / "certificate.txt").read_text()
    assert not (top / "secret").exists() and not (top / "tree").exists()
    verify(top, contents)
    equal(keks(volume, top)[1]["state"], "destroyed", "state")
    volume.unmount()
    volume.check()
    refused = volume.command("mount", copy, top, check=False)
    equal(refused.returncode, 22, "exit status")
    # The old header in today's volume, and the old keyring in today's volume: neither opens.
    victim = [path for path in copy.iterdir() if not path.is_symlink() and path.is_file()
              and not (volume.lower / path.name).exists()]
    assert len(victim) == 1, victim
    shutil.copy2(victim[0], volume.lower / victim[0].name)
    volume.mount()
    try:
        (top / "secret").read_bytes()
        raise AssertionError("the shredded file opened")
    except OSError:
        pass
    volume.unmount()


@on_volume(limit=180, needs=["lethefs"])
def shredding_a_tree_that_holds_a_zone(volume):
    """Each zone's KEK goes, with a certificate of its own; a zone that is closed is a reason to delete nothing."""
    volume.init().mount()
    top = volume.mountpoint
    (top / "tree").mkdir()
    volume.command("zone", "create", top / "tree/ward")
    volume.command("zone", "create", top / "beside")
    for path in ("tree/secret", "tree/ward/secret", "beside/kept", "kept"):
        (top / path).write_bytes(path.encode() * 100)
    copy = volume.root / "copy"
    volume.unmount()
    shutil.copytree(volume.lower, copy, symlinks=True)
    volume.mount()
    volume.command("revoke", top / "tree/ward")
    refused = volume.command("shred", top / "tree", check=False)
    assert refused.returncode != 0 and "Nothing was deleted" in refused.stderr, refused
    volume.command("restore", top / "tree/ward")
    equal((top / "tree/ward/secret").read_bytes(), b"tree/ward/secret" * 100)
    certificates = answer(volume, "shred", top / "tree")
    equal([key["zone"] for signed in certificates for key in signed["certificate"]["keys"]], [0, 1], "zones")
    for signed in certificates:
        equal(signed["certificate"]["keys"][0]["destroyed"], [1], "destroyed")
    states = {zone["zone"]: [kek["state"] for kek in zone["keks"]] for zone in answer(volume, "status", top)["zones"]}
    equal(states, {0: ["destroyed", "active"], 1: ["destroyed", "active"], 2: ["active"]}, "states")
    for path in ("beside/kept", "kept"):
        equal((top / path).read_bytes(), path.encode() * 100)
    volume.unmount()
    volume.check()


@on_volume(limit=180, needs=["lethefs"])
def while_a_command_deletes_nothing_escapes(volume):
    """No zone comes into a tree that is being shredded, and one command at a time deletes in a zone; its end lets others in."""
    volume.init().mount()
    top = volume.mountpoint
    (top / "tree/deep").mkdir(parents=True)
    (top / "tree/secret").write_bytes(b"secret" * 100)
    (top / "other").write_bytes(b"other")
    volume.command("zone", "create", top / "ward")
    (top / "ward/secret").write_bytes(b"ward" * 100)
    with subprocess.Popen(["sleep", "600"]) as deleter:
        try:
            begun = volume.ask("shred-begin", paths=json.dumps(["tree"]), pid=str(deleter.pid))
            equal(begun, {"result": {"zones": [0]}}, "what it begins with")
            for words, mention in (
                    (("shred", top / "other"), f"another shred (pid {deleter.pid})"),
                    (("shred", top / "tree/deep"), f"another shred (pid {deleter.pid})"),
                    (("zone", "create", top / "tree/new"), "to be shredded"),
                    (("zone", "create", top / "tree/deep/new"), "to be shredded"),
                    (("zone", "assign", top / "tree/deep", "--zone", "1"), "shredding"),
                    (("zone", "assign", top / "ward", "--zone", "0"), "shredding")):
                refused = volume.command(*words, check=False)
                equal(refused.returncode, 12, f"exit status of {words}: {refused.stderr}")
                assert mention in refused.stderr, refused.stderr
            equal(len(answer(volume, "zone", "list", top)), 2, "zones")
            assert (top / "other").exists() and not (top / "tree/new").exists()
            os.rename(top / "ward", top / "tree/ward")
            (top / "tree/ward/secret").unlink()
            raises(errno.EBUSY, os.rmdir, top / "tree/ward")
            raises(errno.EBUSY, os.rmdir, top / "tree/ward")
        finally:
            deleter.kill()
    certificates = answer(volume, "shred", top / "tree")
    equal([key["zone"] for signed in certificates for key in signed["certificate"]["keys"]], [0, 1], "zones")
    assert not (top / "tree").exists()
    equal((top / "other").read_bytes(), b"other")
    volume.command("zone", "create", top / "new")
    # What a killed daemon leaves is finished by the next one, which then lets zones in.
    with subprocess.Popen(["sleep", "600"]) as deleter:
        volume.ask("shred-begin", paths=json.dumps(["other"]), pid=str(deleter.pid))
        volume.kill()
        volume.mount()
        wait_until(lambda: not zone(volume, top)["pending"])
        volume.command("zone", "create", top / "newer")
        deleter.kill()
    volume.unmount()
    volume.check()


@on_volume(limit=240, needs=["lethefs"])
def edited_notes_and_slots_are_errors(volume):
    """In the middle of a re-encryption: each field of the note in the keyring, and of the two slots in the file's header."""
    volume.init("--cryptoperiods", "none").mount()
    top = volume.mountpoint
    data = os.urandom(6 << 20)
    (top / "big").write_bytes(data)
    os.sync()
    answer(volume, "reencrypt", top, "--background", "--rate", "1")
    wait_until(lambda: any(sweep["passedBytes"] > 1 << 20 for sweep in answer(volume, "reencrypt", top, "--status")["sweeps"]))
    answer(volume, "reencrypt", top, "--pause")
    volume.kill()
    file, = (path for path in volume.lower.iterdir() if path.is_file() and path.stat().st_size > 4 << 20)
    equal(file.read_bytes()[53], 2, "slots")
    keyring = volume.lower / ".lethefs/zones/0"
    notes = len(keyring.read_bytes()) - (2 + 36) - (1 + 34)

    def edited(path, offset):
        """With one bit changed, `check` fails; its exit status."""
        with open(path, "r+b", buffering=0) as whole:
            byte = os.pread(whole.fileno(), 1, offset)
            os.pwrite(whole.fileno(), bytes([byte[0] ^ 1 << offset % 8]), offset)
            status = volume.command("check", volume.lower, check=False).returncode
            os.pwrite(whole.fileno(), byte, offset)
        return status

    equal(volume.command("check", volume.lower, check=False).returncode, 0, "unchanged")
    # Number of notes; kind, flags, version, start, rate, scope of the one.
    for field in (0, 1, 2, 3, 7, 14, 15, 18, 19, 34):
        assert edited(keyring, notes + field) in (13, 14), f"byte {field} of the notes"
    # Number of slots; of each version, KEK version, date, bound, state, padding, wrap.
    for field in (53, *(152 + 72 * slot + part for slot in (0, 1) for part in (0, 4, 8, 16, 24, 25, 32, 71)), 64):
        equal(edited(file, field), 1, f"byte {field} of the header")
    volume.mount()
    equal((top / "big").read_bytes(), data, "big")
    answer(volume, "reencrypt", top, "--resume")
    wait_until(lambda: not zone(volume, top)["pending"])
    equal((top / "big").read_bytes(), data, "big")
    equal(zone(volume, top)["mixed"], 0, "files with several DEKs")
    volume.unmount()
    volume.check()
