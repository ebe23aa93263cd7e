"""The forwarder under test: started with a configuration of its own, asked for its numbers, stopped."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

from lab import owner, process
from lab.scope import Scope

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


class DaemonFailed(RuntimeError):
    pass


def binary() -> pathlib.Path:
    return present(os.environ.get("APUS_BINARY", REPOSITORY / ".build/release/apus"), "APUS_BINARY")


def present(path, variable: str) -> pathlib.Path:
    if not os.access(path, os.X_OK):
        raise DaemonFailed(f"{path} is not there: `make build` makes it, {variable} names another")
    return pathlib.Path(path)


def installed_libraries() -> dict[str, str]:
    """An environment in which the loader prefers the system's libraries to those beside an executable."""
    [folder] = {library.parent for library in pathlib.Path("/usr/lib").glob("*/librte_vhost.so")}
    return {"LD_LIBRARY_PATH": str(folder)}


def quicker_library() -> pathlib.Path | None:
    """The vhost library that `make build` has put beside the executable, where it could."""
    return next(binary().resolve().parent.glob("glibc-hwcaps/x86-64-v3/librte_vhost.so.*"), None)


def polling_core() -> int:
    """The last core this process may use; the kernel's own work and the tests prefer the first."""
    return max(os.sched_getaffinity(0))


def ini(sections: dict[str, dict[str, object]]) -> str:
    return "\n".join(f"[{title}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                     for title, keys in sections.items())


class Daemon:
    """`sections` lacks only what every configuration here has in common, and may override it."""

    def __init__(self, sections: dict[str, dict[str, object]], executable: pathlib.Path,
                 environment: dict[str, str] | None = None):
        self.executable = executable
        # A backtracer would hold a crashed daemon, with its hugepages, instead of letting it be seen.
        self._environment = os.environ | {"SWIFT_BACKTRACE": "enable=no"} | (environment or {})
        self._sections = sections
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            self.directory = owner.temporary_directory()
            self._scope.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._configure()
            self._child, self._answered = None, False
            self._scope.callback(self._stop)
            with open(self._log, "w") as log:
                self._child = process.spawn([self.executable, self.configuration], death_signal="TERM", stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL, env=self._environment)
            self._wait_until_it_answers(seconds=60)
            self._answered = True
        return self

    def _configure(self):
        self._name, self._socket = self.directory.name, self.directory / "stats.sock"
        self._log, self.configuration = self.directory / "log", self.directory / owner.CONFIGURATION
        common = {"name": self._name, "lcores": polling_core(), "memory": "128M", "hugepages": "auto",
                  "stats-socket": self._socket}
        self.configuration.write_text(ini(self._sections | {"apus": common | self._sections.get("apus", {})}))

    def __exit__(self, *exception):
        self._scope.close()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def name(self) -> str:
        return self._name

    @property
    def socket(self) -> pathlib.Path:
        return self._socket

    def stats(self) -> dict:
        return self.ask("stats")

    def ask(self, command: str) -> dict:
        """One line in, one JSON document a line out."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self._socket))
            client.sendall(f"{command}\n".encode())
            with client.makefile() as lines:
                answer = lines.readline()
        if not answer.endswith("\n"):
            raise DaemonFailed(f"stats socket answered {answer!r} without a line end")
        return json.loads(answer)

    def settled_stats(self, seconds: float = 10) -> dict:
        """The numbers once no packet moves any more: two answers 50 ms apart with the same packets."""
        deadline, before = time.monotonic() + seconds, None
        while True:
            now = self.stats()
            quiet = [now["ports"], now["checksum"]]
            if quiet == before:
                return now
            if time.monotonic() > deadline:
                raise DaemonFailed("traffic does not end")
            before = quiet
            time.sleep(0.05)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _wait_until_it_answers(self, seconds: float):
        deadline = time.monotonic() + seconds
        while True:
            if self._child.poll() is not None:
                raise DaemonFailed(self._report("ended at start-up"))
            try:
                return self.stats()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise DaemonFailed(self._report(f"stats socket silent ({error})")) from None
            time.sleep(0.02)

    def _stop(self):
        if self._child is None:
            return
        running = self._child.poll() is None
        ended = process.stop(self._child)
        if running and not ended:
            raise DaemonFailed(self._report("had to be killed: SIGTERM did not end it in time"))
        if not self._answered:
            return  # its start-up has failed or was interrupted, which is being reported
        if self._child.returncode:
            raise DaemonFailed(self._report("failed"))
        left = [str(path) for path in (self._socket, owner.RUNTIME / self._name) if path.exists()]
        if left:
            raise DaemonFailed(f"left behind: {', '.join(left)}")

    def _report(self, what: str) -> str:
        tail = "\n".join(self.log().splitlines()[-40:])
        return (f"{self.executable.name} {what}, exit status {self._child.returncode}\n"
                f"--- configuration\n{self.configuration.read_text()}--- output\n{tail}")
