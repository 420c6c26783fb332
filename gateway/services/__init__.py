"""The two model services: every address of them, which one is asked, and what they said before."""
