"""A broker that asks for TLS and SCRAM is reached with the settings, and by nobody without them."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import servers
from servers import HOST, Server

from rapport.common.bus.kafka import KafkaBus, client_options
from rapport.common.errors import TemporaryError
from rapport.common.events.codec import Message
from rapport.common.events.topics import FEEDBACK
from rapport.common.runtime import open_bus
from rapport.common.settings import Settings
from rapport.standalone.processes import apply_topics

USER: Final = "rapport"
PASSWORD: Final = "only-for-this-test"
STORE: Final = "changeit"

SECURED: Final = f"""
listeners=SASL_SSL://{HOST}:${{port}},CONTROLLER://{HOST}:${{controller_port}}
advertised.listeners=SASL_SSL://{HOST}:${{port}}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\\
org.apache.kafka.common.security.scram.ScramLoginModule required \\
username="{USER}" password="{PASSWORD}";
ssl.keystore.password={STORE}
ssl.keystore.type=PKCS12
ssl.truststore.password={STORE}
ssl.truststore.type=PKCS12
"""
"""What a broker is told beside its own settings, and where its keys are."""


def keytool(*arguments: str, keys: Path) -> None:
    """Run Java's keytool on a store of keys."""
    store = ("-keystore", str(keys), "-storetype", "PKCS12", "-storepass", STORE)
    subprocess.run(["keytool", *arguments, *store], check=True, capture_output=True)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """The certificate of the broker, which signs itself; its key is beside it."""
    keys, certificate = tmp_path / "keys.p12", tmp_path / "ca.pem"
    own = ("-dname", "CN=localhost", "-ext", f"SAN=dns:localhost,ip:{HOST}")
    keytool("-genkeypair", "-alias", "broker", "-keyalg", "RSA", *own, keys=keys)
    keytool("-exportcert", "-rfc", "-alias", "broker", "-file", str(certificate), keys=keys)
    return certificate


@pytest.fixture
def broker(tmp_path: Path, ca: Path) -> Iterator[Server]:
    """A broker that asks for TLS and SCRAM."""

    def answers(port: int) -> bool:
        context = ssl.create_default_context(cafile=ca)
        try:
            with socket.create_connection((HOST, port), timeout=2) as plain:
                context.wrap_socket(plain, server_hostname=HOST).close()
        except OSError:
            return False
        return True

    keys = ca.with_name("keys.p12")
    server = servers.kafka(
        tmp_path / "kafka",
        servers.fetch_kafka(),
        settings=f"{SECURED}ssl.keystore.location={keys}\nssl.truststore.location={keys}\n",
        storage=("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
        answers=answers,
    )
    server.start()
    yield server
    server.kill()


@pytest.mark.skipif(
    not os.environ.get("RAPPORT_TEST_KAFKA"),
    reason="there is no Kafka here: `make test` starts one where Java and Maven are",
)
async def test_who_has_certificate_and_password_gets_in_and_nobody_else(
    broker: Server, ca: Path
) -> None:
    given: dict[str, Any] = {
        "bus": f"kafka://{broker.address}",
        "kafka_security": "SASL_SSL",
        "kafka_username": USER,
        "kafka_password": PASSWORD,
        "kafka_ca_file": ca,
    }
    settings = Settings.load(**given)
    await apply_topics(settings)
    bus = open_bus(settings)
    await bus.start()
    await bus.publish([Message(FEEDBACK.name, "case", b"{}", ())])
    assert sum((await bus.ends([FEEDBACK.name])).values()) == 1
    await bus.stop()

    for wrong in ({"kafka_password": "something else"}, {"kafka_ca_file": None}):
        options = client_options(Settings.load(**given | wrong))
        with pytest.raises(TemporaryError, match="cannot be used"):
            await KafkaBus(broker.address, client=options).start()
