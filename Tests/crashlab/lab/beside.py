"""What an operator does while a workload runs: rotations go on beside it, revocations come between its operations.

Each is a context around the workload. None destroys a key in the token: that makes older copies of the volume unreadable, which the
states that are replayed are.
"""

import json
import random
import threading
import time


class Nothing:
    """`count`: how many headers or files were changed, or how often the volume was revoked."""
    reseals = False  # Pages are written that no program overwrites: a tear of 512 bytes can cost those, too.
    every = 0  # Each Nth state is read through a real mount; 0 for as the command line says.

    def __init__(self, backend, work, seed):
        self.backend, self.work, self.chance, self.count = backend, work, random.Random(seed), 0

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        pass


class Sweeping(Nothing):
    """Rotations one after the other, from before the first operation until after the last."""
    every = 25
    commands = ()

    def __enter__(self):
        self.over, self.failure = threading.Event(), None
        # DEKs tell their age in seconds: the workload has to take some, for there to be several sweeps.
        self.work.between = lambda: time.sleep(0.02)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self):
        try:
            while not self.over.is_set():
                for command in self.commands:
                    report = json.loads(self.backend.command(*command, self.backend.mountpoint, "--json"))
                    self.count += report.get("rewrapped", 0) + report.get("reencrypted", 0)
        except Exception as failure:  # noqa: BLE001  told by __exit__
            self.failure = failure

    def __exit__(self, *failure):
        self.over.set()
        self.thread.join()
        if self.failure is not None:
            raise self.failure


class Rewrapping(Sweeping):
    commands = (("kek", "rotate"),)


class Reencrypting(Sweeping):
    reseals = True
    commands = (("reencrypt",),)


class Rotating(Sweeping):
    reseals = True
    commands = (("kek", "rotate"), ("reencrypt",))


class Revoking(Nothing):
    """Every few operations the volume is revoked and restored; files stay open through it."""
    every = 25

    def __enter__(self):
        self.work.between = self._between
        return self

    def _between(self):
        if self.chance.random() < 0.15:
            self.backend.command("revoke", self.backend.mountpoint)
            self.backend.command("restore", self.backend.mountpoint)
            self.count += 1


BESIDE = {"": Nothing, "rewrap": Rewrapping, "reencrypt": Reencrypting, "rotate": Rotating, "revoke": Revoking}

# Which workloads run beside which: those that make headers, pages and names change while a sweep or a revocation does.
COMBINED = {
    "rewrap": ("sqlite_wal", "overwrites", "trees", "attributes"),
    "reencrypt": ("sqlite_rollback", "appends", "truncates", "sparse"),
    "rotate": ("postgres", "overwrites", "hard_links", "packages"),
    "revoke": ("sqlite_wal", "postgres", "appends", "editors", "truncates"),
}
