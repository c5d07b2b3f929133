"""Bytes on disk or in an object store: whole or not there, and every one of them under a hash."""
