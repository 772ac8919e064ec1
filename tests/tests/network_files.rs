//! Network files as they are, and as they should not be: which network a tap gets, and one exact
//! line of error for all else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::Duration;

use kvmnet_tests::{Foreign, Host, Output, assert_same};

const LIMIT: Duration = Duration::from_secs(10);
const LAB: &str = "/etc/kvmnet/lab.toml";
const NAT: &str = "address = \"192.168.150.1/24\"\n";

/// A helper as somebody runs it: by whatever name, with whatever network in the environment.
fn run(host: &Host, program: &str, variable: Option<&str>, tap: &str) -> Output {
    let mut command = host.command(program);
    command.arg(tap).envs(variable.map(|name| ("KVMNET_NETWORK", name)));
    host.spawn(&mut command).output(LIMIT)
}

fn helper(host: &Host, name: &str, variable: Option<&str>, tap: &str) -> Output {
    run(host, &format!("/usr/libexec/kvmnet-{name}"), variable, tap)
}

#[track_caller]
fn ok(host: &Host, name: &str, variable: Option<&str>, tap: &str) {
    let output = helper(host, name, variable, tap);
    assert_eq!((output.code, output.stderr.as_str(), output.stdout.as_str()), (0, "", ""));
}

#[track_caller]
fn assert_refused(host: &Host, before: &Foreign, output: &Output, wanted: &str) {
    assert_eq!(output.stderr, format!("{wanted}\n"));
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_same(before, &host.foreign());
}

/// natup and ifup, with the network named and without a name, all say the same.
#[track_caller]
fn refused(host: &Host, before: &Foreign, wanted: &str) {
    for (name, variable) in
        [("natup", None), ("ifup", None), ("natup", Some("lab")), ("ifup", Some("lab"))]
    {
        let output = helper(host, name, variable, "vnet0");
        assert_refused(host, before, &output, &format!("kvmnet-{name}: {wanted}"));
    }
    // Releasing doesn't depend on any file.
    for name in ["natdown", "ifdown"] {
        ok(host, name, None, "vnet0");
        ok(host, name, Some("lab"), "vnet0");
    }
    assert_same(before, &host.foreign());
}

fn remove(host: &Host, path: &str) {
    let path = host.path(path);
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

fn set_mode(host: &Host, path: &str, mode: u32) {
    fs::set_permissions(host.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_files_all_is_as_before() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign_to_kvmnet(&["vnet0"]);
    for directory in [false, true] {
        if directory {
            fs::create_dir(host.path("/etc/kvmnet")).unwrap();
            // What editors and package managers leave is no network.
            for name in [".lab.toml.swp", ".lab.toml", "lab.toml~", "lab.toml.dpkg-new", "README"] {
                host.write(format!("/etc/kvmnet/{name}"), "\u{0}no TOML");
            }
        }
        for variable in [None, Some(""), Some("default")] {
            ok(&host, "natup", variable, "vnet0");
            host.assert_network(&["vnet0"]);
            ok(&host, "natdown", variable, "vnet0");
            host.assert_no_network();
            assert_same(&before, &host.foreign_to_kvmnet(&["vnet0"]));
        }
        host.ok("ip link add br0 type bridge");
        ok(&host, "ifup", None, "vnet0");
        assert_eq!(host.ports("br0"), ["vnet0"]);
        ok(&host, "ifdown", None, "vnet0");
        host.ok("ip link del br0");
    }
}

/// The line, what is wrong, and what to write instead.
#[test]
fn mistakes_in_the_text() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    let keys = "the keys are mode, bridge, address, taps, mtu, firewall, forwarding and zone";
    let form = "write the host's address and the subnet's prefix length: \"192.168.150.1/24\"";
    let room = "leaves no sensible room for guests; its prefix lies between /8 and /30";
    let cases: &[(&[u8], String)] = &[
        (
            b"",
            ":1: a network of mode nat needs the host's address and the subnet: address = \
             \"192.168.150.1/24\""
                .into(),
        ),
        (
            b"mode = \"isolated\"\r\n\r\nmode = \"nat\"",
            ":3: mode stands here a second time; keep one".into(),
        ),
        (b"mode = \"isolated\"\nbrigde = \"br1\"\n", format!(":2: unknown key brigde; {keys}")),
        (b"# a comment\n\n[lab]\nmode = \"nat\"\n", format!(":3: unknown key lab; {keys}")),
        (
            b"mode = \"isolated\"\nmtu = \"1500\"",
            ":2: mtu is of type string; write it so: mtu = 1500".into(),
        ),
        (
            b"mode = \"isolated\"\ntaps = \"lab*\"",
            ":2: taps is of type string; write it so: taps = [\"lab*\", \"vm-web\"]".into(),
        ),
        (b"address = \"10.0.0.1/0\"", format!(":1: address = \"10.0.0.1/0\" {room}")),
        (b"address = \"10.0.0.1/31\"", format!(":1: address = \"10.0.0.1/31\" {room}")),
        (b"address = \"10.0.0.1/32\"", format!(":1: address = \"10.0.0.1/32\" {room}")),
        (
            b"address = \"10.0.0.1/33\"",
            format!(":1: address = \"10.0.0.1/33\" is no IPv4 address with a prefix; {form}"),
        ),
        (
            b"\xef\xbb\xbf\n\naddress = \"10.0.0.0/24\"",
            ":3: address = \"10.0.0.0/24\" is the subnet itself; write the host's address in it: \
             \"10.0.0.1/24\""
                .into(),
        ),
        (
            b"address = \"10.0.0.255/24\"",
            ":1: address = \"10.0.0.255/24\" is the subnet's broadcast address; write the host's: \
             \"10.0.0.1/24\""
                .into(),
        ),
        (
            b"address = \"fd00::1/64\"",
            format!(":1: address = \"fd00::1/64\" is IPv6, which kvmnet doesn't route yet; {form}"),
        ),
        (
            b"mode = \"isolated\"\nfirewall = \"pf\"",
            ":2: firewall = \"pf\" is none; write \"auto\", \"nftables\", \"iptables\" or \"none\""
                .into(),
        ),
        (
            b"mode = \"isolated\"\nbridge = \"a/b\"",
            ":2: bridge = \"a/b\" is no interface name: it contains '/'".into(),
        ),
        // What a file's text says must not forge a line of the log.
        (
            b"mode = \"isolated\"\nbridge = \"a\\nb\\u001b[31m\"",
            ":2: bridge = \"a\\nb\\u{1b}[31m\" is no interface name: it contains the character \
             U+000A"
                .into(),
        ),
        (b"mode = \"isolated\"\n\"a\\nb\" = 1", format!(":2: unknown key a?b; {keys}")),
        (
            b"\x7fELF\x02\x01\x01\xff\xfe\x00",
            ": is not UTF-8; a network's file is text (TOML)".into(),
        ),
        (b"\xff\xfem\x00o\x00d\x00e\x00", ": is not UTF-8; a network's file is text (TOML)".into()),
    ];
    for (text, wanted) in cases {
        host.write(LAB, text);
        refused(&host, &before, &format!("{LAB}{wanted}"));
    }
    let large = |size: usize| {
        let mut text = b"mode = \"isolated\"\n#".to_vec();
        text.resize(size, b'x');
        text
    };
    for size in [64 * 1024 + 1, 10_000_000] {
        host.write(LAB, large(size));
        refused(
            &host,
            &before,
            &format!("{LAB}: is larger than 64 KiB; a network's file is a few lines"),
        );
    }
    host.write(LAB, large(64 * 1024));
    ok(&host, "natup", Some("lab"), "vnet0");
    assert_eq!(host.ports("lab"), ["vnet0"]);
}

/// NUL bytes are UTF-8, but nothing that a file of text holds.
#[test]
fn zeroes_where_text_should_be() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    host.write(LAB, [0; 4096]);
    let output = helper(&host, "natup", None, "vnet0");
    assert!(output.stderr.starts_with("kvmnet-natup: /etc/kvmnet/lab.toml:1: "), "{output:?}");
    assert_eq!((output.code, output.stderr.lines().count()), (1, 1), "{output:?}");
    assert!(!output.stderr.trim_end().contains(char::is_control), "{output:?}");
    assert_same(&before, &host.foreign());
}

#[test]
fn what_is_no_file() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    host.ok("mkdir /etc/kvmnet");
    let no_file = format!("{LAB}: is not a file; a network's file is text (TOML)");
    let missing = format!("{LAB}: cannot be read: No such file or directory (os error 2)");
    for (make, wanted) in [
        // Nobody will ever write to it.
        ("mkfifo -m 600 /etc/kvmnet/lab.toml", &no_file),
        ("mkdir /etc/kvmnet/lab.toml", &no_file),
        ("mknod -m 600 /etc/kvmnet/lab.toml c 1 5", &no_file),
        ("ln -s /dev/zero /etc/kvmnet/lab.toml", &no_file),
        ("ln -s nowhere /etc/kvmnet/lab.toml", &missing),
    ] {
        host.ok(make);
        refused(&host, &before, wanted);
        remove(&host, LAB);
    }
    host.ok("ln -s lab.toml /etc/kvmnet/lab.toml");
    refused(
        &host,
        &before,
        &format!("{LAB}: cannot be read: Too many levels of symbolic links (os error 40)"),
    );
    remove(&host, LAB);
    // A link that leads to a file is as good as the file.
    host.write("/etc/kvmnet/shared/lab", NAT);
    symlink("shared/lab", host.path(LAB)).unwrap();
    ok(&host, "natup", Some("lab"), "vnet0");
    assert_eq!(host.addresses("lab"), ["192.168.150.1/24"]);
}

#[test]
fn a_file_where_the_directory_should_be() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    host.write("/etc/kvmnet", "");
    refused(&host, &before, "/etc/kvmnet: cannot be read: Not a directory (os error 20)");
}

/// A directory that is kept elsewhere, and isn't there today: not the same as none.
#[test]
fn a_link_to_the_directory_that_leads_nowhere() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    symlink("/run/networks", host.path("/etc/kvmnet")).unwrap();
    refused(&host, &before, "/etc/kvmnet: cannot be read: No such file or directory (os error 2)");
    host.write("/run/networks/lab.toml", NAT);
    ok(&host, "natup", Some("lab"), "vnet0");
    assert_eq!(host.addresses("lab"), ["192.168.150.1/24"]);
}

/// Whoever can write a network's file can have the host's rules as he likes.
#[test]
fn files_that_others_can_write() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    let wanted = |path: &str, problem: &str, remedy: &str| {
        format!(
            "{path}: {problem}; whoever writes it decides over the host's network: {remedy} {path}"
        )
    };
    let written = "others than root can write to it";
    let owned = "belongs to a user other than root";
    host.write(LAB, NAT);
    for path in [LAB, "/etc/kvmnet"] {
        let usual = if path == LAB { 0o644 } else { 0o755 };
        for mode in [usual | 0o002, usual | 0o020, 0o777, 0o1777] {
            set_mode(&host, path, mode);
            refused(&host, &before, &wanted(path, written, "chmod go-w"));
        }
        set_mode(&host, path, usual);
        chown(host.path(path), Some(1000), None).unwrap();
        refused(&host, &before, &wanted(path, owned, "chown root"));
        chown(host.path(path), Some(0), Some(1000)).unwrap();
    }
    // Behind a link it is the file that counts.
    host.write("/run/lab", NAT);
    set_mode(&host, "/run/lab", 0o666);
    remove(&host, LAB);
    symlink("/run/lab", host.path(LAB)).unwrap();
    refused(&host, &before, &wanted(LAB, written, "chmod go-w"));
    set_mode(&host, "/run/lab", 0o600);
    ok(&host, "natup", Some("lab"), "vnet0");
}

#[test]
fn as_an_editor_of_another_system_leaves_it() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.write(
        LAB,
        "\u{feff}mode = \"routed\"\r\naddress = \"192.168.150.1/24\"\r\n\r\n# Ende\r\n",
    );
    ok(&host, "natup", Some("lab"), "vnet0");
    assert_eq!(host.addresses("lab"), ["192.168.150.1/24"]);
    assert_eq!(host.link("lab").unwrap()["ifalias"], "kvmnet:lab:forwarding");
}

#[test]
fn names_that_no_network_can_have() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    let form =
        "a network's name is 1 to 15 of a-z, 0-9, _ and -, and begins with a letter or digit";
    for (file, shown) in [
        ("Lab", "Lab"),
        ("my lab", "my lab"),
        ("-lab", "-lab"),
        ("lab.old", "lab.old"),
        ("sixteen_bytes_ab", "sixteen_bytes_ab"),
        ("a\nb\u{1b}[31m", "a?b?[31m"),
    ] {
        let path = format!("/etc/kvmnet/{file}.toml");
        host.write(&path, NAT);
        for name in ["natup", "ifup"] {
            let output = helper(&host, name, None, "vnet0");
            let wanted =
                format!("kvmnet-{name}: /etc/kvmnet/{shown}.toml: {form}: rename the file");
            assert_refused(&host, &before, &output, &wanted);
        }
        remove(&host, &path);
    }
    for (variable, shown) in [
        ("Lab", "\"Lab\""),
        ("../lab", "\"../lab\""),
        ("lab/", "\"lab/\""),
        ("lab\n", "\"lab\\n\""),
        (" ", "\" \""),
    ] {
        let output = helper(&host, "natup", Some(variable), "vnet0");
        let wanted = format!("kvmnet-natup: KVMNET_NETWORK asks for network {shown}; {form}");
        assert_refused(&host, &before, &output, &wanted);
    }
}

#[test]
fn a_network_without_a_file() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    link_program(&host, "natup@lab");
    // Without the directory, and with it.
    for _ in 0..2 {
        for name in ["natup", "ifup"] {
            let output = helper(&host, name, Some("lab"), "vnet0");
            let wanted = format!(
                "kvmnet-{name}: {LAB}: there is no such file for network lab, which KVMNET_NETWORK \
                 asks for"
            );
            assert_refused(&host, &before, &output, &wanted);
        }
        let output = run(&host, "/run/x/kvmnet-natup@lab", None, "vnet0");
        let wanted = format!(
            "kvmnet-natup: {LAB}: there is no such file for network lab, which the program's name \
             asks for"
        );
        assert_refused(&host, &before, &output, &wanted);
        host.write("/etc/kvmnet/other.toml", NAT);
    }
}

/// Makes `/run/x/kvmnet-…@NETWORK`, as an administrator does for each network.
fn link_program(host: &Host, name: &str) {
    let helper = name.split('@').next().unwrap();
    host.ok(&format!("mkdir -p /run/x && ln -s /usr/libexec/kvmnet-{helper} /run/x/kvmnet-{name}"));
}

#[test]
fn files_that_contradict_each_other() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    let other = "/etc/kvmnet/other.toml";
    for (one, two, what) in [
        (
            "address = \"10.1.0.1/24\"\nbridge = \"br7\"",
            "mode = \"bridged\"\nbridge = \"br7\"",
            "both have the bridge br7",
        ),
        (
            "mode = \"isolated\"\nbridge = \"other\"",
            "mode = \"isolated\"",
            "both have the bridge other",
        ),
        (
            "address = \"10.1.0.1/24\"",
            "mode = \"routed\"\naddress = \"10.1.0.2/24\"",
            "both have addresses of 10.1.0.0/24",
        ),
        (
            "address = \"10.1.0.1/16\"",
            "address = \"10.1.7.1/24\"",
            "both have addresses of 10.1.7.0/24",
        ),
        (
            "address = \"10.1.7.1/24\"",
            "address = \"10.1.0.1/16\"",
            "both have addresses of 10.1.7.0/24",
        ),
    ] {
        host.write(LAB, one);
        host.write(other, two);
        for name in ["natup", "ifup"] {
            let output = helper(&host, name, None, "vnet0");
            let wanted = format!("kvmnet-{name}: {LAB} and {other}: {what}; change one of them");
            assert_refused(&host, &before, &output, &wanted);
        }
    }
    // Side by side.
    host.write(LAB, "address = \"10.1.0.1/24\"");
    host.write(other, "address = \"10.1.1.1/24\"");
    ok(&host, "natup", None, "vnet0");
    assert_eq!(host.ports("br0"), ["vnet0"]);
}

#[test]
fn a_tap_that_two_files_claim() {
    let host = Host::bare();
    let _taps = [host.tap("vnet0"), host.tap("lab0")];
    let before = host.foreign();
    host.write(LAB, format!("{NAT}taps = [\"lab*\", \"vnet?\"]"));
    host.write("/etc/kvmnet/office.toml", "mode = \"isolated\"\ntaps = [\"v*0\"]");
    for name in ["natup", "ifup"] {
        let output = helper(&host, name, None, "vnet0");
        let wanted = format!(
            "kvmnet-{name}: vnet0: matches taps= of {LAB} and of /etc/kvmnet/office.toml; change \
             one of them, or choose with kvmnet-natup@NAME"
        );
        assert_refused(&host, &before, &output, &wanted);
    }
    // The choice that it offers.
    ok(&host, "natup", Some("office"), "vnet0");
    assert_eq!(host.ports("office"), ["vnet0"]);
    ok(&host, "natup", None, "lab0");
    assert_eq!(host.ports("lab"), ["lab0"]);
}

/// A network for each way to choose one.
fn four_networks(host: &Host) {
    for (name, subnet) in [("one", 1), ("two", 2), ("three", 3), ("default", 4)] {
        let rest = match name {
            "three" => "taps = [\"vnet*\"]",
            "default" => "bridge = \"br0\"",
            _ => "",
        };
        let text = format!("address = \"10.9.{subnet}.1/24\"\n{rest}");
        host.write(format!("/etc/kvmnet/{name}.toml"), text);
    }
}

#[test]
fn the_program_comes_before_the_environment_and_that_before_the_taps() {
    let host = Host::bare();
    let _taps = [host.tap("vnet0"), host.tap("tap0")];
    four_networks(&host);
    for helper in ["natup@one", "ifup@one", "natdown@one"] {
        link_program(&host, helper);
    }
    for (program, variable, tap, bridge, address) in [
        ("/run/x/kvmnet-natup@one", Some("two"), "vnet0", "one", "10.9.1.1/24"),
        ("/run/x/kvmnet-natup@one", None, "vnet0", "one", "10.9.1.1/24"),
        ("/run/x/kvmnet-ifup@one", Some("two"), "vnet0", "one", "10.9.1.1/24"),
        ("/usr/libexec/kvmnet-natup", Some("two"), "vnet0", "two", "10.9.2.1/24"),
        ("/usr/libexec/kvmnet-ifup", Some("two"), "vnet0", "two", "10.9.2.1/24"),
        ("/usr/libexec/kvmnet-natup", Some(""), "vnet0", "three", "10.9.3.1/24"),
        ("/usr/libexec/kvmnet-natup", None, "vnet0", "three", "10.9.3.1/24"),
        ("/usr/libexec/kvmnet-ifup", None, "vnet0", "three", "10.9.3.1/24"),
        ("/usr/libexec/kvmnet-natup", None, "tap0", "br0", "10.9.4.1/24"),
        ("/usr/libexec/kvmnet-natup", Some("default"), "vnet0", "br0", "10.9.4.1/24"),
    ] {
        run(&host, program, variable, tap).expect(program);
        assert_eq!(host.ports(bridge), [tap], "{program} {variable:?}");
        assert_eq!(host.addresses(bridge), [address]);
        assert_eq!(
            host.nft_tables(),
            [format!("ip kvmnet-{}", if bridge == "br0" { "default" } else { bridge })]
        );
        // The bridge says whose it is, whatever else is asked for.
        let down = if variable.is_some() {
            "/run/x/kvmnet-natdown@one"
        } else {
            "/usr/libexec/kvmnet-natdown"
        };
        run(&host, down, variable, tap).expect(down);
        assert!(host.link(bridge).is_none() && host.nft_tables().is_empty());
    }
    // The file of the default network is natup's business: ifup's is br0.
    let output = helper(&host, "ifup", None, "tap0");
    assert!(output.stderr.contains("br0: there is no such bridge"), "{output:?}");
    // Nothing but the last part of the program's path counts.
    host.ok("mkdir -p /run/a@one && cp -P /run/x/kvmnet-natup@one /run/a@one/natup");
    run(&host, "/run/a@one/natup", None, "tap0").expect("natup");
    assert_eq!(host.ports("br0"), ["tap0"]);
}

#[test]
fn the_default_networks_file_stands_in_for_what_is_built_in() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.write("/etc/kvmnet/default.toml", "bridge = \"virbr7\"\naddress = \"192.168.77.1/25\"");
    ok(&host, "natup", None, "vnet0");
    assert_eq!(
        (host.ports("virbr7"), host.addresses("virbr7")),
        (vec!["vnet0".into()], vec!["192.168.77.1/25".into()])
    );
    assert!(host.link("br0").is_none());
    ok(&host, "natdown", None, "vnet0");
    host.write("/etc/kvmnet/default.toml", "mode = \"isolated\"\nbridge = \"br0\"");
    ok(&host, "natup", Some("default"), "vnet0");
    assert_eq!(host.nft_tables(), ["netdev kvmnet-default"]);
    ok(&host, "natdown", None, "vnet0");
    host.assert_no_network();
    host.write("/etc/kvmnet/default.toml", "mode = \"bridged\"\nbridge = \"br1\"");
    host.ok("ip link add br1 type bridge && ip link set br1 up");
    ok(&host, "natup", None, "vnet0");
    assert_eq!(host.ports("br1"), ["vnet0"]);
    ok(&host, "natdown", None, "vnet0");
    assert!(host.ports("br1").is_empty());
}

/// A file that can't be read might have claimed the tap; for a network that is named, only its own
/// counts.
#[test]
fn a_broken_file_of_another_network() {
    let host = Host::bare();
    let _taps = [host.tap("vnet0"), host.tap("vnet1")];
    host.write(LAB, NAT);
    ok(&host, "natup", Some("lab"), "vnet0");
    let with_vnet0 = host.foreign();
    host.write("/etc/kvmnet/zoo.toml", "mode = zoo");
    ok(&host, "natup", Some("lab"), "vnet1");
    ok(&host, "natdown", Some("lab"), "vnet1");
    assert!(
        with_vnet0
            .diff(&host.foreign().without_link("vnet1"))
            .lines()
            .all(|line| line.contains("vnet1") || line.ends_with(':'))
    );
    let before = host.foreign();
    for name in ["natup", "ifup"] {
        let output = helper(&host, name, None, "vnet1");
        let wanted = format!(
            "kvmnet-{name}: /etc/kvmnet/zoo.toml:1: a word without quotes; write it in quotes: \
             mode = \"nat\""
        );
        assert_refused(&host, &before, &output, &wanted);
    }
    // Down goes by the bridge.
    ok(&host, "natdown", None, "vnet0");
    assert!(host.link("lab").is_none() && host.nft_tables().is_empty());
}

#[test]
fn the_file_is_changed_or_goes_while_the_tap_is_up() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign_to_kvmnet(&["vnet0", "lab"]);
    let changes = [
        "rm /etc/kvmnet/lab.toml",
        "rm -r /etc/kvmnet",
        "chmod 666 /etc/kvmnet/lab.toml",
        "chmod 777 /etc/kvmnet",
        "echo mode = broken >/etc/kvmnet/lab.toml",
        "echo 'mode = \"isolated\"' >/etc/kvmnet/lab.toml",
        "echo 'mode = \"bridged\"' >/etc/kvmnet/lab.toml",
        "sed -i s/192.168.150/192.168.151/ /etc/kvmnet/lab.toml",
        "echo 'bridge = \"elsewhere\"' >>/etc/kvmnet/lab.toml",
        "mv /etc/kvmnet/lab.toml /etc/kvmnet/zoo.toml",
        "rm /etc/kvmnet/lab.toml; mkfifo /etc/kvmnet/lab.toml",
    ];
    for mode in ["nat", "routed", "isolated"] {
        for change in changes {
            for (down, variable) in
                [("natdown", None), ("natdown", Some("lab")), ("ifdown", Some("lab"))]
            {
                let address = if mode == "isolated" { "" } else { NAT };
                host.ok("rm -rf /etc/kvmnet");
                host.write(LAB, format!("mode = \"{mode}\"\n{address}"));
                ok(&host, "natup", Some("lab"), "vnet0");
                assert_eq!(host.ports("lab"), ["vnet0"]);
                host.ok(change);
                ok(&host, down, variable, "vnet0");
                let tables = host.nft_tables();
                assert!(
                    host.link("lab").is_none() && tables.is_empty(),
                    "{mode} {change} {tables:?}"
                );
            }
        }
        host.assert_no_network();
        assert_same(&before, &host.foreign_to_kvmnet(&["vnet0", "lab"]));
    }
}

/// The kernel keeps the names `all` and `default` for its settings: no interface can have them.
#[test]
fn the_default_networks_file_need_not_name_the_bridge() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.write("/etc/kvmnet/default.toml", "address = \"192.168.77.1/24\"");
    ok(&host, "natup", None, "vnet0");
    assert_eq!(
        (host.ports("br0"), host.addresses("br0")),
        (vec!["vnet0".into()], vec!["192.168.77.1/24".into()])
    );
}

#[test]
fn bridge_names_that_the_kernel_keeps_for_itself() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    for name in ["all", "default"] {
        host.write(LAB, format!("mode = \"isolated\"\nbridge = \"{name}\""));
        let output = helper(&host, "natup", Some("lab"), "vnet0");
        let wanted = format!("kvmnet-natup: {LAB}:2: bridge = \"{name}\" is no interface name");
        assert!(output.stderr.starts_with(&wanted) && output.code == 1, "{output:?}");
        assert_same(&before, &host.foreign());
    }
    host.write("/etc/kvmnet/all.toml", "mode = \"isolated\"");
    let output = helper(&host, "natup", Some("all"), "vnet0");
    assert!(output.stderr.contains("/etc/kvmnet/all.toml"), "{output:?}");
    assert_same(&before, &host.foreign());
}
