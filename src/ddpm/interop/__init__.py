"""Networks of other programs, read and written in their own formats without those programs."""
