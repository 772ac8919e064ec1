//! A start as its user sees it: from QEMU's exec to the guest's first frame.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::DIRECTORY;
use crate::figures::Spread;
use crate::programs::Scripts;
use crate::results::{Start, Verb};
use crate::run;
use crate::world::World;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guest that boots from the network: its first frame is the firmware's.
pub fn measure(base: &World, rounds: usize) -> io::Result<Vec<Start>> {
    base.enter()?;
    Scripts::install(true)?;
    let kvmnet = |verb: &str| Path::new(DIRECTORY).join("libexec").join(format!("kvmnet-{verb}"));
    let nobody = PathBuf::from("no");
    let pairs = [
        ("kvmnet-ifup", kvmnet("ifup"), kvmnet("ifdown")),
        ("the old qemu-ifup", Scripts::path(Verb::Ifup, true), nobody),
        ("kvmnet-natup", kvmnet("natup"), kvmnet("natdown")),
        ("the old qemu-natup", Scripts::path(Verb::First, true), Scripts::path(Verb::Last, true)),
    ];
    let mut starts = Vec::new();
    for (name, up, down) in pairs {
        base.enter()?;
        let world = World::new()?;
        if name.ends_with("ifup") {
            run::sh("ip link add br0 type bridge; ip link set br0 up")?;
        }
        starts.push((name, up, down, world, Vec::new()));
    }
    for round in 0..=rounds {
        eprintln!("bench: start of a guest, round {round} of {rounds}");
        for (_, up, down, world, times) in &mut starts {
            world.enter()?;
            let time = one(up, down)?;
            // The first reads QEMU from the disk.
            if round > 0 {
                times.push(time);
            }
        }
    }
    base.enter()?;
    Ok(starts
        .into_iter()
        .map(|(name, .., times)| Start {
            script: name.to_owned(),
            rounds: times.len(),
            wall: Spread::of(times),
        })
        .collect())
}

fn one(up: &Path, down: &Path) -> io::Result<Duration> {
    let frames = packet_socket()?;
    let netdev =
        format!("tap,id=n0,ifname=vnet0,script={},downscript={}", up.display(), down.display());
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    let start = Instant::now();
    let mut qemu = Command::new(QEMU)
        .args(["-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64", "-boot", "n"])
        .args(["-netdev", &netdev, "-device", &format!("virtio-net-pci,netdev=n0,mac={mac}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let seen = wait_for_frame(&frames, start + PATIENCE);
    let took = start.elapsed();
    // Asked to end, it runs its downscript, so that the next start finds what this one found.
    let pid = nix::unistd::Pid::from_raw(qemu.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    qemu.wait()?;
    seen?;
    Ok(took)
}

/// Hears every frame of this network.
fn packet_socket() -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it has just been made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let limit = libc::timeval { tv_sec: PATIENCE.as_secs() as libc::time_t, tv_usec: 0 };
    // SAFETY: the pointer is to a whole timeval.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            mem::size_of_val(&limit) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn wait_for_frame(socket: &OwnedFd, end: Instant) -> io::Result<()> {
    let mut frame = [0u8; 64];
    while Instant::now() < end {
        // SAFETY: the buffer takes that many bytes.
        let length =
            unsafe { libc::recv(socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        if length < 0 {
            return Err(io::Error::last_os_error());
        }
        if length >= 12 && frame[6..12] == MAC {
            return Ok(());
        }
    }
    Err(io::Error::other("no frame came from the guest"))
}
