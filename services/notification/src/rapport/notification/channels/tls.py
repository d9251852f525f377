"""Transport security, the same for every channel that opens connections."""

import ssl
from pathlib import Path


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a verifying client context: it trusts the system's authorities and `ca_file`."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def is_tls_failure(error: BaseException | None) -> bool:
    """Tell whether an error of a client library began with a failed handshake or certificate."""
    while error:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
