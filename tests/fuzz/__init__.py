"""Bytes of strangers, made up in great number, for everything that reads bytes of strangers."""
