"""Rapport knowledge."""
