"""Rapport in one process, and the `rapport` command line."""
