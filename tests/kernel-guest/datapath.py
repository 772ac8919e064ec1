#!/usr/bin/python3
"""Makes a datapath of Open vSwitch with a port, as ovs-vswitchd does (include/uapi/linux/openvswitch.h)."""
import os
import socket
import struct
import sys

NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
OVS_DP_CMD_NEW, OVS_DP_ATTR_NAME, OVS_DP_ATTR_UPCALL_PID = 1, 1, 2
OVS_VPORT_CMD_NEW, OVS_VPORT_TYPE_NETDEV = 1, 1
OVS_VPORT_ATTR_TYPE, OVS_VPORT_ATTR_NAME, OVS_VPORT_ATTR_UPCALL_PID = 2, 3, 5


def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def name(text):
    return text.encode() + b"\0"


def ask(family, command, version, body):
    """Sends a request, and returns what came before its acknowledgement."""
    body = struct.pack("BBH", command, version, 0) + body
    wire.send(struct.pack("IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
    answer = b""
    while True:
        received = wire.recv(65536)
        length, kind = struct.unpack_from("IH", received)
        if kind != NLMSG_ERROR:
            answer += received[20:length]
            continue
        error = -struct.unpack_from("i", received, 16)[0]
        if error:
            sys.exit(os.strerror(error))
        return answer


def family(of):
    answer = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, attribute(CTRL_ATTR_FAMILY_NAME, name(of)))
    while answer:
        length, kind = struct.unpack_from("HH", answer)
        if kind == CTRL_ATTR_FAMILY_ID:
            return struct.unpack_from("H", answer, 4)[0]
        answer = answer[(length + 3) & ~3:]
    sys.exit(f"{of}: no such family")


datapath, port = sys.argv[1:]
wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
nobody = struct.pack("I", 0)
ask(family("ovs_datapath"), OVS_DP_CMD_NEW, 2, nobody
    + attribute(OVS_DP_ATTR_NAME, name(datapath)) + attribute(OVS_DP_ATTR_UPCALL_PID, nobody))
ask(family("ovs_vport"), OVS_VPORT_CMD_NEW, 1, struct.pack("i", socket.if_nametoindex(datapath))
    + attribute(OVS_VPORT_ATTR_TYPE, struct.pack("I", OVS_VPORT_TYPE_NETDEV))
    + attribute(OVS_VPORT_ATTR_NAME, name(port)) + attribute(OVS_VPORT_ATTR_UPCALL_PID, nobody))
