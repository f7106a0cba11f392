"""The server behind `recon app`: jobs that survive, uploads that cannot harm, one guarded door."""
