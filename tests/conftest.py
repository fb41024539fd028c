"""Signals reach the commands under test even where the suite runs in the background or under nohup."""

import signal

# What a shell has set to be ignored stays so in every child; a handler that does nothing is not passed on.
for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
