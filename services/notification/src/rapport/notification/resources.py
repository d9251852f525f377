"""What notification's handlers and its API work with."""

from dataclasses import dataclass

from rapport.common.bus.port import Bus
from rapport.common.engine import Engine
from rapport.common.store.port import Store
from rapport.notification.channels import Channels
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.rendering import Renderer
from rapport.notification.repository import Directories


@dataclass(frozen=True)
class Resources:
    """See the module's docstring; `person_key` is what recipients are known by."""

    store: Store
    bus: Bus
    engine: Engine
    address_policy: AddressPolicy
    directory: Directories
    channels: Channels
    renderer: Renderer
    person_key: bytes
