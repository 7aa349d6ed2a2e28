"""Questions put to us and to peers in turns."""
