"""Reports: a run directory as one page that opens from disk, and as data for the terminal."""
