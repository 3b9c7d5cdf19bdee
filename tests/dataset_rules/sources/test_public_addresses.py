import socket
from functools import partial

import httpx
import pytest

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import address_of
from dataset_rules.sources.download import Bounds, fetch
from dataset_rules.sources.public_addresses import PublicOnly
from tests.filehost import file_answer, file_host

QUICK = Bounds(stall_s=3, tries=1, pause_s=0.01)
DATA = b"a file" * 1000


def fetched(url, folder, *, is_loopback_allowed=False):
    transport = partial(PublicOnly, is_loopback_allowed=is_loopback_allowed)
    return fetch(address_of(url), folder, bounds=QUICK, transport=transport)


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "host.pem"))
    with file_host(tmp_path) as host:
        host.answer = file_answer(DATA)
        yield host


NOT_PUBLIC = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "0.0.0.0",
    "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]",
]  # fmt: skip


@pytest.mark.parametrize("name", NOT_PUBLIC)
def test_host_that_is_not_public_is_never_contacted(name, host, tmp_path):
    with pytest.raises(RulesError, match="a network that is not public"):
        fetched(f"https://{name}:{host.server_port}/set.zip", tmp_path / "downloads")
    assert not host.requests


@pytest.mark.parametrize("name", NOT_PUBLIC[6:])
def test_loopback_setting_allows_only_loopback(name, host, tmp_path):
    if name in {"[::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]"}:
        pytest.skip("another form of the loopback address")
    with pytest.raises(RulesError, match="a network that is not public"):
        fetched(f"https://{name}/x", tmp_path / "downloads", is_loopback_allowed=True)


def test_octal_address_is_refused_because_libraries_differ(tmp_path):
    with pytest.raises(RulesError, match="Invalid IPv4 address"):
        fetched("https://0177.0.0.1/x", tmp_path)


def test_loopback_is_accessible_if_allowed(host, tmp_path):
    assert fetched(host.url(), tmp_path / "d", is_loopback_allowed=True).read_bytes() == DATA


@pytest.mark.parametrize(
    "target", ["https://10.0.0.1/x", "https://169.254.169.254/latest/meta-data/", "https://[fd00::1]/"]
)  # fmt: skip
def test_redirect_into_a_private_network_is_refused(host, tmp_path, target):
    host.answer = lambda handler: handler.head(302, Location=target, Content_Length=0)
    with pytest.raises(RulesError, match="a network that is not public"):
        fetched(host.url(), tmp_path / "downloads", is_loopback_allowed=True)


def fake_dns(monkeypatch, name, *answers):
    """Resolve a name to each answer in turn; IP addresses are resolved normally."""
    real, left = socket.getaddrinfo, list(answers)

    def getaddrinfo(host, port, *rest, **options):
        if host != name:
            return real(host, port, *rest, **options)
        return [found for address in left.pop(0) for found in real(address, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return left


def test_name_that_resolves_to_a_private_address_is_refused(host, tmp_path, monkeypatch):
    fake_dns(monkeypatch, "data.example", ["10.1.2.3"])
    with pytest.raises(RulesError, match=r"data\.example: .* not public; .* found 10\.1\.2\.3"):
        fetched("https://data.example/x", tmp_path / "downloads")


def test_name_that_resolves_to_public_and_private_addresses_is_refused(tmp_path, monkeypatch):
    fake_dns(monkeypatch, "data.example", ["93.184.216.34", "192.168.0.1"])
    with pytest.raises(RulesError, match=r"not public; .* found 192\.168\.0\.1"):
        fetched("https://data.example/x", tmp_path / "downloads")


def test_connection_uses_the_address_that_was_checked(host, tmp_path, monkeypatch):
    """DNS rebinding has no effect, because the name is resolved once."""
    left = fake_dns(monkeypatch, "localhost", ["127.0.0.1"], ["10.0.0.1"])
    url = host.url(host="localhost")
    assert fetched(url, tmp_path / "d", is_loopback_allowed=True).read_bytes() == DATA
    assert left == [["10.0.0.1"]]
    assert host.requests[0][1]["Host"] == f"localhost:{host.server_port}"


def test_certificate_must_match_the_host_name(host, tmp_path, monkeypatch):
    fake_dns(monkeypatch, "other.example", ["127.0.0.1"])
    url = f"https://other.example:{host.server_port}/x"
    with pytest.raises(RulesError, match="certificate"):
        fetched(url, tmp_path / "downloads", is_loopback_allowed=True)
    assert not host.requests


def test_proxy_of_the_environment_is_ignored(host, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert fetched(host.url(), tmp_path / "d", is_loopback_allowed=True).read_bytes() == DATA


@pytest.mark.parametrize("address", ["93.184.216.34", "[2606:2800:220:1:248:1893:25c8:1946]"])
def test_public_address_is_allowed(address):
    """The check passes, whether or not the address is reachable."""
    transport = PublicOnly()
    asked = []

    def connect(request):
        asked.append(request.url.host)
        raise httpx.ConnectError("not from here")

    transport._inner.handle_request = connect
    with pytest.raises(httpx.ConnectError):
        transport.handle_request(httpx.Request("GET", f"https://{address}/x"))
    assert asked == [address.strip("[]")]
