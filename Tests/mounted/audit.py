"""`lethefs audit`: mounts leave records, and whatever is done to the log is found and named."""

import json
import os
import time

from harness import equal, on_volume
from harness.layout import flip


def log_of(volume):
    return volume.lower / ".lethefs/audit/log"


def verified(volume, place=None, damaged=False):
    answer = volume.command("audit", "verify", place or volume.lower, "--json", status=1 if damaged else 0)
    return json.loads(answer.stdout)


def records(volume, *words, place=None):
    answer = volume.command("audit", "show", place or volume.lower, "--json", *words)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def kinds(volume, *words, **settings):
    return [record["kind"] for record in records(volume, *words, **settings)]


def eventually(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def filled(volume):
    """A volume with three mounts in its log."""
    volume.init()
    for number in range(3):
        volume.mount()
        (volume.mountpoint / f"f{number}").write_bytes(b"content")
        volume.unmount()
    return log_of(volume).read_bytes().decode().splitlines()


def put(volume, lines):
    log_of(volume).write_text("".join(line + "\n" for line in lines))


def expect(volume, what, sequence, last=None, **settings):
    found = verified(volume, damaged=True, **settings)["findings"]
    wanted = [one for one in found
              if (one["what"], one.get("sequence"), one.get("last")) == (what, sequence, last)]
    assert wanted, f"no finding “{what}” of record {sequence}: {found}"
    if sequence is not None:
        assert str(sequence) in wanted[0]["detail"], wanted[0]


@on_volume(limit=120, needs=["lethefs"])
def mounts_leave_records(volume):
    made = json.loads(volume.command("init", volume.lower, "--json").stdout)
    equal(kinds(volume), ["log-started", "volume-created", "checkpoint"])
    equal(records(volume)[0]["fields"]["key"], made["auditKey"])
    volume.mount()
    wanted = ["mounted", "key-unwrapped"]
    for place in (volume.lower, volume.mountpoint):
        equal(kinds(volume, place=place)[3:5], wanted)
        verified(volume, place)
    mounted = records(volume, "--kind", "mounted")[0]
    equal(mounted["fields"]["mount-point"], str(volume.mountpoint))
    equal(mounted["fields"]["pid"], str(volume.daemon))
    status = json.loads(volume.command("status", volume.mountpoint, "--json").stdout)
    assert status["audit"]["records"] >= 5 and status["audit"]["failures"] == 0, status["audit"]
    volume.command("revoke", volume.mountpoint)
    volume.command("restore", volume.mountpoint)
    eventually(lambda: "restored" in kinds(volume), "revocation and return are in the log")
    revoked = records(volume, "--kind", "revoked")[0]
    equal(revoked["fields"]["canary"], "refused")
    assert float(revoked["fields"]["purged-milliseconds"]) > 0, revoked
    equal((revoked["fields"]["complete"], revoked["fields"]["requests-wiped"]), ("yes", "yes"))
    volume.unmount()
    told = verified(volume)
    found = kinds(volume)
    equal(found[-2:], ["unmounted", "checkpoint"])
    equal(records(volume)[-2]["fields"]["clean"], "yes")
    equal((told["keySource"], told["findings"], told["notes"]), ("sealed", [], []))
    equal((told["sealedThrough"], told["rememberedThrough"]), (len(found), len(found)))
    equal(told["signedThrough"], len(found) - 1)
    text = volume.command("audit", "show", volume.lower, "--since", "1h").stdout
    equal(len(text.splitlines()), len(found))
    equal(volume.command("audit", "show", volume.lower, "--since", "2000-01-01").stdout, text)
    equal(volume.command("audit", "show", volume.lower, "--since", "2999-01-01").stdout, "")
    volume.command("audit", "show", volume.lower, "--since", "soon", status=64)
    volume.command("audit", "show", volume.lower, "--kind", "nothing", status=64)


@on_volume(limit=240, needs=["lethefs"])
def each_tampering_is_named(volume):
    lines = filled(volume)
    whole = [json.loads(line) for line in lines]
    verified(volume)
    middle = 5
    put(volume, lines[:middle] + [lines[middle].replace("\"kind\":\"", "\"kind\":\"un")] + lines[middle + 1:])
    expect(volume, "changed", middle + 1)
    put(volume, lines[:middle] + lines[middle + 1:])
    expect(volume, "missing", middle + 1)
    put(volume, lines[:3] + lines[7:])
    expect(volume, "missing", 4, last=7)
    put(volume, lines[:middle] + [lines[middle + 1], lines[middle]] + lines[middle + 2:])
    expect(volume, "reordered", middle + 1)
    put(volume, lines[:middle] + [lines[2]] + lines[middle:])
    expect(volume, "inserted", 3)
    put(volume, lines[:middle] + ["{}"] + lines[middle:])
    expect(volume, "malformed", None)
    put(volume, lines[:-1])
    expect(volume, "head", len(lines), last=len(lines))
    put(volume, lines[:4])
    expect(volume, "head", 5, last=len(lines))
    put(volume, [])
    verified(volume, damaged=True)
    # A checkpoint's signature, with the hash made to fit.
    import base64
    number = next(index for index, record in enumerate(whole) if record["kind"] == "checkpoint")
    signature = base64.b64decode(whole[number]["fields"]["signature"])
    put(volume, [line.replace(whole[number]["fields"]["signature"],
                              base64.b64encode(signature[:-1] + bytes([signature[-1] ^ 1])).decode())
                 for line in lines])
    expect(volume, "signature", number + 1)
    put(volume, lines)
    told = verified(volume)
    equal(told["records"], len(lines))
    for name in ("head", "key"):
        path = volume.lower / ".lethefs/audit" / name
        good = path.read_bytes()
        flip(path, len(good) // 2)
        expect(volume, "seal", None)
        path.unlink()
        expect(volume, "seal", None)
        path.write_bytes(good)
    equal(verified(volume), told)


@on_volume(limit=240, needs=["lethefs"])
def tampering_between_mounts_and_under_a_mount(volume):
    """The daemon notices, goes on, and says so in the log; what was done stays to be found."""
    lines = filled(volume)
    put(volume, lines[:6])
    volume.mount()
    equal(kinds(volume)[6:9], ["log-damaged", "log-damaged", "mounted"])
    expect(volume, "missing", 7, last=len(lines))
    with open(log_of(volume), "a") as file:
        file.write("something\n")
    volume.command("revoke", volume.mountpoint)
    volume.command("restore", volume.mountpoint)
    eventually(lambda: kinds(volume).count("log-damaged") == 3, "the stranger's line is noticed")
    volume.unmount()
    expect(volume, "malformed", None)
    assert "unmounted" in kinds(volume)


@on_volume(limit=240, needs=["lethefs"])
def a_log_of_another_volume(volume):
    from harness import Volume
    filled(volume)
    with Volume(volume.root / "other") as other:
        filled(other)
        for name in ("log", "key", "head"):
            (volume.lower / ".lethefs/audit" / name).write_bytes((other.lower / ".lethefs/audit" / name).read_bytes())
    whats = {one["what"] for one in verified(volume, damaged=True)["findings"]}
    assert whats >= {"beginning", "key", "head", "seal"}, whats


@on_volume(limit=240, needs=["lethefs"])
def the_whole_log_removed(volume):
    import shutil
    filled(volume)
    shutil.rmtree(volume.lower / ".lethefs/audit")
    volume.command("audit", "verify", volume.lower, status=15)
    volume.mount().unmount()
    equal(kinds(volume)[:2], ["log-started", "log-damaged"])
    equal(kinds(volume)[2], "log-damaged")
    told = [one["detail"] for one in verified(volume, damaged=True)["findings"] if one["what"] == "told"]
    assert "removed" in told[0] and "remembers" in told[1], told


@on_volume(limit=240, needs=["lethefs"])
def an_older_state_of_everything(volume):
    """Log, seals and keyring put back as they were: only the host's memory can tell."""
    import shutil
    filled(volume)
    shutil.copytree(volume.lower / ".lethefs", volume.root / "older")
    volume.mount().unmount()
    shutil.rmtree(volume.lower / ".lethefs")
    shutil.copytree(volume.root / "older", volume.lower / ".lethefs")
    assert [one["what"] for one in verified(volume, damaged=True)["findings"]] == ["head"]
    volume.mount().unmount()
    found = verified(volume, damaged=True)["findings"]
    assert [one["what"] for one in found] == ["told"] and "remembers" in found[0]["detail"], found


def switched_off_and_on(volume):
    """By commands on the volume as it lies: they write to its log without its KEK."""
    for act in ("disable", "enable"):
        volume.command("cmk", act, volume.lower)


@on_volume(limit=240, needs=["lethefs"])
def an_older_state_under_a_command(volume):
    """The command does not take an older log for good, and what this host remembers is not forgotten over it."""
    import shutil
    filled(volume)
    shutil.copytree(volume.lower / ".lethefs/audit", volume.root / "older")
    for _ in range(3):
        volume.mount().unmount()
    shutil.rmtree(volume.lower / ".lethefs/audit")
    shutil.copytree(volume.root / "older", volume.lower / ".lethefs/audit")
    switched_off_and_on(volume)
    found = verified(volume, damaged=True)["findings"]
    assert [one["what"] for one in found] == ["told"] and "remembers" in found[0]["detail"], found
    # The record that tells of it is remembered from now on.
    shutil.rmtree(volume.lower / ".lethefs/audit")
    shutil.copytree(volume.root / "older", volume.lower / ".lethefs/audit")
    assert "head" in [one["what"] for one in verified(volume, damaged=True)["findings"]]


@on_volume(limit=240, needs=["lethefs"])
def a_log_cut_to_nothing_under_a_command(volume):
    filled(volume)
    put(volume, [])
    switched_off_and_on(volume)
    equal(kinds(volume)[:3], ["log-started", "log-damaged", "log-damaged"])
    told = [one["detail"] for one in verified(volume, damaged=True)["findings"] if one["what"] == "told"]
    assert "removed" in told[0] and "remembers" in told[1], told


@on_volume(limit=240, needs=["lethefs"])
def after_crashes(volume):
    volume.init()
    for _ in range(3):
        volume.mount()
        (volume.mountpoint / "f").write_bytes(b"x" * 10_000)
        volume.kill()
        assert verified(volume)["findings"] == []
    # A write that a power cut tore.
    with open(log_of(volume), "ab") as file:
        file.write(b'{"sequence":999,"time":"20')
    assert any("cut off" in note for note in verified(volume)["notes"])
    volume.mount().unmount()
    told = verified(volume)
    assert any("cut off" in note for note in told["notes"]), told
    found = kinds(volume)
    equal(found.count("crash-recovered"), 3)
    equal(found.count("log-repaired"), 1)
    equal(told["sealedThrough"], told["records"])


@on_volume(limit=240, needs=["lethefs"])
def without_the_cmk(volume):
    """The CMK and its token are gone: show works, verify works from the files and what this host remembers."""
    import shutil
    lines = filled(volume)
    shutil.rmtree(volume.home / "softhsm")
    equal(len(records(volume)), len(lines))
    told = verified(volume)
    equal((told["keySource"], told.get("sealedThrough"), told["rememberedThrough"]), ("host", None, len(lines)))
    assert any("seals were not checked" in note for note in told["notes"]), told["notes"]
    put(volume, lines[:-2])
    expect(volume, "head", len(lines) - 1, last=len(lines))
    put(volume, lines)
    # Another host knows nothing: the key is only the log's own, and it says so.
    shutil.rmtree(volume.home / "audit")
    told = verified(volume)
    equal((told["keySource"], told.get("rememberedThrough")), ("log", None))
    assert "ONLY THE LOG'S OWN" in volume.command("audit", "verify", volume.lower).stdout


@on_volume(limit=60, needs=["lethefs"])
def commands_leave_notes_and_nothing_else(volume):
    """What a command tells the daemon for the log: only of what commands do."""
    volume.init().mount()
    ask = volume.ask
    assert "result" in ask("audit-note", kind="cmk-disabled", zone="0", fields=json.dumps({"cmk": "a \u001b[31m b"}))
    assert "failure" in ask("audit-note", kind="unmounted", fields="{}")
    assert "failure" in ask("audit-note", kind="cmk-disabled", fields=json.dumps({"a b": ""}))
    assert "failure" in ask("audit-note", kind="cmk-disabled", fields="[]")
    assert "failure" in ask("audit-note")
    seals = ask("audit-seals")["result"]
    assert seals["sequence"] >= 3 and len(seals["keys"]) == 1 and not seals["problems"], seals
    record = records(volume, "--kind", "cmk-disabled")[0]
    equal((record["zone"], record["fields"]["cmk"]), (0, "a \u001b[31m b"))
    assert "\x1b" not in volume.command("audit", "show", volume.lower).stdout
    volume.unmount()
    verified(volume)


@on_volume(limit=120, needs=["lethefs"])
def a_full_disk_holds_up_nothing(volume):
    """No room for records: unmount and revocation work, the failures are counted, and the log is whole afterwards."""
    from harness import run
    image = volume.root / "image"
    with open(image, "wb") as file:
        file.truncate(24 << 20)
    run(["mkfs.ext4", "-q", "-m", "0", image])
    run(["mount", "-o", "loop", image, volume.lower])
    try:
        (volume.lower / "lost+found").rmdir()
        volume.init().mount()
        blocker = volume.lower / ".lethefs/blocker"
        with open(blocker, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                os.fsync(file.fileno())
        def audit():
            return json.loads(volume.command("status", volume.mountpoint, "--json").stdout)["audit"]
        for _ in range(40):  # Until the block that the log has is full, too.
            volume.command("revoke", volume.mountpoint)
            volume.command("restore", volume.mountpoint)
            if audit()["failures"] > 0:
                break
            time.sleep(0.3)
        eventually(lambda: audit()["failures"] > 0, "a record that cannot be written is counted")
        assert audit()["waiting"] > 0, audit()
        blocker.unlink()
        eventually(lambda: audit()["waiting"] == 0, "the records are written once there is room")
        equal(verified(volume, volume.mountpoint)["findings"], [])
        volume.unmount()
        told = verified(volume)
        equal((told["findings"], told["sealedThrough"]), ([], told["records"]))
        assert kinds(volume).count("revoked") == kinds(volume).count("restored")
    finally:
        from harness.fuse import release_under
        release_under(volume.mountpoint)
        run(["umount", volume.lower], check=False)
