"""What runs inside COLMAP's own process: ``python -m recon.cameras.child COMMAND FOLDER``."""
