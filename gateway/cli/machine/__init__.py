"""The first hour: what this machine has, and getting models onto it."""
