"""Every change to a lower file is noticed: reading gives EIO or the exact plaintext, never anything else."""

import errno
import json
import os
import random
import shutil

from harness import full_run, on_volume, part
from harness.environment import backend_name
from harness.layout import FIRST_PAYLOAD, HEADER, PAGE, PAYLOAD, Marks, flip, leaders, lower_length, used_end

SIZES = (0, 1, 3551, FIRST_PAYLOAD, FIRST_PAYLOAD + 1, 5000, FIRST_PAYLOAD + PAYLOAD, FIRST_PAYLOAD + PAYLOAD + 1, 20_000)
#: Of payload bytes every so-manieth is flipped; of headers and leaders each one in a full run.
PAYLOAD_STRIDE = 13 if full_run() else 401
HEADER_STRIDE = 1 if full_run() else 5


def content(size):
    return random.Random(size).randbytes(size)


class Corpus:
    """Identical files on a volume, one for each way of tampering, and the verdict on each afterwards."""

    def __init__(self, volume, size, ways):
        self.volume, self.size, self.ways = volume, size, ways
        volume.init().mount()
        marks = Marks()
        self.paths = [volume.mountpoint / f"copy {number}" for number in range(len(ways))]
        for path in self.paths:
            self.make(path)
        for path in self.paths:
            marks.mark(path)
        volume.unmount()
        lower = marks.find(volume.lower)
        self.lower = [lower[path] for path in self.paths]

    def make(self, path):
        path.write_bytes(content(self.size))

    def plaintext(self):
        return content(self.size)

    def judge(self, harmless=lambda way: False):
        """Mounts and reads all. `harmless(way)`: the exact plaintext is as good as EIO."""
        self.volume.mount()
        want, wrong, refused = self.plaintext(), [], set()
        for path, way in zip(self.paths, self.ways):
            try:
                got = path.read_bytes()
            except OSError as error:
                refused.add("/" + path.name)
                if error.errno != errno.EIO:
                    wrong.append(f"{way}: {errno.errorcode[error.errno]}")
                continue
            if got != want:
                wrong.append(f"{way}: wrong plaintext, {len(got)} bytes")
            elif not harmless(way):
                wrong.append(f"{way}: not noticed")
        assert not wrong, f"size {self.size}: {len(wrong)} of {len(self.ways)}: " + "; ".join(wrong[:8])
        (self.volume.mountpoint / "still").write_bytes(b"alive")
        assert (self.volume.mountpoint / "still").read_bytes() == b"alive"
        self.volume.unmount()
        if backend_name() == "lethefs":
            missed = refused - found_by_check(self.volume)
            assert not missed, f"{len(missed)} of {len(refused)} are not named by check: {sorted(missed)[:5]}"


def found_by_check(volume):
    """Plaintext paths that the offline check calls damaged."""
    answer = volume.command("check", volume.lower, "--json", check=False, limit=120)
    return {finding["path"] for finding in json.loads(answer.stdout)["findings"]}


class SparseCorpus(Corpus):
    """Data, a hole of several pages, data."""

    def make(self, path):
        with open(path, "wb") as file:
            file.write(b"start")
            file.seek(5 * PAYLOAD)
            file.write(content(100))

    def plaintext(self):
        return b"start".ljust(5 * PAYLOAD, b"\0") + content(100)


def flips(size):
    """(offset, bits) of the bytes to flip: headers and leaders densely, payload by stride, and what lies behind it."""
    end, length = used_end(size), lower_length(size)
    offsets = set(range(0, HEADER, HEADER_STRIDE))
    for leader in leaders(size):
        offsets |= set(leader[::HEADER_STRIDE])
        offsets |= {leader.stop, leader.stop + 1}
    offsets |= set(range(HEADER, end, PAYLOAD_STRIDE)) | {end - 1}
    if end < length:
        offsets |= {end, (end + length) // 2, length - 1}
    return [(offset, 1 << offset % 8) for offset in sorted(offsets) if 0 <= offset < length]


def flipped(volume, size):
    corpus = Corpus(volume, size, flips(size))
    for path, (offset, bits) in zip(corpus.lower, corpus.ways):
        flip(path, offset, bits)
    corpus.judge(harmless=lambda way: way[0] >= used_end(size))
    volume.check(damaged=True)


for _size in SIZES:
    part(f"[{_size}]", lambda volume, size=_size: flipped(volume, size), limit=240, needs=["sealed"],
         quick=_size in (0, 1, FIRST_PAYLOAD + 1, 20_000), name="flipped_bytes")


def length_changes(size):
    """Lower lengths at every boundary and one off."""
    right = lower_length(size)
    edges = {0, HEADER, right, used_end(size)} | {page * PAGE for page in range(right // PAGE + 3)}
    edges |= {page * PAGE + HEADER for page in range(right // PAGE + 2)}
    return sorted({edge + step for edge in edges for step in (-1, 0, 1) if edge + step >= 0} - {right})


def cut_or_extended(volume, size):
    corpus = Corpus(volume, size, length_changes(size))
    for path, length in zip(corpus.lower, corpus.ways):
        os.truncate(path, length)
    corpus.judge(harmless=lambda length: size == 0 and length == 0)


def extended_with_bytes(volume, size):
    corpus = Corpus(volume, size, [1, 31, 32, 33, 512, 4063, 4064, 4095, 4096, 8192])
    for path, count in zip(corpus.lower, corpus.ways):
        with open(path, "ab") as file:
            file.write(os.urandom(count))
    corpus.judge()


for _size in SIZES:
    part(f"[{_size}]", lambda volume, size=_size: cut_or_extended(volume, size), needs=["sealed"],
         quick=_size in (0, 5000, 20_000), name="cut_or_extended")
part("[5000]", lambda volume: extended_with_bytes(volume, 5000), needs=["sealed"], name="extended_with_bytes")


def edit_pages(corpus, edit):
    """Calls `edit(bytearray, way)` on each lower file."""
    for path, way in zip(corpus.lower, corpus.ways):
        data = bytearray(path.read_bytes())
        edit(data, way)
        path.write_bytes(data)


@on_volume(limit=120, needs=["sealed"])
def zeroed_ranges(volume):
    """Pages, and parts of pages, set to zero in a file that is not sparse."""
    ways = [(page * PAGE, PAGE) for page in range(5)] + [
        (0, HEADER), (HEADER, 3584), (PAGE, 32), (PAGE + 32, 4064), (PAGE, 2 * PAGE), (0, 5 * PAGE)]

    def edit(data, way):
        data[way[0]:way[0] + way[1]] = bytes(way[1])
    corpus = Corpus(volume, 20_000, ways)
    edit_pages(corpus, edit)
    corpus.judge()


@on_volume(limit=120, needs=["sealed"])
def pages_moved_within_a_file(volume):
    def edit(data, way):
        first, second = (page * PAGE for page in way)
        data[first:first + PAGE], data[second:second + PAGE] = data[second:second + PAGE], data[first:first + PAGE]
    corpus = Corpus(volume, 20_000, [(1, 2), (1, 3), (2, 3), (3, 4), (0, 1)])
    edit_pages(corpus, edit)
    corpus.judge()


@on_volume(limit=120, needs=["sealed"])
def pages_copied_between_files(volume):
    """Of equal plaintext at the equal place: only the file's identity tells them apart."""
    ways = [("donor", 0, 1)] + [(page, page * PAGE, PAGE) for page in range(1, 5)] + [
        ("header", 0, HEADER), ("first page without header", HEADER, 3584), ("leader", PAGE, 32), ("page 0", 0, PAGE)]
    corpus = Corpus(volume, 20_000, ways)
    donor = corpus.lower[0].read_bytes()

    def edit(data, way):
        if way[0] != "donor":
            data[way[1]:way[1] + way[2]] = donor[way[1]:way[1] + way[2]]
    edit_pages(corpus, edit)
    corpus.judge(harmless=lambda way: way[0] == "donor")


@on_volume(limit=120, needs=["sealed"])
def holes_of_a_sparse_file_written_to(volume):
    corpus = SparseCorpus(volume, 5 * PAYLOAD + 100, [("flip", 2 * PAGE), ("flip", 3 * PAGE + 2000), ("flip", 9),
                                                      ("copy", 0), ("flip", HEADER + 40)])
    for path, (what, offset) in zip(corpus.lower, corpus.ways):
        if what == "flip":
            flip(path, offset)
        else:
            data = bytearray(path.read_bytes())
            data[3 * PAGE:4 * PAGE] = data[5 * PAGE:6 * PAGE]
            path.write_bytes(data)
    corpus.judge()


@on_volume(limit=120, needs=["sealed"])
def content_of_another_volume(volume):
    """A whole file from another volume, under the name of one of ours."""
    from harness import Volume
    corpus = Corpus(volume, 5000, ["whole file"])
    with Volume(volume.root / "other") as other:
        theirs = Corpus(other, 5000, ["whole file"])
        shutil.copyfile(theirs.lower[0], corpus.lower[0])
    corpus.judge()


@on_volume(limit=60, needs=["sealed"])
def damage_stays_local(volume):
    """A bad page costs that page: others of the file, other files, writes elsewhere go on."""
    corpus = Corpus(volume, 20_000, ["bad", "good"])
    flip(corpus.lower[0], 2 * PAGE + 100)
    volume.mount()
    assert corpus.paths[1].read_bytes() == content(20_000)
    with open(corpus.paths[0], "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 1000, 0) == content(20_000)[:1000]
        assert os.pread(file.fileno(), 500, 19_500) == content(20_000)[19_500:]
    volume.unmount()
