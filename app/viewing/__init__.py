"""The 3D viewer, part by part: what is shown, how it is drawn, what a visitor can do with it."""
