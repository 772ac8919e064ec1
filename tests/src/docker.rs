//! The real dockerd, in a host.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::Host;
use crate::netns::Netns;
use crate::process::{Output, Process, poll};

/// It is up in two seconds alone, and others run beside it.
const START: Duration = Duration::from_secs(60);
/// dockerd gives its containers ten seconds.
const STOP: Duration = Duration::from_secs(30);

/// A dockerd that runs; dropped, it is killed. Its containers, like all else of it, go with the
/// host.
#[derive(Debug)]
pub struct Docker<'host> {
    host: &'host Host,
    options: Vec<String>,
    daemon: Option<Process>,
}

/// A container that only sleeps: the test serves and connects in its network.
#[derive(Debug)]
pub struct Container {
    name: String,
    address: String,
    net: Netns,
}

impl Container {
    /// Its name, which docker's commands take.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on Docker's bridge.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its network.
    #[must_use]
    pub fn net(&self) -> &Netns {
        &self.net
    }
}

impl Host {
    /// Starts dockerd and waits until it answers. The host is one with firewalls.
    #[track_caller]
    #[must_use]
    pub fn docker(&self) -> Docker<'_> {
        self.docker_with(&[])
    }

    /// Starts dockerd with options of its own.
    #[track_caller]
    #[must_use]
    pub fn docker_with(&self, options: &[&str]) -> Docker<'_> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut docker = Docker { host: self, options, daemon: None };
        docker.start();
        docker
    }
}

impl Docker<'_> {
    /// Starts dockerd, which doesn't run, and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "dockerd runs already");
        let mut command = self.host.command("dockerd");
        // The one storage driver that needs nothing of the file system; and cgroups that can be
        // found and removed afterwards.
        command.args(["--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.args(["--cgroup-parent", self.host.cgroup()]).args(&self.options);
        let mut daemon = self.host.spawn(&mut command);
        let answer = poll(START, || {
            if !daemon.is_running() {
                return Some(false);
            }
            let answers = self.host.path("/run/docker.sock").exists()
                && self.host.run(&["docker", "version"]).success();
            answers.then_some(true)
        });
        assert!(answer == Some(true), "dockerd isn't up: {}", daemon.written().1);
        self.daemon = Some(daemon);
    }

    /// Stops dockerd as systemd does, and with it its containers.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait(STOP).is_some(), "dockerd still runs: {}", daemon.written().1);
    }

    /// Stops and starts dockerd.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Has dockerd read its settings again.
    pub fn hang_up(&self) {
        self.daemon.as_ref().expect("it runs").signal(Signal::SIGHUP);
    }

    /// What dockerd has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(|daemon| daemon.written().1).unwrap_or_default()
    }

    /// Runs a command of docker's.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.host.run(&[&["docker"], arguments].concat())
    }

    /// Starts a container, with options such as `--publish 8080:80`.
    #[track_caller]
    #[must_use]
    pub fn run(&self, name: &str, options: &[&str]) -> Container {
        self.ensure_image();
        // A process 1 without handlers doesn't hear SIGTERM, and docker would wait ten seconds.
        let start = ["run", "--detach", "--stop-signal", "KILL", "--name", name];
        let sleep = ["sleeper", "/busybox", "sleep", "100000"];
        self.command(&[&start[..], options, &sleep].concat()).expect("docker run");
        self.container(name)
    }

    /// A container that runs. It has another network each time it is started.
    #[track_caller]
    #[must_use]
    pub fn container(&self, name: &str) -> Container {
        let format = "{{.State.Pid}} {{.NetworkSettings.IPAddress}}";
        let answer = self.command(&["inspect", "--format", format, name]).expect("docker inspect");
        let (pid, address) = answer.trim().split_once(' ').expect("docker does as it is told");
        let net = Netns::new(self.host.path(format!("/proc/{pid}/ns/net")));
        Container { name: name.to_owned(), address: address.to_owned(), net }
    }

    fn ensure_image(&self) {
        if !self.command(&["image", "inspect", "sleeper"]).success() {
            self.host
                .ok("mkdir -p /run/image && cp \"$(command -v busybox)\" /run/image/busybox &&
                 tar -C /run/image -c busybox | docker import - sleeper");
        }
    }
}
