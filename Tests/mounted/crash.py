"""kill -9 of the daemon while programs write: what was acknowledged by fsync is there, and the check finds nothing."""

import os
import random
import time

from harness import equal, full_run, on_volume
from harness.tokens import keys_of

ROUNDS = 12 if full_run() else 3


# Lines that say what is about to be done; all others acknowledge.
BEGINNINGS = ("write", "cut")


class Journal:
    """What a writer did, told in a file outside the mount: begun and acknowledged operations."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def say(self, *words):
        os.write(self.file, (" ".join(map(str, (time.monotonic(), *words))) + "\n").encode())

    def lines(self, until=None):
        """What was said; of what was acknowledged, only what was so before the time `until`."""
        with os.fdopen(self.file, "rb") as file:
            file.seek(0)
            lines = [line.split() for line in file.read().decode().splitlines()]
        late = [until is not None and float(line[0]) > until for line in lines]
        return [line[1:] for line, is_late in zip(lines, late) if line[1] in BEGINNINGS or not is_late]


def data_of(seed, length):
    return random.Random(seed).randbytes(length)


def write_until_killed(top, journal, seed, name):
    """Writes, truncates and fsyncs one file after another; each step is told before and after."""
    chance, step, size = random.Random(seed), 0, 0
    fd = os.open(top / name, os.O_RDWR | os.O_CREAT)
    while True:
        step += 1
        at = chance.choice((0, size, chance.randrange(60_000)))
        length = chance.choice((1, 100, 3552, 4064, 4096, 9_000))
        journal.say("write", name, step, at, length, f"{seed}.{step}")
        os.pwrite(fd, data_of(f"{seed}.{step}", length), at)
        os.fsync(fd)
        journal.say("done", name, step)
        size = max(size, at + length)
        if step % 10 == 0:
            size = chance.randrange(size)
            journal.say("cut", name, -step, size, 0, "-")
            os.ftruncate(fd, size)
            os.fsync(fd)
            journal.say("done", name, -step)


def create_until_killed(top, journal, seed, name):
    """Creates small files with fsync of file and directory, renames every third over a fixed name."""
    directory, number = os.open(top, os.O_RDONLY), 0
    while True:
        number += 1
        path = top / f"{name}.{number}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, data_of(f"{seed}.{number}", number % 9000))
        os.fsync(fd)
        os.close(fd)
        os.fsync(directory)
        journal.say("created", path.name, f"{seed}.{number}", number % 9000)


def run_writers(volume, seconds, seed):
    """Starts the writers, kills the daemon, and returns what each had said."""
    journals, children = [], []
    for number, function in enumerate((write_until_killed, write_until_killed, create_until_killed)):
        journal = Journal(volume.root / f"journal{number}")
        pid = os.fork()
        if pid == 0:
            try:
                function(volume.mountpoint, journal, f"{seed}.{number}", f"w{seed}.{number}")
            except OSError:
                pass  # The daemon is gone.
            os._exit(0)
        journals.append(journal)
        children.append(pid)
    time.sleep(seconds)
    volume.kill(children)
    return [journal.lines() for journal in journals]


def replay(lines):
    """(model, the operations that were under way) of one written file."""
    model, pending = bytearray(), []
    for kind, _, step, *rest in lines:
        if kind == "done":
            apply(model, pending.pop(0))
        else:
            pending.append((kind, int(rest[0]), int(rest[1]), rest[2]))
    return model, pending


def apply(model, operation):
    kind, at, length, seed = operation
    if kind == "cut":
        del model[at:]
        return
    if at > len(model):
        model.extend(bytes(at - len(model)))
    model[at:at + length] = data_of(seed, length)


def verify(path, lines):
    """Each byte is as acknowledged, or as some of the operations under way left it."""
    before, pending = replay(lines)
    models = [before]
    for operation in pending:
        models.append(bytearray(models[-1]))
        apply(models[-1], operation)
    got, sizes = path.read_bytes(), [len(model) for model in models]
    assert min(sizes) <= len(got) <= max(sizes), f"{path.name}: {len(got)} bytes, want one of {sizes}"
    for at, value in enumerate(got):
        allowed = {model[at] if at < len(model) else 0 for model in models}
        assert value in allowed | ({0} if at >= len(before) else set()), f"{path.name}: byte {at} of {len(got)} is wrong"


@on_volume(limit=600, needs=["daemon"])
def killed_daemon(volume):
    volume.init().mount()
    chance = random.Random(5)
    for turn in range(ROUNDS):
        told = run_writers(volume, 0.3 + chance.random() * 1.2, turn)
        assert all(len(lines) > 4 for lines in told), "the writers did nothing"
        volume.check()
        volume.mount()
        for number in (0, 1):
            verify(volume.mountpoint / f"w{turn}.{number}", told[number])
        for _, name, seed, length in told[2]:
            equal((volume.mountpoint / name).read_bytes(), data_of(seed, int(length)), name)
    volume.unmount().check()


@on_volume(limit=120, needs=["daemon"])
def killed_without_writes(volume):
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"x" * 10_000)
    os.mkdir(volume.mountpoint / "d")
    volume.remount()
    equal((volume.mountpoint / "f").read_bytes(), b"x" * 10_000)
    volume.kill()
    volume.mount()
    equal((volume.mountpoint / "f").read_bytes(), b"x" * 10_000)
    volume.unmount().check()


@on_volume(limit=120, needs=["daemon"])
def killed_during_renames(volume):
    """A name that is being replaced always shows one whole version, never none and never a mixture."""
    volume.init().mount()
    for turn in range(ROUNDS):
        path = volume.mountpoint / "text"
        pid = os.fork()
        if pid == 0:
            try:
                for version in range(1_000_000):
                    new = volume.mountpoint / "text.new"
                    with open(new, "wb") as file:
                        file.write(bytes([version & 255]) * 6000)
                        file.flush()
                        os.fsync(file.fileno())
                    os.replace(new, path)
            except OSError:
                pass
            os._exit(0)
        time.sleep(0.4)
        volume.kill([pid])
        volume.mount()
        data = path.read_bytes()
        equal(data, data[:1] * 6000, "the text")
        if (volume.mountpoint / "text.new").exists():
            os.unlink(volume.mountpoint / "text.new")
        equal(os.listdir(volume.mountpoint), ["text"])
        volume.remount()
    volume.unmount().check()


@on_volume(limit=60, needs=["lethefs"])
def logins_that_were_cut_short(volume):
    """SoftHSM2 empties its token's file for a moment at each login; a kill at that moment, or a power cut, leaves it so."""
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"still there")
    token, = (volume.home / "softhsm/tokens").glob("*/token.object")
    whole = token.read_bytes()
    assert len(whole) > 100, f"{len(whole)} bytes are no token"
    for left in (b"", bytes(len(whole)), bytes(4096)):
        volume.kill()
        token.write_bytes(left)
        volume.mount()
        equal((volume.mountpoint / "f").read_bytes(), b"still there")
    # What it knows of before is not known of a volume that an earlier version made.
    volume.unmount()
    (copy,) = (volume.home / "softhsm/copies").iterdir()
    copy.unlink()
    volume.mount().unmount()
    assert copy.stat().st_size > 100 and copy.stat().st_mode & 0o777 == 0o600, copy.stat()
    volume.check()


@on_volume(limit=60, needs=["lethefs"])
def a_login_that_was_cut_short_after_a_change_of_the_pin(volume):
    """What is kept of the token follows the change: the new PIN opens it, also when it had to be put back."""
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"still there")
    volume.unmount()
    key, = keys_of(volume)
    (copy,) = (volume.home / "softhsm/copies").iterdir()
    before = copy.read_bytes()
    key.by_other_program("set-pin", "another pin")
    key.pin.write_text("another pin")
    volume.mount().unmount()
    after = copy.read_bytes()
    assert after != before and copy.stat().st_mode & 0o777 == 0o600, copy.stat()
    volume.mount().unmount()
    equal(copy.read_bytes(), after, "the same PIN leaves it")
    token, = (volume.home / "softhsm/tokens").glob("*/token.object")
    token.write_bytes(b"")
    volume.mount()
    equal((volume.mountpoint / "f").read_bytes(), b"still there")
    volume.unmount().check()
