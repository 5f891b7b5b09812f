"""The night: everything that a lake needs done regularly, one step after the other."""
