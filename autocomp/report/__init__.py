"""What people look at: the front as a table and as a picture. Needs no torch."""
