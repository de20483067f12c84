"""Large bodies: ``GET /BYTES`` answers with so many, ``POST /`` with the length of what it got."""

PIECE = 65_536

_bodies = {f"/{size}": b"x" * size for size in (65_536, 1_048_576)}


def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        return _length(environ, start_response)
    return _answer(start_response, "200 OK", _bodies.get(environ["PATH_INFO"], b"ready\n"))


def _length(environ, start_response):
    """Reads in pieces, as Django reads an upload; a body that is cut short is answered 400."""
    promised = int(environ["CONTENT_LENGTH"])
    body, found = environ["wsgi.input"], 0
    while found < promised and (piece := body.read(min(PIECE, promised - found))):
        found += len(piece)
    status = "200 OK" if found == promised else "400 Bad Request"
    return _answer(start_response, status, b"%d" % found)


def _answer(start_response, status, body):
    fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status, fields)
    return [body]
