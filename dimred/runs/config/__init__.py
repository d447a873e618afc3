"""Configurations: files, composition, schema, fields."""
