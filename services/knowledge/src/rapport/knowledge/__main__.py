"""Run the knowledge service as a process of its own."""

from rapport.common.serving import main
from rapport.knowledge.service import SERVICE

main(SERVICE)
