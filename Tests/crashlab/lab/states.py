"""Which crash states a log allows.

A state is (class, cut, kept): everything up to the last flush before `cut` is on the disk, and of the writes between that
flush and `cut` those in `kept`, each either whole or, as (index, sectors), by sectors of 4096 or 512 bytes.

- prefix: all writes up to the cut, in their order
- reorder: any of the writes since the last flush, the others lost
- tear4k: as prefix, the last write torn at a boundary of 4096 bytes of the disk, or in holes
- tear512: the same with sectors of 512 bytes
"""

CLASSES = ("prefix", "reorder", "tear4k", "tear512")


def _open_epoch(records, cut):
    """The writes after the last flush before `cut`."""
    first = cut
    while first > 0 and records[first - 1][0] == 1:
        first -= 1
    return range(first, cut)


def _torn(record, size, chance):
    """A part of a write's sectors: neither none nor all of them. None where it has one sector only."""
    _, offset, body = record
    first, last = offset // size, (offset + len(body) - 1) // size
    count = last - first + 1
    if count < 2:
        return None
    way = chance.randrange(3)
    if way == 0:
        return (size, frozenset(range(first, first + chance.randrange(1, count))))
    if way == 1:
        return (size, frozenset(range(first + chance.randrange(1, count), last + 1)))
    kept = frozenset(sector for sector in range(first, last + 1) if chance.random() < 0.5)
    return (size, kept) if 0 < len(kept) < count else (size, frozenset({first}))


def all_prefixes(records, start):
    return [("prefix", cut, None) for cut in range(start, len(records) + 1)]


def sample(records, start, kind, count, chance):
    """At most `count` states of one class, spread over the log."""
    found = {}
    writes = [index for index in range(start, len(records)) if records[index][0] == 1]
    tries = 0
    while writes and len(found) < count and tries < count * 8:
        tries += 1
        index = chance.choice(writes)
        cut = index + 1
        epoch = [number for number in _open_epoch(records, cut) if number >= start]
        if kind == "reorder":
            if len(epoch) < 2:
                continue
            keep = tuple((number, None) for number in epoch if chance.random() < 0.5)
            if len(keep) == len(epoch):
                keep = keep[1:]
        else:
            torn = _torn(records[index], 4096 if kind == "tear4k" else 512, chance)
            if torn is None:
                continue
            # Half of them with all that went before, half with only some of it.
            before = [number for number in epoch[:-1] if tries % 2 or chance.random() < 0.5]
            keep = tuple((number, None) for number in before) + ((index, torn),)
        found[(cut, keep)] = (kind, cut, keep)
    return list(found.values())


class Disk:
    """The disk up to some flush, moved forward through the log."""

    def __init__(self, base, log, start):
        self.image, self.log, self.done = bytearray(base), log, 0
        self.forward(start)

    def forward(self, end):
        for kind, offset, body in self.log.records[self.done:end]:
            if kind == 1:
                self.image[offset:offset + len(body)] = body
        self.done = max(self.done, end)

    def put(self, state, target):
        """Writes a state into `target`, a mapping of the same size. States come in the order of their cuts."""
        _, cut, keep = state
        records = self.log.records
        epoch = _open_epoch(records, cut)
        self.forward(epoch.start)
        target[:] = self.image
        for index, torn in ([(number, None) for number in epoch] if keep is None else keep):
            _, offset, body = records[index]
            if torn is None:
                target[offset:offset + len(body)] = body
                continue
            size, sectors = torn
            for sector in sectors:
                start, end = max(offset, sector * size), min(offset + len(body), (sector + 1) * size)
                target[start:end] = body[start - offset:end - offset]
