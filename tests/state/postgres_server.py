"""A real PostgreSQL server on loopback, from the system's packages."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

START_SECONDS = 30.0
SUPERUSER = "postgres"


def find_programs() -> Path | None:
    """The folder with initdb and postgres of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """One cluster in a folder of its own. As root it runs as the packages' user: PostgreSQL refuses root."""

    def __init__(
        self, programs: Path, *, auth: str = "trust", password: str = "", settings: tuple[str, ...] = ()
    ) -> None:
        self._programs = programs
        self._as_user = SUPERUSER if os.geteuid() == 0 else None
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        # Not in pytest's folder, which only its owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="relay-postgres-"))
        if self._as_user:
            shutil.chown(self.folder, self._as_user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        password_file = self.folder / "password"
        password_file.write_text(password or "unused")
        password_file.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", SUPERUSER, "-A", auth, "--pwfile", password_file, "--no-sync")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.resume()
            self.stop("immediate")
        shutil.rmtree(self.folder)

    @property
    def running(self) -> bool:
        return self._process is not None

    def url(self, database: str = "postgres", *, password: str = "", options: str = "") -> str:
        """A URL that asyncpg takes; `options` is its query."""
        credentials = f"{SUPERUSER}:{password}" if password else SUPERUSER
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{database}{options}"

    def start(self) -> None:
        """Starts it and returns once it answers."""
        options = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", *self._settings]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(word for option in options for word in ("-c", option))],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._as_user,
                group=self._as_user,
                extra_groups=[] if self._as_user else None,
            )
        waiting = ("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1")
        for _ in range(int(START_SECONDS * 20)):
            if self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            if self._call(*waiting).returncode == 0:
                return
        raise TimeoutError((self.folder / "log").read_text())

    def stop(self, mode: str = "fast") -> None:
        """Stops it: `fast` ends connections in order, `immediate` cuts them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        self._process.wait(START_SECONDS)
        self._process = None

    def pause(self) -> None:
        """Stops every process of the server where it is: connections stay open and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def adopt(self, path: Path) -> None:
        """Copies a file into the folder, readable by the server alone."""
        copy = Path(shutil.copy(path, self.folder))
        if self._as_user:
            shutil.chown(copy, self._as_user)
        copy.chmod(0o600)

    def create_database(self) -> str:
        """A new empty database; its name."""
        self._databases += 1
        name = f"relay_{self._databases}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, name)
        return name

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in [pid, *map(int, children)]:
            with suppress(ProcessLookupError):  # a worker of the server may end at any time
                os.kill(each, number)

    def _run(self, program: str, *arguments: object) -> None:
        done = self._call(program, *arguments)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode()}")

    def _call(self, program: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._programs / program, *map(str, arguments)],
            check=False,
            capture_output=True,
            cwd=self.folder,
            user=self._as_user,
            group=self._as_user,
            extra_groups=[] if self._as_user else None,
            timeout=START_SECONDS * 2,
        )
