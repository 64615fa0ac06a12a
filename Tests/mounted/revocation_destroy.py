"""`cmk destroy`: after it nothing that was copied before opens, with anything that is left in the token."""

import errno
import json
import shutil

from harness import equal, on_volume, raises, run
from harness.tokens import keys_of


@on_volume(limit=120, needs=["lethefs"])
def no_copy_opens(volume):
    volume.init().mount()
    (volume.mountpoint / "file").write_bytes(b"secret" * 1000)
    volume.unmount()
    copy = volume.root / "copy"
    run(["cp", "-a", volume.lower, copy])
    volume.mount()
    name = keys_of(volume)[0].path["object"]
    refused = volume.command("cmk", "destroy", volume.mountpoint, "--yes", "another-name", check=False)
    assert refused.returncode != 0, "destroyed under a wrong name"
    equal((volume.mountpoint / "file").read_bytes(), b"secret" * 1000)
    unasked = volume.command("cmk", "destroy", volume.mountpoint, check=False)
    assert unasked.returncode != 0, "destroyed without a terminal to ask on"
    volume.command("cmk", "destroy", volume.mountpoint, "--yes", name)
    raises({errno.EKEYREVOKED, errno.ENOKEY}, (volume.mountpoint / "file").read_bytes)
    told = json.loads(volume.command("status", volume.mountpoint, "--json").stdout)["zones"][0]
    equal(told["cmks"][0]["state"], "destroyed")
    equal(told["condition"]["state"], "revoked")
    records = volume.command("audit", "show", volume.mountpoint).stdout
    assert "cmk-destroyed" in records, records
    volume.unmount()
    for lower in (volume.lower, copy):
        answer = volume.command("mount", lower, volume.mountpoint, check=False)
        equal(answer.returncode, 22, f"mounting {lower.name} after the CMK's end: {answer.stderr}")
    volume.command("audit", "verify", volume.lower)
    shutil.rmtree(copy)
