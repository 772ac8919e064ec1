//! TCP and UDP between the networks of a host, and who was seen as the sender.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::host::Host;
use crate::netns::Netns;

/// How often a waiting server looks whether it should end.
const PULSE: Duration = Duration::from_millis(100);

/// How long a server waits for a client to say something.
const SILENCE: Duration = Duration::from_secs(60);

/// How long to wait for the rest of an answer that has begun.
const REST: Duration = Duration::from_secs(5);

/// Answers each connection with one line, the address it saw, then sends back what it gets.
#[derive(Debug)]
pub struct TcpServer(Server);

/// Answers each datagram with the address it saw, a newline, and the datagram.
#[derive(Debug)]
pub struct UdpServer(Server);

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    seen: Receiver<SocketAddr>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(
        address: SocketAddr,
        serve: impl FnOnce(&Sender<SocketAddr>, &AtomicBool) + Send + 'static,
    ) -> Self {
        let (sender, seen) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Self { address, seen, stop, thread: Some(thread::spawn(move || serve(&sender, &flag))) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection that stays open.
#[derive(Debug)]
pub struct Conversation(TcpStream);

impl Conversation {
    /// Says one line, which has to come back.
    pub fn say(&mut self, line: &str, limit: Duration) -> std::io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes())?;
        let answer = self.hear(limit)?;
        assert_eq!(answer, line);
        Ok(())
    }

    /// The next line.
    fn hear(&mut self, limit: Duration) -> std::io::Result<String> {
        self.0.set_read_timeout(Some(limit))?;
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.0.read_exact(&mut byte)?;
            if byte[0] == b'\n' {
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            line.push(byte[0]);
        }
    }
}

impl TcpServer {
    /// Serves where the listener listens.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        Self(Server::start(address, move |seen, stop| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        let _ = seen.send(peer);
                        // On its own thread: one that stays silent mustn't keep others waiting.
                        thread::spawn(move || answer(stream, peer));
                    }
                    Err(_) => thread::sleep(PULSE / 10),
                }
            }
        }))
    }

    /// The next connection, `None` when there is none in time.
    #[must_use]
    pub fn accept_peer(&self, limit: Duration) -> Option<SocketAddr> {
        self.0.seen.recv_timeout(limit).ok()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

impl UdpServer {
    /// Serves where the socket is bound.
    #[must_use]
    pub fn new(socket: UdpSocket) -> Self {
        let address = socket.local_addr().expect("it is bound");
        socket.set_read_timeout(Some(PULSE)).expect("the time isn't zero");
        Self(Server::start(address, move |seen, stop| {
            let mut buffer = [0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    let mut message = format!("{peer}\n").into_bytes();
                    message.extend_from_slice(&buffer[..length]);
                    let _ = socket.send_to(&message, peer);
                    let _ = seen.send(peer);
                }
            }
        }))
    }

    /// The next datagram's sender, `None` when there is none in time.
    #[must_use]
    pub fn receive_peer(&self, limit: Duration) -> Option<SocketAddr> {
        self.0.seen.recv_timeout(limit).ok()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

impl Netns {
    /// Starts a TCP server in this network, on all its addresses; port 0 lets the kernel choose.
    #[must_use]
    pub fn tcp_server(&self, port: u16) -> TcpServer {
        let listener = self
            .enter(|| TcpListener::bind(("0.0.0.0", port)))
            .unwrap_or_else(|error| panic!("TCP port {port}: {error}"));
        TcpServer::new(listener)
    }

    /// Starts a UDP server in this network, on all its addresses.
    #[must_use]
    pub fn udp_server(&self, port: u16) -> UdpServer {
        let socket = self
            .enter(|| UdpSocket::bind(("0.0.0.0", port)))
            .unwrap_or_else(|error| panic!("UDP port {port}: {error}"));
        UdpServer::new(socket)
    }

    /// Connects from this network, sends the text, and returns what comes back until the other
    /// side closes or falls silent.
    pub fn tcp_connect(&self, to: &str, send: &str, limit: Duration) -> std::io::Result<String> {
        let address = to.parse::<SocketAddr>().unwrap_or_else(|error| panic!("{to}: {error}"));
        let mut stream = self.enter(|| TcpStream::connect_timeout(&address, limit))?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(send.as_bytes())?;
        // Not all servers speak before the client is done.
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    answer.extend_from_slice(&buffer[..length]);
                    // The way is open: now it only matters how busy the machine is.
                    stream.set_read_timeout(Some(limit.max(REST)))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not all servers end the connection.
                Err(error) if error.kind() == ErrorKind::WouldBlock && !answer.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Opens a connection from this network to a server of the harness, and keeps it.
    pub fn tcp_converse(&self, to: &str, limit: Duration) -> std::io::Result<Conversation> {
        let address = to.parse::<SocketAddr>().unwrap_or_else(|error| panic!("{to}: {error}"));
        let stream = self.enter(|| TcpStream::connect_timeout(&address, limit))?;
        let mut conversation = Conversation(stream);
        conversation.hear(limit)?;
        Ok(conversation)
    }

    /// Sends a datagram from this network and returns the answer.
    pub fn udp_request(&self, to: &str, send: &str, limit: Duration) -> std::io::Result<String> {
        let socket = self.enter(|| UdpSocket::bind(("0.0.0.0", 0)))?;
        socket.set_read_timeout(Some(limit))?;
        socket.send_to(send.as_bytes(), to)?;
        let mut buffer = [0; 65_536];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

impl Host {
    /// Starts a TCP server on the machine outside.
    #[must_use]
    pub fn outside_tcp_server(&self, port: u16) -> TcpServer {
        self.outside().tcp_server(port)
    }

    /// Starts a UDP server on the machine outside.
    #[must_use]
    pub fn outside_udp_server(&self, port: u16) -> UdpServer {
        self.outside().udp_server(port)
    }

    /// Connects from the machine outside and returns what comes back.
    pub fn outside_tcp_connect(
        &self,
        address: &str,
        port: u16,
        limit: Duration,
    ) -> std::io::Result<String> {
        self.outside().tcp_connect(&format!("{address}:{port}"), "", limit)
    }
}

/// Serves one connection until the client is done.
fn answer(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    // It may have inherited the listener's mode.
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    writeln!(stream, "{peer}")?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}
