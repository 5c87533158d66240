"""What we remember, in SQLite and in files named by their sha256."""
