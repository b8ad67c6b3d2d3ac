//! What CRIU leaves in a container when it is ended in the middle of its work, and that is undone here.
//!
//! The processes go on by themselves: the code that CRIU puts into them takes them back when CRIU is gone. Their TCP
//! connections do not: they are held back by a table of rules named after the first process, in the network that the shim is
//! in as well, and those that were being written down are in the mode that is for that, in which they carry nothing.
//!
//! Source: criu(8), "--network-lock"; tcp(7) and the kernel's `TCP_REPAIR`; RFC 3549 for the form of the messages.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::cgroup::ContainerCgroup;
use crate::kernel::check;

/// What is said to nf_tables: begin and end of a batch, and that a table is to go.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const DELETE_TABLE: u16 = (10 << 8) | 2;
/// It is a request; an answer is wanted.
const REQUEST: u16 = 1;
const ANSWER: u16 = 4;
/// The part of netfilter that nf_tables is.
const NF_TABLES: u16 = 10;
/// The family of tables for both versions of IP.
const BOTH: u8 = 1;
/// The attribute that names a table.
const NAME: u16 = 1;

/// Lets the connections of a container go on; `init` is its first process.
pub(super) fn mend(init: i32, group: &ContainerCgroup) {
    if let Err(error) = delete_table(&format!("CRIU-{init}")) {
        eprintln!("shim: the rules that CRIU has left could not be removed: {error}");
    }
    for process in group.processes() {
        // One that has ended has none.
        if let Err(error) = take_out_of_repair(process)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            eprintln!("shim: the connections of process {process} could not be looked at: {error}");
        }
    }
}

/// Ends the mode of a process's TCP connections in which they are written down.
fn take_out_of_repair(process: i32) -> io::Result<()> {
    let pid = Pid::from_raw(process).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let entries = match fs::read_dir(format!("/proc/{process}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let is_socket = fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_socket);
        // It may have been closed since.
        let socket = number.and_then(|number| pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok());
        if let Some(socket) = socket.filter(is_in_repair) {
            end_repair(&socket)?;
        }
    }
    Ok(())
}

/// No socket but TCP's knows the option.
fn is_in_repair(socket: &OwnedFd) -> bool {
    let (mut value, mut length): (libc::c_int, libc::socklen_t) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: both pointers are to values of the sizes that are said, alive until the call returns.
    let asked = unsafe {
        let (value, length) = ((&raw mut value).cast(), &raw mut length);
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, value, length)
    };
    asked == 0 && value != 0
}

fn end_repair(socket: &OwnedFd) -> io::Result<()> {
    set_repair(socket, 0)
}

fn set_repair(socket: &OwnedFd, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value has the size that is said and lives until the call returns.
    check(unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, value, length)
    })?;
    Ok(())
}

/// Removes a table of nf_tables, with its rules, from the network that this process is in; it may not be there.
fn delete_table(name: &str) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER));
    // A kernel without it has no such rules.
    let socket = match socket {
        Err(Errno::PROTONOSUPPORT) => return Ok(()),
        socket => socket?,
    };
    let mut batch = message(BATCH_BEGIN, REQUEST, (0, NF_TABLES), None);
    batch.extend(message(DELETE_TABLE, REQUEST | ANSWER, (BOTH, 0), Some(name)));
    batch.extend(message(BATCH_END, REQUEST, (0, NF_TABLES), None));
    send(&socket, &batch, SendFlags::empty())?;
    // The kernel has done it all when the sending is over.
    let mut answer = [0; 4096];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    let code = answer[..length].get(16..20).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match code {
        0 => Ok(()),
        code if -code == libc::ENOENT => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// One message: its header, netfilter's own, and the name of a table.
fn message(kind: u16, flags: u16, (family, resource): (u8, u16), name: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    if let Some(name) = name {
        let length = u16::try_from(4 + name.len() + 1).expect("a name of a few digits");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(NAME.to_ne_bytes());
        bytes.extend(name.bytes());
        // It ends with a NUL, and where a multiple of four does.
        bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).expect("a few dozen bytes");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{is_in_repair, set_repair, take_out_of_repair};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    /// Needs root: nobody else may put a connection into that mode.
    #[test]
    fn connections_that_were_being_written_down_carry_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let ours: OwnedFd = client.try_clone().expect("a copy").into();
        set_repair(&ours, 1).expect("root may");
        assert!(is_in_repair(&ours));
        take_out_of_repair(std::process::id().cast_signed()).expect("our own process");
        assert!(!is_in_repair(&ours));
    }
}
