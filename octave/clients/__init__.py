"""Connecting AI tools: a row for each in `table`, an editor for each format of their files."""
