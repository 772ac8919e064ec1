//! Packet sockets (packet(7)): what the host's protocols get to hear.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Netns;

/// A socket that hears every packet of one protocol, as the kernel's own IPv4, IPv6 or ARP does:
/// behind the ingress hook. One for `ETH_P_ALL` would stand before it.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    netns: Netns,
}

impl Netns {
    /// Listens for packets of a protocol (`libc::ETH_P_IP`), at an interface or at all of them.
    #[must_use]
    pub fn packet_socket(&self, interface: Option<&str>, protocol: i32) -> PacketSocket {
        let protocol = u16::try_from(protocol).expect("an EtherType has 16 bits").to_be();
        let open = || {
            // SAFETY: no pointer is passed.
            let fd = unsafe {
                libc::socket(
                    libc::AF_PACKET,
                    libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
                    protocol.into(),
                )
            };
            assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
            // SAFETY: it has just been made and is nobody else's.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            if let Some(interface) = interface {
                // SAFETY: all zeroes is a valid sockaddr_ll.
                let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
                address.sll_family = libc::AF_PACKET as u16;
                address.sll_protocol = protocol;
                address.sll_ifindex = index_of(interface) as i32;
                let length = mem::size_of_val(&address) as libc::socklen_t;
                // SAFETY: the pointer is to a whole sockaddr_ll of that length.
                let result = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
                assert_eq!(result, 0, "{interface}: {}", io::Error::last_os_error());
            }
            socket
        };
        PacketSocket { socket: self.enter(open), netns: self.clone() }
    }
}

fn index_of(interface: &str) -> u32 {
    let name = CString::new(interface).expect("names here have no NUL");
    // SAFETY: the pointer is to a string that ends with NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert!(index != 0, "{interface}: {}", io::Error::last_os_error());
    index
}

impl PacketSocket {
    /// The interface and the first bytes of each packet that comes in at one of these interfaces,
    /// until nothing has come for so long.
    #[must_use]
    pub fn heard(&self, interfaces: &[&str], silence: Duration) -> Vec<String> {
        let indexes: Vec<_> = self.netns.enter(|| interfaces.iter().map(|i| index_of(i)).collect());
        let mut heard = Vec::new();
        let mut end = Instant::now() + silence;
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.socket), PollFlags::POLLIN)];
            let rest = PollTimeout::try_from(rest + Duration::from_millis(1));
            let _ = poll(&mut fds, rest.unwrap_or(PollTimeout::MAX));
            while let Some((index, packet)) = self.receive() {
                let Some(at) = indexes.iter().position(|&found| found == index) else { continue };
                heard.push(format!("{}: {packet:02x?}", interfaces[at]));
                end = Instant::now() + silence;
            }
        }
        heard
    }

    fn receive(&self) -> Option<(u32, Vec<u8>)> {
        let mut buffer = [0u8; 48];
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut length = mem::size_of_val(&from) as libc::socklen_t;
        // SAFETY: both pointers are to buffers of the lengths that are passed.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        let received = usize::try_from(received).ok()?;
        Some((from.sll_ifindex as u32, buffer[..received].to_vec()))
    }
}
