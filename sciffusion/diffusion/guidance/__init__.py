"""Guidance and constraints: denoisers that wrap denoisers."""
