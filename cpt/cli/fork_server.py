"""The fork server: import the libraries once, then fork one process per job.

Importing torch and the other libraries takes seconds, many times what a small job computes; building the command line
takes a tenth of a second. Every job is a process of its own with its own log, exit code and failure. Without a server
everything works the same but starts more slowly. If the source files have changed since the server read them, the
child imports them again, so old code never runs. The server never touches CUDA, because a CUDA context does not survive
a fork.

A client sends its arguments, folder, environment, umask and its three standard streams; the forked child takes them
over. It gains nothing beyond its client: a client of another user or of another installation runs its job itself.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from cpt.cli.fork_client import HEADER, installation, receive, same_user

LIBRARIES = (
    "torch", "torch.nn", "torch.optim", "numpy", "pyarrow.parquet", "pyarrow.compute", "pyarrow.acero",
    "safetensors.torch", "pydantic", "yaml", "typer", "PIL.Image", "open_clip", "pandas", "sklearn.cluster", "jinja2",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "matplotlib.backends.backend_pdf", "seaborn",
)  # fmt: skip


def serve(address: str, owner: int | None = None) -> None:
    """Import the libraries, then fork a process for every call until the owner process is gone.

    Args:
        address: path of the Unix socket to listen on; it appears when the server is ready. Its folder belongs to the
            server, which deletes it at the end.
        owner: process with which the server ends; default: the parent.
    """
    from cpt.cli import app
    from cpt.files import provenance

    app.one_thread()  # before the imports, because libraries read it when they are loaded
    sources = _sources()  # before the imports, so that files changed meanwhile are imported again
    for name in (*LIBRARIES, *_own_modules()):
        importlib.import_module(name)
    app.command(), provenance.versions(), provenance.code_version(*_own_modules())  # cached in their modules
    gc.collect()
    gc.freeze()  # a job's collector would touch, and so copy, all memory that it shares with the server
    owner = owner or os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the clients; the server ends with its owner
    waiting = Path(f"{address}.starting")
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as cleanup:
        server.bind(str(waiting))
        cleanup.callback(shutil.rmtree, Path(address).parent, ignore_errors=True)
        server.listen(socket.SOMAXCONN)
        waiting.rename(address)
        while _alive(owner):
            ready, _, _ = select.select([server], [], [], 1.0)
            if not ready:
                continue
            connection, _ = server.accept()
            if os.fork() == 0:
                cleanup.pop_all()
                server.close()
                if _sources() != sources:
                    _forget_own_modules()
                _child(connection)
            connection.close()


def start(log: str) -> None:
    """Start a server for the jobs of this process, unless one runs already; it ends with this process.

    On macOS there is none: processes must not be forked there once Apple's libraries are in use. Jobs find it through
    the environment variable CPT_FORK_SERVER. Jobs that start before it is ready run without it.
    """
    if "CPT_FORK_SERVER" in os.environ or sys.platform == "darwin":
        return
    address = Path(tempfile.mkdtemp(prefix="cpt-")) / "fork-server"
    command = [sys.executable, "-m", __name__, str(address), "--owner", str(os.getpid())]
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as output:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    os.environ["CPT_FORK_SERVER"] = str(address)


def _own_modules() -> list[str]:
    """Names of all modules of the package except ``__main__``, which runs when it is imported."""
    package = importlib.import_module("cpt")
    found = pkgutil.walk_packages(package.__path__, "cpt.")
    return [module.name for module in found if module.name != "cpt.__main__"]


def _sources() -> dict[str, tuple[int, int]]:
    """Modification time and size of every source file of the package."""
    stats = {str(path): path.stat() for path in Path(__file__).parents[1].rglob("*.py")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def _forget_own_modules() -> None:
    for name in [name for name in sys.modules if name == "cpt" or name.startswith("cpt.")]:
        del sys.modules[name]


def _child(connection: socket.socket) -> None:
    """Become the client's process and do its job; never return."""
    try:
        taken = same_user(connection) and _take_over(connection)
    except (OSError, ValueError, KeyError):
        taken = False
    if not taken:  # the client runs the job
        os._exit(1)
    code = 1
    try:
        threading.Thread(target=_end_with_client, args=(connection,), daemon=True).start()
        from cpt.cli.app import run

        code = run()
    except BaseException:  # the traceback goes to the job's log, the exit code to the client
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(int(code).to_bytes(HEADER, "big"))
        os._exit(code)


def _take_over(connection: socket.socket) -> bool:
    """Take over the client's streams, folder and environment; False if it is gone or of another installation."""
    size = receive(connection, HEADER)
    if size is None:
        return False
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    body = receive(connection, int.from_bytes(size, "big"))
    request = json.loads(body or b"{}")
    if request.get("installation") != installation():
        return False
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    for target, source in enumerate(array.array("i", descriptors)):
        os.dup2(source, target)
        os.close(source)
    sys.stdout = os.fdopen(1, "w", encoding=request["encoding"], closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding=request["encoding"], errors="backslashreplace", closefd=False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection.sendall(os.getpid().to_bytes(HEADER, "big"))
    return receive(connection, 1) is not None


def _end_with_client(connection: socket.socket) -> None:
    """End the job when its client is gone: a killed client closes the connection, and nobody waits for the job."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(143)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=serve.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="path of the socket")
    parser.add_argument("--owner", type=int, help="process with which the server ends")
    given = parser.parse_args()
    serve(given.address, given.owner)
