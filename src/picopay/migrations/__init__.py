"""Migrations: run as the owner of the schema, never as the app's role."""
