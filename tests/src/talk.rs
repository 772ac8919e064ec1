//! Guests that talk to a server of the harness and learn whom it saw.

use std::net::SocketAddr;

use crate::guest::Guest;

impl Guest<'_> {
    /// Says hello by TCP; the address that the answering side saw.
    #[track_caller]
    pub fn tcp(&mut self, to: &str, port: u16) -> SocketAddr {
        seen(&self.ok(&format!("echo hello | nc -w 5 {to} {port}")))
    }

    /// Says hello by UDP; the address that the answering side saw.
    #[track_caller]
    pub fn udp(&mut self, to: &str, port: u16) -> SocketAddr {
        seen(&self.ok(&format!("talk udp 0 {to}:{port} hello")))
    }
}

/// Whom the answering side saw: it says so in the first line, then repeats what it was told.
#[track_caller]
#[must_use]
pub fn seen(answer: &str) -> SocketAddr {
    let (peer, rest) = answer.split_once('\n').unwrap_or_default();
    assert_eq!(rest.trim_end(), "hello", "{answer:?}");
    peer.parse().unwrap_or_else(|_| panic!("no address: {answer:?}"))
}
