"""The CMK of a volume under test, as other programs reach it: switched off and on, or behind a module that misbehaves."""

import json
import os
import shutil
import urllib.parse
from pathlib import Path

from .process import run
from .scene import compiled

TOKENS = Path(__file__).resolve().parents[2] / "tokens"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


class Key:
    """A CMK in an embedded SoftHSM2 token."""

    def __init__(self, volume, uri):
        self.volume, self.uri = volume, uri
        path, _, query = uri.removeprefix("pkcs11:").partition("?")
        self.path = dict(part.split("=", 1) for part in path.split(";"))
        self.query = dict(part.split("=", 1) for part in query.split("&"))

    @property
    def pin(self):
        """Where this host keeps the token's PIN."""
        token = urllib.parse.unquote(self.path["token"])
        return Path(self.volume.home) / "softhsm" / "pins" / f"{token}.pin"

    def by_other_program(self, *action):
        """Changes the key as a program that knows nothing of LetheFS: enable, disable, destroy; show; set-pin NEW, of its token."""
        token, pin = urllib.parse.unquote(self.path["token"]), self.pin
        return run(
            [compiled(TOKENS / "other-process.c", libraries=["-ldl"], *["-I/usr/include/p11-kit-1"]),
             self.query["module-path"], "C_GetFunctionList", "", token, pin, urllib.parse.unquote(self.path["object"]),
             *action], env={"SOFTHSM2_CONF": urllib.parse.unquote(self.query["x-conf"])}).stdout


def keys_of(volume):
    """The CMKs of a volume that this host made, the root zone's first."""
    record = next((Path(volume.home) / "volumes").glob("*.json"))
    return [Key(volume, uri) for uri in json.loads(record.read_text())["roots"]]


class FaultyModule:
    """A SoftHSM2 token behind tokens/interposer.c: hangs and fails as told."""

    def __init__(self, volume, name="faulty"):
        self.directory = volume.root / name
        self.control = self.directory / "control"
        self.control.mkdir(parents=True)
        (self.directory / "tokens").mkdir()
        self.configuration = self.directory / "softhsm2.conf"
        self.configuration.write_text(
            f"directories.tokendir = {self.directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
            "slots.removable = false\n")
        self.pin = self.directory / "pin"
        self.pin.write_text("1234\n")
        os.chmod(self.pin, 0o600)
        run(["softhsm2-util", "--init-token", "--free", "--label", name, "--so-pin", "5678", "--pin", "1234"],
            env={"SOFTHSM2_CONF": str(self.configuration)})
        module = self.directory / "module.so"
        # A library of its own: two tokens in one process would share what is global in it.
        real = self.directory / "libsofthsm2.so"
        shutil.copy(SOFTHSM, real)
        run(["gcc", "-O2", "-shared", "-fPIC", "-I/usr/include/p11-kit-1", f'-DREAL="{real}"',
             f'-DCONTROL="{self.control}"', "-o", module, TOKENS / "interposer.c", "-ldl"], limit=120)
        os.chmod(module, 0o755)
        self.uri = f"pkcs11:token={name};object=cmk?module-path={module}&pin-source={self.pin}&x-conf={self.configuration}"

    def relabel(self, old, new):
        """The token gets another label, as long as the one before; its keys stay."""
        for path in self.directory.glob("tokens/*/token.object"):
            path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
        self.uri = self.uri.replace(f"token={old};", f"token={new};")

    def hang(self, on=True):
        if on:
            (self.control / "hang").touch()
        else:
            (self.control / "hang").unlink(missing_ok=True)

    def fail(self, call, value, times):
        """The next `times` calls of `call` return `value`; 0 ends it."""
        path = self.control / f"inject.{call}"
        if times:
            path.write_text(f"{value} {times}")
        else:
            path.unlink(missing_ok=True)
