#!/usr/bin/python3
"""Holds a tap open, as QEMU does, and sends a broadcast by it five times a second: who has 10.0.0.99?"""
import fcntl
import os
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000

tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TAP | IFF_NO_PI))
mac = bytes.fromhex("525400000009")
frame = b"\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 06 04 0001") + mac
frame += bytes([10, 0, 0, 98]) + bytes(6) + bytes([10, 0, 0, 99])
while True:
    try:
        os.write(tap, frame)
    except OSError:
        # It isn't up yet.
        pass
    time.sleep(0.2)
