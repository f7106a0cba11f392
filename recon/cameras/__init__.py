"""Cameras of photos: found by structure from motion, or read from files.

``recon.cameras.child`` is a program of its own and the only place that imports pycolmap.
"""
