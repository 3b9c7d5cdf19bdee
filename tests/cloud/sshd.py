"""A small SSH server with one host key and one client key; runs commands and writes files."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko


@dataclass(frozen=True)
class Server:
    port: int
    host_key: str  # as `ssh-keyscan` prints it, without the host
    private_key: str
    ran: list[str]


class _Session(paramiko.ServerInterface):
    def __init__(self, allowed: paramiko.PKey, ran: list[str]) -> None:
        self.allowed, self.ran = allowed, ran

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        same = key.asbytes() == self.allowed.asbytes()
        return paramiko.AUTH_SUCCESSFUL if same else paramiko.AUTH_FAILED

    def check_channel_env_request(self, channel: object, name: bytes, value: bytes) -> bool:
        return False  # as a server without AcceptEnv

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.ran.append(command.decode())
        threading.Thread(target=_run, args=(channel, command.decode()), daemon=True).start()
        return True


class _Handle(paramiko.SFTPHandle):
    """A file on this machine's disk."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.readfile = self.writefile = Path(path).open("w+b")  # noqa: SIM115


class _Files(paramiko.SFTPServerInterface):
    def open(self, path: str, flags: int, attr: object) -> paramiko.SFTPHandle:
        return _Handle(path)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        if not Path(path).exists():
            return paramiko.SFTP_NO_SUCH_FILE
        return paramiko.SFTPAttributes.from_stat(Path(path).stat())


def _run(channel: paramiko.Channel, command: str) -> None:
    given = channel.makefile("rb").read()
    done = subprocess.run(["sh", "-c", command], input=given, capture_output=True, check=False)
    channel.sendall(done.stdout)
    channel.sendall_stderr(done.stderr)
    channel.send_exit_status(done.returncode)
    channel.close()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    host, client, ran = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate(), []
    text = io.StringIO()
    client.write_private_key(text)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        transports: list[paramiko.Transport] = []
        arguments = (listening, host, _Session(client, ran), transports)
        threading.Thread(target=_accept, args=arguments, daemon=True).start()
        line = f"{host.get_name()} {host.get_base64()}"
        yield Server(listening.getsockname()[1], line, text.getvalue(), ran)
        for transport in transports:
            transport.close()


def _accept(
    listening: socket.socket,
    host: paramiko.PKey,
    session: _Session,
    transports: list[paramiko.Transport],
) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            transport = paramiko.Transport(connection)
            transports.append(transport)
            transport.add_server_key(host)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=session)
