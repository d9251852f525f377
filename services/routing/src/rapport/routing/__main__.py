"""Run routing as a process of its own."""

from rapport.common.serving import main
from rapport.routing.service import SERVICE

main(SERVICE)
