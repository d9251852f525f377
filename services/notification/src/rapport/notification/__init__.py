"""Rapport notification."""
