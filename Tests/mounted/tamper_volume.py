"""`.lethefs/`: one byte changed anywhere, and the volume is refused with a clear message, before anything is mounted."""

import os
import shutil

from bad_input import refused
from harness import full_run, on_volume
from harness.layout import VOLUME_FEATURES, VOLUME_VERSION, flip

STRIDE = 1 if full_run() else 23


def volume_files(volume):
    """Files that a mount trusts. The audit log has a check of its own; the lock says only who holds it."""
    top = volume.lower / ".lethefs"
    found = [path for path in sorted(top.rglob("*")) if not path.is_symlink() and path.is_file() and path.stat().st_size]
    files = [path for path in found if "audit" not in str(path.relative_to(top)) and path.name != "lock"]
    assert any(path.name == "volume" for path in files), found
    return files


def made(volume):
    volume.init().mount()
    (volume.mountpoint / "f").write_bytes(b"content")
    volume.unmount()
    return volume_files(volume)


@on_volume(limit=900, needs=["lethefs"])
def every_byte_of_the_volume_files(volume):
    accepted = []
    for file in made(volume):
        whole = file.read_bytes()
        for offset in sorted({*range(0, len(whole), STRIDE), len(whole) - 1}):
            flip(file, offset, 1 << offset % 8)
            if not refused(volume, "mount", volume.lower, volume.mountpoint):
                accepted.append(f"{file.name} byte {offset}")
                volume.unmount()
            file.write_bytes(whole)
    assert not accepted, f"{len(accepted)} changes were not noticed: {accepted[:10]}"
    volume.mount()
    assert (volume.mountpoint / "f").read_bytes() == b"content"
    volume.unmount()


@on_volume(limit=300, needs=["lethefs"])
def volume_files_cut_extended_or_missing(volume):
    accepted = []
    for file in made(volume):
        whole = file.read_bytes()
        for what, data in (("empty", b""), ("half", whole[:len(whole) // 2]), ("cut by one", whole[:-1]),
                           ("one more", whole + b"\0"), ("zeros", bytes(len(whole))), ("missing", None)):
            file.unlink()
            if data is not None:
                file.write_bytes(data)
            if not refused(volume, "mount", volume.lower, volume.mountpoint):
                accepted.append(f"{file.name}: {what}")
                volume.unmount()
            file.write_bytes(whole)
    assert not accepted, f"{len(accepted)} changes were not noticed: {accepted[:10]}"


@on_volume(limit=120, needs=["lethefs"])
def newer_version_and_unknown_feature(volume):
    """The message says that a newer program is due: nothing is damaged, and nothing is to be repaired."""
    made(volume)
    file = volume.lower / ".lethefs/volume"
    whole = file.read_bytes()
    flip(file, VOLUME_VERSION, 2)
    assert "newer" in refused(volume, "mount", volume.lower, volume.mountpoint).lower()
    file.write_bytes(whole)
    flip(file, VOLUME_FEATURES, 1)
    assert "newer" in refused(volume, "mount", volume.lower, volume.mountpoint).lower()
    file.write_bytes(whole)
    volume.mount().unmount()


@on_volume(limit=120, needs=["lethefs"])
def volume_files_of_another_volume(volume):
    from harness import Volume
    made(volume)
    with Volume(volume.root / "other") as other:
        made(other)
        for file in volume_files(other):
            mine = volume.lower / file.relative_to(other.lower)
            whole = mine.read_bytes()
            shutil.copyfile(file, mine)
            message = refused(volume, "mount", volume.lower, volume.mountpoint)
            assert message, f"{file.name} of another volume was accepted"
            mine.write_bytes(whole)

@on_volume(limit=60, needs=["lethefs"])
def strange_entries_in_the_lower_tree(volume):
    """What other programs leave in the lower directory does not hinder the volume."""
    made(volume)
    (volume.lower / "lost+found").mkdir()
    (volume.lower / ".DS_Store").write_bytes(b"x")
    (volume.lower / ".lethefs/notes.txt~").write_bytes(b"x")
    os.mkfifo(volume.lower / "fifo")
    volume.mount()
    assert (volume.mountpoint / "f").read_bytes() == b"content"
    volume.unmount()
