"""Changed names, directory headers, links and attributes: an error or an omission, never another's name or value."""

import errno
import os
from pathlib import Path

from harness import full_run, on_volume
from harness.layout import Marks

STRIDE = 1 if full_run() else 7
SIDECAR = "lethefs.dir"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def other(character: str) -> str:
    """Another base64url character, so that the change is not refused as bad spelling alone."""
    return ALPHABET[(ALPHABET.index(character) + 17) % 64] if character in ALPHABET else "A"


def variants(text: str) -> list[str]:
    """`text` with one character changed, each in turn; cut; extended; emptied of sense."""
    changed = [text[:at] + other(text[at]) + text[at + 1:] for at in range(0, len(text), STRIDE)]
    return changed + [text[:-1], text[:-4], text[:len(text) // 2], text + "A", text + "AAAA", "A", "A" * len(text), "x y"]


def result(function, *arguments):
    """("error", errno) or ("value", what it returned)."""
    try:
        return "value", function(*arguments)
    except OSError as error:
        return "error", error.errno


def retarget(path, target):
    """Replaces a symbolic link's target and keeps its owner and times."""
    status = os.lstat(path)
    os.unlink(path)
    os.symlink(target, path)
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def marked(volume, make, count):
    """Makes `count` entries by `make(path)`, unmounts, and returns [(path on the mount, lower path)]."""
    marks = Marks()
    paths = [volume.mountpoint / f"entry{number}" for number in range(count)]
    for path in paths:
        make(path)
    for path in paths:
        marks.mark(path)
    volume.unmount()
    lower = marks.find(volume.lower)
    return [(path, lower[path]) for path in paths]


def all_refused(told):
    """Each of [(what, result)] must be EIO."""
    wrong = [f"{what}: {outcome}" for what, outcome in told if outcome != ("error", errno.EIO)]
    assert not wrong, f"{len(wrong)} of {len(told)} not refused with EIO: " + "; ".join(wrong[:6])


def directory_with_a_file(path):
    path.mkdir()
    (path / "inside").write_bytes(b"x")


@on_volume(limit=240, needs=["sealed", "lethefs"])
def directory_headers_edited(volume):
    volume.init().mount()
    (volume.mountpoint / "probe").mkdir()
    ways = len(variants(os.readlink(volume.lower / SIDECAR)))
    entries = marked(volume, directory_with_a_file, ways + 1)
    for number, (_, lower) in enumerate(entries[:-1]):
        retarget(lower / SIDECAR, variants(os.readlink(lower / SIDECAR))[number])
    os.unlink(entries[-1][1] / SIDECAR)
    volume.mount()
    told = [(f"variant {number}", result(os.listdir, path)) for number, (path, _) in enumerate(entries)]
    told += [(f"file in variant {number}", result((path / "inside").read_bytes))
             for number, (path, _) in enumerate(entries)]
    told += [(f"new file in variant {number}", result((path / "new").touch)) for number, (path, _) in enumerate(entries)]
    all_refused(told)
    (volume.mountpoint / "probe/works").write_bytes(b"still")
    volume.unmount()
    volume.check(damaged=True)


@on_volume(limit=120, needs=["sealed", "lethefs"])
def directory_headers_exchanged(volume):
    """With another directory's header no name of this one may be shown, least of all under another name."""
    volume.init().mount()
    entries = marked(volume, directory_with_a_file, 2)
    (first, lower_first), (second, lower_second) = entries
    targets = os.readlink(lower_first / SIDECAR), os.readlink(lower_second / SIDECAR)
    retarget(lower_first / SIDECAR, targets[1])
    retarget(lower_second / SIDECAR, targets[0])
    volume.mount()
    for path in (first, second):
        kind, value = result(os.listdir, path)
        assert kind == "error" and value == errno.EIO or kind == "value" and value == [], (kind, value)
        assert result((path / "inside").read_bytes)[0] == "error"
    volume.unmount()
    volume.check(damaged=True)


@on_volume(limit=120, needs=["sealed", "lethefs"])
def root_header_removed_or_of_a_directory(volume):
    """The root's own header is bound to the volume: any other makes the mount fail, or the root unreadable."""
    volume.init().mount()
    entries = marked(volume, directory_with_a_file, 1)
    own = os.readlink(volume.lower / SIDECAR)
    for target in (os.readlink(entries[0][1] / SIDECAR), own[:-2], None):
        os.unlink(volume.lower / SIDECAR)
        if target is not None:
            os.symlink(target, volume.lower / SIDECAR)
        answer = volume.command("mount", volume.lower, volume.mountpoint, check=False)
        if answer.returncode == 0:
            outcome = result(os.listdir, volume.mountpoint)
            volume.unmount()
            assert outcome == ("error", errno.EIO), outcome
        else:
            assert answer.stderr.strip()
        if target is None:
            os.symlink(own, volume.lower / SIDECAR)


@on_volume(limit=240, needs=["sealed"])
def names_edited(volume):
    """A lower name that is not one of ours shows as an error or not at all; true names stay."""
    volume.init().mount()
    entries = marked(volume, Path.touch, 4)
    names = [lower.name for _, lower in entries]
    edited = 0
    for variant in variants(names[0]):
        if "/" not in variant and not (volume.lower / variant).exists() and len(variant) < 256:
            (volume.lower / variant).write_bytes(entries[0][1].read_bytes())
            edited += 1
    assert edited
    volume.mount()
    kind, value = result(os.listdir, volume.mountpoint)
    true = {path.name for path, _ in entries}
    assert kind == "error" and value == errno.EIO or set(value) <= true | {SIDECAR}, (kind, value)
    for path, _ in entries[1:]:
        assert result(path.read_bytes) == ("value", b""), path
    volume.unmount()


@on_volume(limit=120, needs=["sealed", "lethefs"])
def name_moved_to_another_directory(volume):
    """An encrypted name taken into another directory says nothing there."""
    volume.init().mount()
    directories = marked(volume, directory_with_a_file, 2)
    (first, lower_first), (second, lower_second) = directories
    inner = next(path for path in lower_first.iterdir() if path.name != SIDECAR)
    os.rename(inner, lower_second / inner.name)
    volume.mount()
    kind, value = result(os.listdir, second)
    assert (kind, value) == ("error", errno.EIO) or kind == "value" and value == ["inside"], (kind, value)
    assert os.listdir(first) == []
    volume.unmount()


@on_volume(limit=240, needs=["sealed", "lethefs"])
def long_names_edited(volume):
    """The sidecar of a long name changed, removed or exchanged: never another name for the file."""
    volume.init().mount()
    names = {f"{number:02d}" + "n" * 250 for number in range(6)}
    for name in names:
        (volume.mountpoint / name).write_bytes(name.encode())
    volume.unmount()
    sidecars = sorted(path for path in volume.lower.iterdir() if path.is_symlink() and path.name != SIDECAR)
    assert len(sidecars) == 6, sidecars
    target = os.readlink(sidecars[0])
    for variant in variants(target)[::40]:
        retarget(sidecars[0], variant)
        expect_only(volume, names)
    retarget(sidecars[0], os.readlink(sidecars[1]))
    expect_only(volume, names)
    retarget(sidecars[0], target)
    os.unlink(sidecars[2])
    expect_only(volume, names)


def expect_only(volume, names):
    volume.mount()
    kind, value = result(os.listdir, volume.mountpoint)
    if kind == "error":
        assert value == errno.EIO, errno.errorcode[value]
    else:
        assert set(value) <= names and len(set(value)) == len(value), f"other names are shown: {set(value) - names}"
    for name in names:
        outcome = result((volume.mountpoint / name).read_bytes)
        assert outcome[0] == "error" or outcome[1] == name.encode(), "another's content is shown"
    volume.unmount()


@on_volume(limit=240, needs=["sealed"])
def link_targets_edited(volume):
    volume.init().mount()
    os.symlink("../some/target of a link", volume.mountpoint / "probe")
    volume.unmount()
    sample = max((os.readlink(path) for path in volume.lower.iterdir() if path.is_symlink() and path.name != SIDECAR),
                 key=len)
    volume.mount()
    count = len(variants(sample))
    entries = marked(volume, lambda path: os.symlink("../some/target of a link", path), count)
    for number, (_, lower) in enumerate(entries):
        retarget(lower, variants(os.readlink(lower))[number])
    volume.mount()
    all_refused([(f"variant {number}", result(os.readlink, path)) for number, (path, _) in enumerate(entries)])
    volume.unmount()


@on_volume(limit=240, needs=["sealed"])
def attribute_values_edited(volume):
    def make(path):
        path.write_bytes(b"content")
        os.setxattr(path, "user.name", b"a value of some length")
    volume.init().mount()
    make(volume.mountpoint / "probe")
    volume.unmount()
    (size,) = {len(value) for path in volume.lower.iterdir() if not path.is_symlink() and path.is_file()
               for value in lower_attributes(path).values()}
    volume.mount()
    offsets = range(0, size, STRIDE)
    entries = marked(volume, make, len(offsets) + 4)
    for offset, (_, lower) in zip(offsets, entries):
        edit_attribute(lower, lambda value: value[:offset] + bytes([value[offset] ^ 4]) + value[offset + 1:])
    rest = entries[len(offsets):]
    edit_attribute(rest[0][1], lambda value: value[:-1])
    edit_attribute(rest[1][1], lambda value: value + b"\0")
    edit_attribute(rest[2][1], lambda value: b"")
    edit_attribute(rest[3][1], lambda value: next(iter(lower_attributes(rest[2][1]).values())) or bytes(len(value)))
    volume.mount()
    all_refused([(f"variant {number}", result(os.getxattr, path, "user.name"))
                 for number, (path, _) in enumerate(entries)])
    assert rest[0][0].read_bytes() == b"content", "the content is not touched by it"
    volume.unmount()


@on_volume(limit=120, needs=["sealed"])
def attributes_exchanged_between_files(volume):
    def make(path):
        path.touch()
        os.setxattr(path, "user.name", path.name.encode())
    volume.init().mount()
    entries = marked(volume, make, 2)
    values = [lower_attributes(lower) for _, lower in entries]
    for (_, lower), taken in zip(entries, reversed(values)):
        for name in lower_attributes(lower):
            os.removexattr(lower, name)
        for name, value in taken.items():
            os.setxattr(lower, name, value)
    volume.mount()
    for path, _ in entries:
        kind, value = result(os.getxattr, path, "user.name")
        assert kind == "error" and value in (errno.EIO, errno.ENODATA), (kind, value)
    volume.unmount()


def lower_attributes(path) -> dict:
    """Without that of `init --integrity names`, which no program sees."""
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
            if name != "user.lethefs.places"}


def edit_attribute(path, edit):
    for name, value in lower_attributes(path).items():
        os.setxattr(path, name, edit(value))
