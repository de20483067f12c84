"""An echo on picows with uvloop, as its documentation has it: ``python picows_echo.py PORT``."""

import sys

import uvloop
from picows import (
    WSListener,
    WSMsgType,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


def open_socket(request):
    if request.path == b"/echo":
        return Echo()
    # It serves no pages: a 404 says that it is up.
    refusal = WSUpgradeResponse.create_error_response(404, b"no page", {"Content-Length": "7"})
    return WSUpgradeResponseWithListener(refusal, None)


async def main():
    server = await ws_create_server(open_socket, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
