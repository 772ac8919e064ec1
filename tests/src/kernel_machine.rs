//! The guest on a kernel of its own: the root file system of the one with systemd, without systemd.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::process::PATIENCE;
use crate::stage::{kernel_image, staged_tree, systemd_image};

/// What the guest runs in place of systemd.
const AGENT: &str = include_str!("../kernel-guest/agent");

/// QEMU's arguments for a guest on the kernel of that version. What is on its first two drives stays as
/// it is; the third brings kvmnet, the test programs, and the machine's tools for them.
pub(crate) fn kernel_machine(
    host: &Host,
    version: &str,
    before_boot: &str,
    tests: &[(String, PathBuf)],
    directory: &Path,
) -> Vec<OsString> {
    let drive = directory.join("drive");
    let files = directory.join("files");
    fs::create_dir_all(host.path(files.join("tests"))).expect("the host's /dev/shm is writable");
    host.write_program(files.join("agent"), AGENT);
    host.write(files.join("before"), format!("set -e\n{before_boot}"));
    for (name, path) in tests {
        // Most of a test program is for debuggers.
        let mut command = host.command("strip");
        command.arg("-o").arg(files.join("tests").join(name)).arg(path);
        host.spawn(&mut command).output(PATIENCE).expect("strip");
    }
    let archive =
        "set -e; cp -a \"$3\" \"$2/stage\"; tar --owner=0 --group=0 -cf \"$1\" -C \"$2\" .
                   tar -A -f \"$1\" \"$4\"; rm -r \"$2\"";
    let mut command = host.command("sh");
    command.args(["-c", archive, "tar"]).args([&drive, &files]).arg(staged_tree());
    command.arg(kernel_image("tools.tar"));
    host.spawn(&mut command).output(PATIENCE).expect("tar");
    // As the guest with systemd has it, with memory for hosts within the guest. Without rdrand 5.10 has no
    // randomness yet when the first test asks for some, and that waits for it.
    let machine = "-M q35 -cpu qemu64,-cx16,+rdrand -m 1024 -nic none";
    let mut line: Vec<OsString> = machine.split(' ').map(OsString::from).collect();
    line.extend(["-kernel".into(), kernel_image(&format!("{version}.vmlinuz")).into()]);
    line.extend(["-initrd".into(), kernel_image(&format!("{version}.initrd")).into()]);
    line.extend(drives(&[
        (systemd_image("root.img"), "snapshot=on"),
        (kernel_image(&format!("{version}.modules")), "readonly=on"),
        (drive, "readonly=on"),
    ]));
    line
}

/// QEMU's arguments for drives, in the order in which the guest sees them.
pub(crate) fn drives(files: &[(PathBuf, &str)]) -> Vec<OsString> {
    let mut line = Vec::new();
    for (file, options) in files {
        // A comma in a path is doubled.
        let file = file.display().to_string().replace(',', ",,");
        let drive = format!("if=virtio,format=raw,file={file},{options}");
        line.extend(["-drive".into(), drive.into()]);
    }
    line
}
