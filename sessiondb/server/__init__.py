"""`sessiondb serve`: the public API over HTTP and JSON, for other languages on this machine.

    table.py         what a route is, and the table of all of them
    bodies.py        what a request may say
    sessions.py, ... the routes themselves: each calls the public API, and decides nothing
    failures.py      every error as a status and a JSON object
    application.py   from a request to its route, and from an answer to bytes
    openapi.py       the table as an OpenAPI document
    protocol.py      connections: how many, how large a head, how slow a client may be
    listening.py     the socket, its folder, and the token of TCP
    running.py       the process: start, signals, drain, end

It is the only package that opens a network connection, and nothing but the command `serve`
imports it. It needs the extra `server`.

It holds nothing that a restart would lose. What a client has claimed is a row with a lease, and
the client's next call finds it in whichever process the server is by then.
"""
