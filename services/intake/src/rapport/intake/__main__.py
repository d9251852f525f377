"""Run intake as a process of its own."""

from rapport.common.serving import main
from rapport.intake.service import SERVICE

main(SERVICE)
