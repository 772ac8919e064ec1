//! A connection to the system's message bus with one time limit for all that is said on it. rustbus
//! makes and reads the messages; its own connection waits without a limit while it signs in.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::TimeVal;
use rustbus::message_builder::{
    HeaderFlags, MarshalledMessage, MarshalledMessageBody, MessageBuilder, MessageType,
};
use rustbus::wire::errors::{MarshalError, UnmarshalError};
use rustbus::wire::{marshal, unmarshal};
use thiserror::Error;

/// Where every system has it. The environment, which comes from whoever starts the VM, has no say.
const SOCKET: &str = "/run/dbus/system_bus_socket";
/// No message that matters here comes near it.
const LONGEST: usize = 1 << 20;
const READ_AT_ONCE: usize = 4096;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum BusError {
    /// The socket, or what is said over it.
    #[error("{SOCKET}: {0}")]
    Socket(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within the time limit")]
    Late,
    /// The bus doesn't speak to this user, or isn't a bus.
    #[error("{SOCKET}: it does not take user {0}")]
    NotWelcome(u32),
    /// It isn't D-Bus that is spoken.
    #[error("{SOCKET}: what it says is no D-Bus")]
    Garbled,
    /// An error in answer.
    #[error("{message}")]
    Refused {
        /// D-Bus's name of the error.
        name: String,
        /// What it says, in one line.
        message: String,
    },
}

impl From<MarshalError> for BusError {
    fn from(_: MarshalError) -> Self {
        Self::Garbled
    }
}

impl From<UnmarshalError> for BusError {
    fn from(_: UnmarshalError) -> Self {
        Self::Garbled
    }
}

/// A connection that has signed in.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
    unread: Vec<u8>,
}

impl Bus {
    /// Connects to the system's bus, by `deadline`.
    pub fn open(deadline: Instant) -> Result<Self, BusError> {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .map_err(io::Error::from)?;
        // A bus that takes nobody on any more would have connect wait, too.
        let left = time_left(deadline)?;
        let left = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
        setsockopt(&socket, SendTimeout, &left).map_err(io::Error::from)?;
        let address = UnixAddr::new(SOCKET).map_err(io::Error::from)?;
        connect(socket.as_raw_fd(), &address).map_err(|error| late_or(error.into()))?;
        Self::sign_in(socket, deadline)
    }

    /// From now on all has to be said by another time.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    fn sign_in(socket: OwnedFd, deadline: Instant) -> Result<Self, BusError> {
        let stream = UnixStream::from(socket);
        let mut bus = Self { stream, deadline, serial: 0, unread: Vec::new() };
        let user = nix::unistd::geteuid().as_raw();
        let digits: String = user.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        while !bus.unread.ends_with(b"\r\n") {
            bus.read()?;
        }
        if !bus.unread.starts_with(b"OK ") {
            return Err(BusError::NotWelcome(user));
        }
        bus.unread.clear();
        bus.write(b"BEGIN\r\n")?;
        bus.ask(rustbus::standard_messages::hello())?;
        Ok(bus)
    }

    /// Calls a method, and returns its answer. Nobody is started for it.
    pub fn call(
        &mut self,
        (destination, object, interface): (&str, &str, &str),
        method: &str,
        arguments: &[&str],
    ) -> Result<MarshalledMessageBody, BusError> {
        let call = MessageBuilder::new().call(method).on(object).with_interface(interface);
        let mut call = call.at(destination).build();
        HeaderFlags::NoAutoStart.set(&mut call.flags);
        for argument in arguments {
            call.body.push_param(*argument)?;
        }
        self.ask(call)
    }

    fn ask(&mut self, call: MarshalledMessage) -> Result<MarshalledMessageBody, BusError> {
        self.serial += 1;
        let mut bytes = Vec::new();
        marshal::marshal(&call, self.serial, &mut bytes)?;
        bytes.extend_from_slice(call.get_buf());
        self.write(&bytes)?;
        loop {
            let message = self.next()?;
            if message.dynheader.response_serial != Some(self.serial) {
                continue;
            }
            if message.typ == MessageType::Error {
                let text = message.body.parser().get::<String>().unwrap_or_default();
                let name = message.dynheader.error_name.unwrap_or_default();
                // The last line of several is the one that says what is wrong.
                let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or(&name);
                return Err(BusError::Refused { message: last.trim().to_owned(), name });
            }
            return Ok(message.body);
        }
    }

    /// The next message, whatever it is about.
    fn next(&mut self) -> Result<MarshalledMessage, BusError> {
        loop {
            if let Some(length) = self.message_length()? {
                if self.unread.len() >= length {
                    let bytes: Vec<u8> = self.unread.drain(..length).collect();
                    return decode(&bytes);
                }
            }
            if self.unread.len() > LONGEST {
                return Err(BusError::Garbled);
            }
            self.read()?;
        }
    }

    /// How long the message is that has begun: known by its first 16 bytes.
    fn message_length(&self) -> Result<Option<usize>, BusError> {
        const FIXED: usize = 16;
        let Some(fixed) = self.unread.get(..FIXED) else {
            return Ok(None);
        };
        let (_, header) = unmarshal::unmarshal_header(fixed, 0)?;
        let (_, fields) =
            rustbus::wire::util::parse_u32(&fixed[unmarshal::HEADER_LEN..], header.byteorder)?;
        let header_length = (FIXED + fields as usize).next_multiple_of(8);
        let length = header_length.saturating_add(header.body_len as usize);
        if length > LONGEST { Err(BusError::Garbled) } else { Ok(Some(length)) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        self.stream.set_write_timeout(Some(time_left(self.deadline)?))?;
        self.stream.write_all(bytes).map_err(late_or)
    }

    /// Takes in some of what comes.
    fn read(&mut self) -> Result<(), BusError> {
        self.stream.set_read_timeout(Some(time_left(self.deadline)?))?;
        let mut bytes = [0; READ_AT_ONCE];
        match self.stream.read(&mut bytes).map_err(late_or)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            read => {
                self.unread.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Result<MarshalledMessage, BusError> {
    let (header_length, header) = unmarshal::unmarshal_header(bytes, 0)?;
    let (fields, dynamic) = unmarshal::unmarshal_dynamic_header(&header, bytes, header_length)?;
    let body = header_length + fields;
    Ok(unmarshal::unmarshal_next_message(&header, dynamic, bytes, body)?.1)
}

fn time_left(deadline: Instant) -> Result<Duration, BusError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(BusError::Late) } else { Ok(left.max(Duration::from_millis(1))) }
}

fn late_or(error: io::Error) -> BusError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => BusError::Late,
        _ => BusError::Socket(error),
    }
}
