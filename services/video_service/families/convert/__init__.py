"""Published files in their authors' layout, converted once to the folder that renders."""
