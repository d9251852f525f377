"""Rapport routing."""
