"""Dialogues that go on: what was said, the pictures it is about, and the prompt that it led to."""
