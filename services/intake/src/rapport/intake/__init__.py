"""Rapport intake."""
