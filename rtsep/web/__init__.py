"""A live stream in the browser, and its remote control. Nothing else imports this, and nothing needs it."""

from rtsep.web.server import Server

__all__ = ["Server"]
