"""The blocks of the page and what happens when they are used."""
