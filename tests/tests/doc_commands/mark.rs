//! What a document says of the commands behind it, in a comment that no reader sees.

/// `run: host, vnet0 on br0`, `file: lab`, `not run: why`, `run: as before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// On this fixture; and QEMU's taps are ports of these bridges then.
    Run { fixture: String, ports: Vec<(String, String)> },
    /// On what the commands before have left, with their QEMU still running.
    AsBefore,
    /// A network file of this name, or, by its path, another file.
    File(String),
    /// Not here, and why.
    NotRun(String),
}

impl Mark {
    /// Reads the inside of a comment; whatever is no mark is an error, since it may be meant as one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(": ").unwrap_or_default();
        match (kind, rest.trim()) {
            (_, "") => Err(format!("no mark: {text:?}")),
            ("not run", why) => Ok(Self::NotRun(why.to_owned())),
            ("file", name) => Ok(Self::File(name.to_owned())),
            ("run", "as before") => Ok(Self::AsBefore),
            ("run", rest) => {
                let mut parts = rest.split(", ");
                let fixture = parts.next().unwrap_or_default().to_owned();
                let port = |part: &str| {
                    let (tap, bridge) = part.split_once(" on ")?;
                    Some((tap.to_owned(), bridge.to_owned()))
                };
                let ports = parts.map(|part| port(part).ok_or_else(|| format!("no port: {part}")));
                Ok(Self::Run { fixture, ports: ports.collect::<Result<_, _>>()? })
            }
            _ => Err(format!("no mark: {text:?}")),
        }
    }
}

#[test]
fn marks() {
    let run = |fixture: &str, ports: &[(&str, &str)]| {
        let own = |(tap, bridge): &(&str, &str)| ((*tap).to_owned(), (*bridge).to_owned());
        Ok(Mark::Run { fixture: fixture.to_owned(), ports: ports.iter().map(own).collect() })
    };
    assert_eq!(Mark::parse("run: cell"), run("cell", &[]));
    assert_eq!(Mark::parse("run: host, vnet0 on br0"), run("host", &[("vnet0", "br0")]));
    assert_eq!(Mark::parse("run: as before"), Ok(Mark::AsBefore));
    assert_eq!(Mark::parse("file: lab"), Ok(Mark::File("lab".into())));
    assert_eq!(Mark::parse("not run: no NIC"), Ok(Mark::NotRun("no NIC".into())));
    for wrong in ["", "run:", "not run", "not run: ", "norun: x", "run: host, vnet0"] {
        assert!(Mark::parse(wrong).is_err(), "{wrong}");
    }
}
