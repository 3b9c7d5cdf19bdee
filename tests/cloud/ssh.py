"""SSH as the command provider uses it: host key, private key or agent, commands, copying."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko

from tests.cloud.faults import CloudError
from tests.cloud.kinds import Props

PAUSE = 0.5  # between attempts; the real provider backs off up to some seconds
PRIVATE = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


class _Expected(paramiko.MissingHostKeyPolicy):
    """Reject a host whose key is not the recorded one; without a record accept any key."""

    def __init__(self, line: str | None) -> None:
        self.line = line

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        if self.line is None:
            return
        words = self.line.split()
        found = base64.b64encode(key.asbytes()).decode()
        if found not in words:
            raise paramiko.SSHException("ssh: handshake failed: ssh: host key mismatch")


@contextlib.contextmanager
def connected(connection: Props) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Expected(connection.get("hostKey")))
    try:
        _dial(client, connection)
        yield client
    finally:
        client.close()


def _dial(client: paramiko.SSHClient, c: Props) -> None:
    """dialErrorLimit (10; -1: none) limits the attempts, whatever the reason of failure."""
    limit, tries = int(c.get("dialErrorLimit", 10)), 0
    while True:
        try:
            _connect(client, c)
        except (OSError, paramiko.SSHException, EOFError) as e:
            tries += 1
            if -1 < limit < tries:
                raise CloudError(0, f"after {tries} failed attempts: {e}") from e
            time.sleep(PAUSE)
        else:
            return


def _connect(client: paramiko.SSHClient, c: Props) -> None:
    socket = c.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK")
    preferred = c["hostKey"].split()[0] if c.get("hostKey") else None
    seconds = float(c.get("perDialTimeout", 15)) or None
    client.connect(
        c["host"],
        port=int(c.get("port", 22)),
        username=c.get("user", "root"),
        password=c.get("password"),
        pkey=_private_key(c),
        allow_agent=bool(socket) and "privateKey" not in c,
        look_for_keys=False,
        timeout=seconds,
        banner_timeout=seconds,
        auth_timeout=seconds,
        # A server has several host keys; like Go, request the type that is recorded.
        disabled_algorithms={"keys": _others(preferred)} if preferred else None,
    )


def _others(wanted: str) -> list[str]:
    known = paramiko.Transport._preferred_keys  # type: ignore[attr-defined]
    same = {wanted, "rsa-sha2-512", "rsa-sha2-256"} if wanted == "ssh-rsa" else {wanted}
    return [k for k in known if k not in same]


def _private_key(c: Props) -> paramiko.PKey | None:
    text, password = c.get("privateKey"), c.get("privateKeyPassword")
    if not text:
        return None
    for kind in PRIVATE:
        with contextlib.suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key(io.StringIO(text), password=password)
    raise CloudError(0, "ssh: no key found")


def run(connection: Props, command: str, *, stdin: str, variables: Props) -> tuple[str, str]:
    """Run and return (stdout, stderr) without the final newline; raises on failure."""
    with connected(connection) as client:
        transport = client.get_transport()
        assert transport is not None
        channel = transport.open_session()
        for name, value in variables.items():
            _set(channel, name, value)
        channel.exec_command(command)
        if stdin:
            channel.sendall(stdin.encode())
        channel.shutdown_write()
        return _collect(channel, command)


def _set(channel: paramiko.Channel, name: str, value: str) -> None:
    """Servers accept few variables (AcceptEnv); a rejected one that the user set is an error."""
    if name.startswith("PULUMI_COMMAND_"):
        channel.set_environment_variable(name, value)
        return
    try:
        _set_and_wait(channel, name, value)
    except paramiko.SSHException as e:
        text = f'could not set environment variable "{name}": ssh: setenv failed'
        raise CloudError(0, text) from e


def _set_and_wait(channel: Any, name: str, value: str) -> None:
    """The library's own method requests no reply, so a rejection would go unnoticed."""
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("env")
    message.add_boolean(True)
    message.add_string(name)
    message.add_string(value)
    channel._event_pending()
    channel.transport._send_user_message(message)
    channel._wait_for_event()


def _collect(channel: paramiko.Channel, command: str) -> tuple[str, str]:
    out, err, both = bytearray(), bytearray(), bytearray()
    while True:
        more = _drain(channel, out, err, both)
        if not more and channel.exit_status_ready() and not _waiting(channel):
            break
        if not more:
            time.sleep(0.02)
    status = channel.recv_exit_status()
    if status:
        text = both.decode(errors="replace")
        raise CloudError(0, f'Process exited with status {status}: running "{command}":\n{text}')
    return out.decode().removesuffix("\n"), err.decode().removesuffix("\n")


def _waiting(channel: paramiko.Channel) -> bool:
    return channel.recv_ready() or channel.recv_stderr_ready()


def _drain(channel: paramiko.Channel, out: bytearray, err: bytearray, both: bytearray) -> bool:
    more = False
    for ready, receive, into in (
        (channel.recv_ready, channel.recv, out),
        (channel.recv_stderr_ready, channel.recv_stderr, err),
    ):
        if ready():
            data = receive(65536)
            into += data
            both += data
            more = more or bool(data)
    return more


def copy(connection: Props, source: Path | str, target: str) -> None:
    """Copy a file, a folder or text; into an existing folder, under its own name."""
    with connected(connection) as client, client.open_sftp() as sftp:
        if isinstance(source, str):
            with sftp.open(target, "w") as out:
                out.write(source.encode())
        elif source.is_dir():
            _copy_folder(client, sftp, source, PurePosixPath(target) / source.name)
        else:
            into = PurePosixPath(target)
            sftp.put(str(source), str(into / source.name if _is_folder(sftp, target) else into))


def _is_folder(sftp: paramiko.SFTPClient, path: str) -> bool:
    with contextlib.suppress(OSError):
        return bool((sftp.stat(path).st_mode or 0) & 0o040000)
    return False


def _copy_folder(
    client: paramiko.SSHClient, sftp: paramiko.SFTPClient, source: Path, target: PurePosixPath
) -> None:
    _, out, _ = client.exec_command(f"mkdir -p {shlex.quote(str(target))}")
    out.channel.recv_exit_status()
    for item in sorted(source.iterdir()):
        if item.is_dir():
            _copy_folder(client, sftp, item, target / item.name)
        else:
            sftp.put(str(item), str(target / item.name))
