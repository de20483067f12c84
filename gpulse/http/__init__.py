"""HTTP/1.1 in front of a WSGI application: a pure parser and writer, and the parked protocol
around them."""
