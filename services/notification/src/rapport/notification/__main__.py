"""Run notification as a process of its own."""

from rapport.common.serving import main
from rapport.notification.service import SERVICE

main(SERVICE)
