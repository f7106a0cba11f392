"""The process that decodes files nobody has vouched for: ``python -m recon.capture.child``."""
