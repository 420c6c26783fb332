"""Wire types: a type enters this package only if it crosses a wire."""
