"""A remote control of `rtsep live --web`: python remote.py URL [NAME=VALUE ...], e.g. solo=residual strength_db=12."""

import asyncio
import contextlib
import json
import sys

import aiohttp


async def main(url, *settings):
    async with aiohttp.ClientSession() as session, session.ws_connect(url.replace("/?", "/ws?")) as socket:
        for name, _, value in (setting.partition("=") for setting in settings):
            with contextlib.suppress(ValueError):
                value = json.loads(value)  # a number, true, false or null; else a name
            await socket.send_json({"set": {name: value}})
            while (message := await socket.receive_json())["type"] != "answer":
                pass
            print(name, message.get("error", "is set"))
        while (message := await socket.receive_json())["type"] != "state":
            pass
        print(message["settings"], message["stats"]["levels_db"])


asyncio.run(main(*sys.argv[1:]))
