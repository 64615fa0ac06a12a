"""`lethefs check`: names what is damaged, in parallel, online and offline; --repair and --salvage."""

import json
import os
import pwd
import time
from pathlib import Path

from harness import Volume, as_user, equal, on_volume
from harness.layout import PAGE, Marks, flip

BIG = 70 << 20  # More than two of the pieces that threads share a file in.


def told(volume, *words, status=0, limit=120, target=None):
    return json.loads(volume.command(
        "check", target or volume.lower, "--json", *words, status=status, limit=limit).stdout)


def fill(volume):
    """A tree with a large file, and the lower forms of what was marked in it."""
    top, marks = volume.mountpoint, Marks()
    (top / "dir/inner").mkdir(parents=True)
    (top / "dir/inner/small").write_bytes(b"small" * 100)
    with open(top / "big", "wb") as file:
        for number in range(BIG >> 20):
            file.write(bytes([number]) * (1 << 20))
    os.symlink("dir/inner/small", top / "link")
    os.link(top / "dir/inner/small", top / "dir/another")
    os.setxattr(top / "dir/inner/small", "user.colour", b"blue")
    os.mkfifo(top / "fifo")
    for name in ("n" * 255, "gone"):
        (top / name).write_bytes(name.encode())
    os.chmod(top / "dir/inner/small", 0o640)
    for path in ("big", "dir/inner/small", "gone", "link"):
        marks.mark(top / path)
    volume.unmount()
    return {path.name: lower for path, lower in marks.find(volume.lower).items()}


@on_volume(limit=240, needs=["lethefs"])
def damage_is_named_by_path_and_page(volume):
    volume.init().mount()
    lower = fill(volume)
    clean = told(volume, "--threads", "3")
    equal((clean["findings"], clean["leftovers"], clean["closed"]), ([], [], []))
    equal((clean["files"], clean["links"], clean["others"], clean["directories"]), (5, 1, 1, 3))
    for page in (1, 9000, 17000):
        flip(lower["big"], page * PAGE + 100)
    flip(lower["small"], 20)
    os.truncate(lower["gone"], 700)
    for words in ((), ("--threads", "1"), ("--threads", "4")):
        found = told(volume, *words, status=1)["findings"]
        equal([(one["path"], one.get("page")) for one in found if one["path"] == "/big"],
              [("/big", 1), ("/big", 9000), ("/big", 17000)])
        equal({one["path"] for one in found} & {"/dir/inner/small", "/dir/another"}, {"/dir/inner/small", "/dir/another"})
        assert any(one["path"] == "/gone" for one in found), found
    text = volume.command("check", volume.lower, status=1).stdout
    assert "DAMAGED /big: page 9000: not authentic" in text, text


@on_volume(limit=240, needs=["lethefs"])
def salvage_copies_what_opens(volume):
    volume.init().mount()
    lower = fill(volume)
    flip(lower["big"], 9000 * PAGE + 100)
    os.truncate(lower["gone"], 700)
    out = volume.root / "salvaged"
    result = told(volume, "--salvage", out, status=1)
    assert result["salvaged"] >= 8, result
    assert not (out / "gone").exists()
    equal((out / "dir/inner/small").read_bytes(), b"small" * 100)
    equal(os.stat(out / "dir/inner/small").st_ino, os.stat(out / "dir/another").st_ino)
    equal(os.stat(out / "dir/inner/small").st_mode & 0o777, 0o640)
    equal(os.getxattr(out / "dir/inner/small", "user.colour"), b"blue")
    equal(os.readlink(out / "link"), "dir/inner/small")
    assert (out / "fifo").is_fifo()
    equal((out / ("n" * 255)).read_bytes(), b"n" * 255)
    data = (out / "big").read_bytes()
    equal(len(data), BIG)
    wrong = [at for at in range(0, BIG, 4064) if data[at:at + 16] not in (bytes([at >> 20]) * 16, bytes([at + 15 >> 20]) * 16)
             and data[at] != at >> 20]
    assert wrong and max(wrong) - min(wrong) <= 4064, wrong[:5]
    volume.command("check", volume.lower, "--salvage", volume.lower / "inside", status=64)


@on_volume(limit=120, needs=["lethefs"])
def salvage_into_a_new_directory_alone(volume):
    """What fails for where it is to go leaves the volume as it was: no mount was interrupted."""
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"x" * 5000)
    volume.unmount()
    for inside in (volume.lower / "inside", volume.root, Path("/")):
        volume.command("check", volume.lower, "--repair", "--salvage", inside, status=64)
    out = volume.root / "salvaged"
    volume.command("check", volume.lower, "--repair", "--salvage", out)
    text = volume.command("check", volume.lower, "--repair", "--salvage", out, status=40).stderr
    assert "a new or an empty directory" in text, text
    volume.command("check", volume.lower, "--repair", "--salvage", volume.root / "none/inner", status=64)
    equal((out / "file").read_bytes(), b"x" * 5000)
    volume.mount()
    volume.unmount()
    log = volume.command("audit", "show", volume.lower, "--json").stdout
    assert "crash-recovered" not in log, log


@on_volume(limit=120, needs=["lethefs"])
def salvage_by_a_plain_user(volume):
    """Directories that their owner cannot write to are copied with what is in them."""
    owner = pwd.getpwnam("nobody")
    with Volume(volume.root / "personal", user="nobody") as mine:
        mine.init().mount(options="")
        as_user(owner.pw_uid, owner.pw_gid, fill_read_only, mine.mountpoint / "dir/inner")
        mine.unmount()
        out = mine.root / "salvaged"
        result = told(mine, "--salvage", out)
        equal(result["salvaged"], 3, "two directories and a file")
        equal((out / "dir/inner/file").read_bytes(), b"kept")
        for path in (out / "dir", out / "dir/inner"):
            equal(os.stat(path).st_mode & 0o777, 0o555)
            equal(os.stat(path).st_mtime, 1000)


def fill_read_only(inner):
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"kept")
    for path in (inner, inner.parent):
        path.chmod(0o555)
        os.utime(path, (1000, 1000))


@on_volume(limit=240, needs=["lethefs"])
def repair_after_a_crash(volume):
    """What a crash leaves over goes, what it left unsettled is settled; nothing else changes."""
    volume.init().mount()
    top = volume.mountpoint
    file = open(top / "open", "wb")
    file.write(b"x" * 10_000)
    os.fsync(file.fileno())
    (top / "d").mkdir()
    (top / ("n" * 255)).write_bytes(b"long")
    volume.kill()
    try:
        file.close()
    except OSError:
        pass
    sidecar = next(path for path in volume.lower.iterdir() if path.name.startswith("lethefs.name."))
    os.symlink(os.readlink(sidecar), volume.lower / "lethefs.name.AAAA")
    (volume.lower / "lethefs.temp.1").mkdir()
    os.symlink("header", volume.lower / "lethefs.temp.1/lethefs.dir")
    (volume.lower / "lethefs.temp.2").mkdir()
    (volume.lower / "lethefs.temp.2/kept").write_bytes(b"kept")
    (volume.lower / ".lethefs/volume.new").write_bytes(b"half")
    seen = told(volume)
    equal(seen["findings"], [])
    kinds = {one["kind"] for one in seen["leftovers"]}
    # How many files are unsettled depends on what the daemon had closed when it was killed.
    equal(kinds, {"name without an entry", "directory half made or half removed", "file half replaced",
                  "file not closed before a crash"})
    assert not any(one["repaired"] for one in seen["leftovers"]), seen
    repaired = told(volume, "--repair")
    equal([(one["path"], one["kind"]) for one in repaired["leftovers"]],
          [(one["path"], one["kind"]) for one in seen["leftovers"]])
    equal([one["repaired"] for one in repaired["leftovers"]].count(False), 1, "what cannot be repaired")
    after = told(volume)
    equal([one["kind"] for one in after["leftovers"]], ["directory half made or half removed"])
    equal((volume.lower / "lethefs.temp.2/kept").read_bytes(), b"kept")
    volume.mount()
    equal((top / "open").read_bytes(), b"x" * 10_000)
    equal((top / ("n" * 255)).read_bytes(), b"long")
    volume.unmount().check()


@on_volume(limit=240, needs=["lethefs"])
def online_beside_programs(volume):
    volume.init().mount()
    lower = fill(volume)
    flip(lower["big"], 9000 * PAGE + 100)
    volume.mount()
    top = volume.mountpoint
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                for number in range(20):
                    Path(top, f"busy{number}").write_bytes(os.urandom(20_000))
                for number in range(20):
                    os.rename(top / f"busy{number}", top / f"moved{number}")
                    os.unlink(top / f"moved{number}")
        finally:
            os._exit(0)
    try:
        for target in (top, volume.lower):
            found = told(volume, "--online", "--threads", "2", status=1, target=target)["findings"]
            equal([(one["path"], one.get("page")) for one in found], [("/big", 9000)])
        status = json.loads(volume.command("status", top, "--json").stdout)
        equal(status["damageEvents"], 0, "damage that programs met")
        started = time.monotonic()
        told(volume, "--online", "--rate", "25", status=1, target=top)
        assert time.monotonic() - started > 2, "70 MiB at 25 MB/s take 3 seconds"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    volume.command("check", volume.lower, status=12)
    volume.unmount()
    volume.command("check", volume.lower, "--online", status=31)
