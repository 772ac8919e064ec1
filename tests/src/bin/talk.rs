//! What busybox can't do in a guest: UDP from a port of choice, and servers that say whom they see.
//!
//! ```text
//! talk serve PORT                     TCP and UDP, until it is killed
//! talk udp LOCAL_PORT PEER:PORT TEXT  sends a datagram and prints the answer; port 0: any
//! ```

use std::error::Error;
use std::net::{TcpListener, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use kvmnet_tests::{TcpServer, UdpServer};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve", port] => serve(port),
        ["udp", local_port, peer, text] => udp(local_port, peer, text),
        _ => Err("usage: talk serve PORT | talk udp LOCAL_PORT PEER:PORT TEXT".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("talk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str) -> Result<(), Box<dyn Error>> {
    let address = ("0.0.0.0", port.parse()?);
    let _tcp = TcpServer::new(TcpListener::bind(address)?);
    let _udp = UdpServer::new(UdpSocket::bind(address)?);
    loop {
        std::thread::park();
    }
}

fn udp(local_port: &str, peer: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(("0.0.0.0", local_port.parse()?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected, so that an ICMP error is heard.
    socket.connect(peer)?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 65_536];
    let length = socket.recv(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..length]));
    Ok(())
}
