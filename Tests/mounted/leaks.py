"""Nothing that a user wrote, or called something, can be found on the lower storage."""

import base64
import os
from pathlib import Path

from harness import on_volume

LENGTHS = (8, 9, 12, 16, 24, 31, 32, 33, 64, 100, 255, 1000, 3552, 3553, 4064, 4096, 7616, 20_000, 65_536)


class Markers:
    """Texts made of one repeated word of 8 letters and digits, so that any 15 bytes of a text hold the word."""

    def __init__(self):
        self.words = {}

    def text(self, kind: str, length: int) -> bytes:
        word = base64.b32encode(os.urandom(5))
        self.words[word] = f"{kind} of {length} bytes"
        return (word * (length // 8 + 1))[:length]

    def forms(self):
        """Each word as it is, and as it would show in a common encoding, at each alignment."""
        for word, what in self.words.items():
            yield word, what
            yield word[::-1], what + ", reversed"
            yield word.lower(), what + ", in lower case"
            yield word.hex().encode(), what + ", in hexadecimal"
            yield word.hex().upper().encode(), what + ", in hexadecimal"
            yield word.decode().encode("utf-16-le"), what + ", in UTF-16"
            yield base64.b32encode(word)[:12], what + ", in base32"
            for shift in range(3):
                cut = base64.b64encode(b"\0" * shift + word)
                inner = cut[(shift * 8 + 5) // 6:(shift + 8) * 8 // 6]
                yield inner, what + ", in base64"
                yield inner.translate(bytes.maketrans(b"+/", b"-_")), what + ", in base64url"


def write_everything(top: Path, markers: Markers):
    for length in LENGTHS:
        path = top / f"c{length}"
        path.write_bytes(markers.text("content", length))
    with open(top / "appended", "ab", buffering=0) as file:
        for length in LENGTHS[:12]:
            file.write(markers.text("appended content", length))
    overwritten = top / "overwritten"
    overwritten.write_bytes(markers.text("overwritten content", 9_000))
    with open(overwritten, "r+b") as file:
        file.write(os.urandom(4_500))
    (top / "deleted").write_bytes(markers.text("deleted content", 9_000))
    (top / "deleted").unlink()
    for length in (8, 16, 40, 100, 176, 177, 200, 255):
        (top / markers.text("file name", length).decode()).touch()
        (top / markers.text("directory name", length).decode()).mkdir()
        os.symlink("x", top / markers.text("link name", length).decode())
        os.mkfifo(top / markers.text("fifo name", length).decode())
        path = top / "renamed"
        path.touch()
        os.rename(path, top / markers.text("new name", length).decode())
    for length in (8, 16, 59, 60, 61, 100, 255, 1000, 2900, 4000, 4095):
        os.symlink(markers.text("link target", length), os.fsencode(top / f"l{length}"))
    (top / "attributes").mkdir()
    for path in (top / "attributes", top / "c4096"):
        for length in (8, 32, 100, 200):
            name = b"user." + markers.text("attribute name", length)
            os.setxattr(path, name, markers.text("attribute value", length))
        os.setxattr(path, b"trusted." + markers.text("trusted attribute name", 16), b"x")
    os.setxattr(top / "c1000", "user.long", markers.text("attribute value", 1500))


def pieces(top: Path):
    """(where, bytes) of everything below `top`: names, targets, attributes, contents."""
    for directory, names, files in os.walk(os.fsencode(top)):
        for name in names + files:
            path = os.path.join(directory, name)
            yield path, name
            if os.path.islink(path):
                yield path + b" (target)", os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    yield path, file.read()
            for attribute in os.listxattr(path, follow_symlinks=False):
                yield path + b" (attribute name)", attribute.encode()
                yield path + b" (attribute)", os.getxattr(path, attribute, follow_symlinks=False)


def entries(top):
    """All paths below `top`. (Path.rglob follows links, and stumbles over targets longer than a name may be.)"""
    return [Path(directory, name) for directory, names, files in os.walk(top) for name in names + files]


def leaked(top: Path, markers: Markers):
    forms = dict(markers.forms())
    found = []
    for where, data in pieces(top):
        found += [f"{what} in {where!r}" for form, what in forms.items() if form in data]
    return found


@on_volume(limit=120)
def nothing_leaks(volume):
    volume.init().mount()
    markers = Markers()
    write_everything(volume.mountpoint, markers)
    os.sync()
    early = leaked(volume.lower, markers)
    volume.unmount()
    found = early + leaked(volume.lower, markers) + leaked(volume.home, markers)
    assert not found, f"{len(found)} leaks: " + "; ".join(found[:6])
    volume.mount()
    assert markers.words[(volume.mountpoint / "c64").read_bytes()[:8]].startswith("content"), "the markers are there"


@on_volume(limit=60, needs=["sealed"])
def equal_plaintexts_look_unlike(volume):
    """Pages, targets and attributes of equal plaintext have no ciphertext in common, within a file or between files."""
    volume.init().mount()
    for number in range(20):
        (volume.mountpoint / f"same{number}").write_bytes(b"A" * 40_000)
        os.symlink("equal target", volume.mountpoint / f"link{number}")
    volume.unmount()
    blocks, count = set(), 0
    for where, data in pieces(volume.lower):
        if len(data) < 40_000 or not data.strip(b"\0"):
            continue
        for at in range(4096, 36_864, 16):
            blocks.add(data[at:at + 16])
            count += 1
    assert count >= 20 * 2000, "the contents were not found"
    assert len(blocks) == count, f"{count - len(blocks)} of {count} blocks repeat"
    targets = [os.readlink(path) for path in entries(volume.lower)
               if path.is_symlink() and not path.name.startswith("lethefs.")]
    assert len(targets) >= 20 and len(set(targets)) == len(targets), "equal targets look equal"


@on_volume(limit=60, needs=["sealed"])
def equal_names_in_two_directories_look_unlike(volume):
    volume.init().mount()
    for directory in ("one", "two"):
        (volume.mountpoint / directory).mkdir()
        for name in ("equal", "n" * 250):
            (volume.mountpoint / directory / name).touch()
    volume.unmount()
    seen = [path.name for path in entries(volume.lower)
            if path.parent != volume.lower and not path.is_symlink() and path.is_file()
            and ".lethefs" not in path.parts and path.name != "gocryptfs.diriv"]
    assert len(seen) >= 4, seen
    assert len(set(seen)) == len(seen), f"names repeat: {seen}"
