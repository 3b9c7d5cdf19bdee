"""The Caddyfile of the reverse proxy between the network and the service."""

ADDRESS_FILES = "/etc/caddy/address.d/*.conf"  # `default_sni ADDRESS`, written by each release
PAGE = (
    "<!doctype html><title>unetops</title><h1>Not ready</h1>"
    "<p>The service is being started or updated. This page tries again by itself."
)


def caddyfile(domain: str | None = None, acme_directory: str | None = None) -> str:
    """The Caddyfile.

    With a domain the certificate comes from an ACME directory (Caddy's default if None). Without
    one, Caddy's internal authority issues a certificate at the first request for whatever name or
    address the visitor uses: the address is not known at boot.
    """
    tls = "" if domain else "\ttls internal {\n\t\ton_demand\n\t}\n"
    host = domain or "{host}"
    return (
        f"{_options(domain, acme_directory)}\n"
        f"{domain or 'https://'} {{\n{tls}{_site(secure=domain is not None)}}}\n\n"
        f"http:// {{\n\tredir https://{host}{{uri}} 308\n}}\n"
    )


def _options(domain: str | None, acme_directory: str | None) -> str:
    lines = ["skip_install_trust"]
    if domain is None:
        lines += ["auto_https disable_redirects"]
        # A client that connects to an IP address sends no server name, and behind a reserved
        # address the machine cannot tell which address was requested.
        lines += [f"import {ADDRESS_FILES}"]
    elif acme_directory:
        lines += [f"acme_ca {acme_directory}"]
    # No HTTP/3: its UDP port is closed.
    lines += ["servers {", "\tprotocols h1 h2", "}"]
    return "{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _site(*, secure: bool) -> str:
    # No limit on request bodies: the service enforces its own, with its own error messages.
    # Caddy streams events without buffering by default; `flush_interval -1` would keep the
    # service busy for visitors who have disconnected.
    headers = ["-Server", "X-Content-Type-Options nosniff", "Referrer-Policy same-origin"]
    if secure:
        headers.append("Strict-Transport-Security max-age=31536000")
    lines = [
        "header {", *(f"\t{line}" for line in headers), "}",
        "reverse_proxy 127.0.0.1:8000",
        "handle_errors {",
        "\t@down expression {http.error.status_code} in [502, 503, 504]",
        "\theader @down Retry-After 5",
        "\theader @down Refresh 5",
        "\theader @down Content-Type \"text/html; charset=utf-8\"",
        f"\trespond @down `{PAGE}` 503",
        "\trespond \"{http.error.status_code} {http.error.status_text}\" "
        "{http.error.status_code}",
        "}",
    ]  # fmt: skip
    return "".join(f"\t{line}\n" for line in lines)
