"""Each claim of speed, with the peer or the limit that it is held against."""
