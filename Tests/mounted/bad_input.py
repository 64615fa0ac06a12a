"""What the command line does with what is wrong: exit status not 0, a clear message, nothing mounted, no crash, no hang."""

import os
import re
import shutil
import time

from harness import equal, on_volume, run
from harness.fuse import is_mounted
from harness.process import alive, processes_of

CRASH = re.compile(r"fatal error|backtrace|stack dump|program crashed|thread \d+ .*crashed|traceback|precondition failed|"
                   r"unexpectedly found nil|segmentation fault", re.I)


def refused(volume, *words, limit=30):
    """Runs the program; it must fail in an orderly way. Returns its message, or "" when it succeeded."""
    answer = volume.command(*words, check=False, limit=limit)
    if answer.returncode == 0:
        return ""
    message, what = answer.stderr.strip(), " ".join(map(str, words))
    assert 0 < answer.returncode < 126, f"{what}: ended by signal or exit status {answer.returncode}: {message[-300:]}"
    assert message, f"{what}: exit status {answer.returncode} and no message"
    assert not CRASH.search(message), f"{what}: {message[:400]}"
    lines = [line for line in message.splitlines() if line.strip()]
    assert len(lines) == len(set(lines)), f"{what}: the message comes twice: {message}"
    assert len(lines) <= 8 and len(message) < 1500, f"{what}: a message of {len(message)} characters"
    assert not is_mounted(volume.mountpoint), f"{what}: failed, and something is mounted"
    return message


def expect_refusal(volume, *words, mention=None, **settings):
    message = refused(volume, *words, **settings)
    assert message, f"{' '.join(map(str, words))}: succeeded"
    if mention is not None:
        assert str(mention).lower() in message.lower(), f"the message does not say “{mention}”: {message}"
    return message


@on_volume(needs=["lethefs"])
def not_a_volume(volume):
    for command in (["mount", volume.lower, volume.mountpoint], ["check", volume.lower], ["status", volume.lower],
                    ["cmk", "show", volume.lower], ["unmount", volume.mountpoint]):
        expect_refusal(volume, *command)
    (volume.lower / "file").write_bytes(b"x")
    expect_refusal(volume, "mount", volume.lower, volume.mountpoint, mention=volume.lower)
    expect_refusal(volume, "mount", volume.lower / "file", volume.mountpoint)


@on_volume(needs=["lethefs"])
def missing_directories(volume):
    nowhere = volume.root / "nowhere"
    expect_refusal(volume, "mount", nowhere, volume.mountpoint, mention=nowhere)
    expect_refusal(volume, "check", nowhere, mention=nowhere)
    expect_refusal(volume, "init", nowhere / "below")
    volume.init()
    expect_refusal(volume, "mount", volume.lower, nowhere, mention=nowhere)
    assert not nowhere.exists()


@on_volume(needs=["lethefs"])
def init_where_something_is(volume):
    (volume.lower / "precious").write_bytes(b"plaintext")
    expect_refusal(volume, "init", volume.lower)
    equal(os.listdir(volume.lower), ["precious"], "the directory after a refused init")
    (volume.lower / "precious").unlink()
    volume.init()
    before = {path: path.read_bytes() for path in (volume.lower / ".lethefs").rglob("*") if path.is_file()}
    expect_refusal(volume, "init", volume.lower)
    after = {path: path.read_bytes() for path in (volume.lower / ".lethefs").rglob("*") if path.is_file()}
    equal(after, before, "the volume after a second init")


@on_volume(needs=["lethefs"])
def wrong_usage(volume):
    volume.init()
    for words in (["frobnicate"], ["mount"], ["mount", volume.lower], ["mount", volume.lower, volume.mountpoint, "-o"],
                  ["mount", volume.lower, volume.mountpoint, "-o", "no_such_option"],
                  ["init"], ["init", volume.lower, "--no-such-option"], ["mount", "", ""], ["check"]):
        expect_refusal(volume, *words)


def pin_files(volume):
    found = [path for path in volume.home.rglob("*") if path.is_file() and "pin" in path.name.lower()]
    assert found, f"no PIN file below LETHEFS_HOME: {[str(p) for p in volume.home.rglob('*')]}"
    return found


@on_volume(needs=["lethefs"])
def wrong_pin(volume):
    volume.init()
    kept = {path: path.read_bytes() for path in pin_files(volume)}
    for wrong in (b"0000-wrong", b"", b"\xff\xfe\x00", b"x" * 10_000):
        for path in kept:
            path.write_bytes(wrong)
        expect_refusal(volume, "mount", volume.lower, volume.mountpoint, mention="PIN")
    for path, pin in kept.items():
        path.write_bytes(pin)
    volume.mount().unmount()


@on_volume(needs=["lethefs"])
def missing_state_directory(volume):
    volume.init()
    volume.home.rename(volume.root / "elsewhere")
    expect_refusal(volume, "mount", volume.lower, volume.mountpoint)
    if volume.home.exists():
        shutil.rmtree(volume.home)
    (volume.root / "elsewhere").rename(volume.home)
    volume.mount().unmount()


@on_volume(needs=["lethefs"])
def missing_module(volume):
    uri = "pkcs11:token=none;object=none?module-path=/nowhere/module.so"
    expect_refusal(volume, "init", volume.lower, "--root", uri, mention="/nowhere/module.so")
    equal(os.listdir(volume.lower), [], "the directory after a refused init")
    not_a_module = volume.root / "module.so"
    not_a_module.write_bytes(b"not a shared object")
    expect_refusal(volume, "init", volume.lower, "--root", f"pkcs11:token=a;object=b?module-path={not_a_module}")
    libc = "/lib/x86_64-linux-gnu/libc.so.6"
    expect_refusal(volume, "init", volume.lower, "--root", f"pkcs11:token=a;object=b?module-path={libc}")


@on_volume(needs=["lethefs"])
def bad_root_uris(volume):
    for uri in ("", "pkcs11:", "pkcs11", "nonsense://x", "pkcs11:token=%zz", "pkcs11:token=a;token=b", "awskms://",
                "pkcs11:" + "a" * 5000, "pkcs11:token=none;object=none"):
        expect_refusal(volume, "init", volume.lower, "--root", uri)
        equal(os.listdir(volume.lower), [], f"the directory after init with {uri[:40]!r}")


@on_volume(needs=["lethefs"])
def cmk_not_in_the_token(volume):
    """The token is there and takes the PIN, but the key is gone: the data is locked, and the message names the CMK."""
    volume.init()
    objects = [path for path in volume.home.rglob("*.object") if path.name != "token.object"]
    assert objects, "no SoftHSM2 object files below LETHEFS_HOME"
    for path in objects:
        path.rename(volume.root / path.name)
    expect_refusal(volume, "mount", volume.lower, volume.mountpoint)
    for path in objects:
        (volume.root / path.name).rename(path)
    volume.mount().unmount()


@on_volume(needs=["lethefs"])
def mounted_twice(volume):
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"x" * 5000)
    second = volume.root / "second"
    second.mkdir()
    answer = volume.command("mount", volume.lower, second, check=False)
    assert answer.returncode != 0 and answer.stderr.strip() and not CRASH.search(answer.stderr), answer
    assert str(volume.mountpoint) in answer.stderr, f"the message does not say where it is mounted: {answer.stderr}"
    assert not is_mounted(second)
    answer = volume.command("check", volume.lower, check=False)
    assert answer.returncode not in (0, 1), "an offline check of a mounted volume"
    equal((volume.mountpoint / "f").read_bytes(), b"x" * 5000)
    volume.kill()
    volume.mount()
    equal((volume.mountpoint / "f").read_bytes(), b"x" * 5000)
    volume.unmount()
    volume.mount(mountpoint=second)
    volume.unmount(second).check()


@on_volume(needs=["lethefs"])
def unsuitable_mount_points(volume):
    volume.init()
    inside = volume.lower / "inside"
    inside.mkdir()
    expect_refusal(volume, "mount", volume.lower, inside)
    expect_refusal(volume, "mount", volume.lower, volume.lower)
    inside.rmdir()
    os.symlink(volume.lower, volume.root / "alias")
    expect_refusal(volume, "mount", volume.lower, volume.root / "alias")
    (volume.mountpoint / "something").touch()
    expect_refusal(volume, "mount", volume.lower, volume.mountpoint, mention=volume.mountpoint)
    (volume.mountpoint / "something").unlink()
    (volume.root / "file").touch()
    expect_refusal(volume, "mount", volume.lower, volume.root / "file")
    volume.mount().unmount()


@on_volume(needs=["lethefs"])
def unmount_of_what_is_busy_or_not_ours(volume):
    expect_refusal(volume, "unmount", volume.root / "nowhere")
    expect_refusal(volume, "unmount", "/")
    expect_refusal(volume, "unmount", "/proc")
    volume.init().mount()
    with open(volume.mountpoint / "open", "wb"):
        answer = volume.command("unmount", volume.mountpoint, check=False)
        assert answer.returncode != 0 and answer.stderr.strip(), "a busy mount was unmounted"
        assert is_mounted(volume.mountpoint)
        (volume.mountpoint / "still").write_bytes(b"works")
    volume.unmount().check()
    expect_refusal(volume, "unmount", volume.mountpoint)


@on_volume(needs=["lethefs"])
def unmounted_by_other_tools(volume):
    """umount(8) and fusermount3 -u end the daemon as cleanly as `lethefs unmount`."""
    volume.init()
    for tool in (["umount"], ["fusermount3", "-u"]):
        volume.mount()
        (volume.mountpoint / "f").write_bytes(b"x" * 9000)
        pid = volume.pid()
        run([*tool, volume.mountpoint])
        for _ in range(100):
            if not alive(pid):
                break
            time.sleep(0.05)
        assert not alive(pid), f"the daemon outlives {tool[0]}"
        volume.check()
        volume.mount()
        equal((volume.mountpoint / "f").read_bytes(), b"x" * 9000)
        volume.unmount()


@on_volume(needs=["lethefs"])
def ended_by_signals(volume):
    """SIGTERM, SIGINT and SIGHUP to the daemon unmount cleanly."""
    volume.init()
    for number in (15, 2):
        volume.mount()
        (volume.mountpoint / "f").write_bytes(b"y" * 9000)
        pid = volume.pid()
        os.kill(pid, number)
        for _ in range(200):
            if not alive(pid):
                break
            time.sleep(0.05)
        assert not alive(pid), f"signal {number} did not end the daemon"
        assert not is_mounted(volume.mountpoint), f"signal {number} left a dead mount"
        volume.check()


@on_volume(needs=["lethefs"])
def no_process_is_left(volume):
    volume.init().mount()
    volume.unmount()
    left = processes_of(f"{volume.root}/")
    assert not left, f"processes after unmount: {[open(f'/proc/{pid}/cmdline').read() for pid in left]}"


@on_volume(needs=["lethefs"])
def foreground(volume):
    """--foreground stays, serves, and ends cleanly by SIGINT with exit status 0."""
    from harness import spawn
    volume.init()
    child = spawn([volume.backend.program(), "mount", volume.lower, volume.mountpoint, "--foreground"], env=volume.env)
    for _ in range(200):
        if is_mounted(volume.mountpoint) or child.poll() is not None:
            break
        time.sleep(0.05)
    assert child.poll() is None, child.communicate()
    (volume.mountpoint / "f").write_bytes(b"x")
    child.send_signal(2)
    child.communicate(timeout=20)
    equal(child.returncode, 0, "exit status")
    assert not is_mounted(volume.mountpoint)
