"""Splat files of every kind: one file per format, a registry by extension, conventions, and a self-check."""
