"""What a person touches: the command line, the web page, the viewer, batches. Wires the other rooms together."""
