"""Run analytics as a process of its own."""

from rapport.analytics.service import SERVICE
from rapport.common.serving import main

main(SERVICE)
