//! The system calls that neither std nor a crate we have offers in the form we need. All unsafe code on descriptors is here.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;

use crate::protocol::FRAME_FDS_MAX;
use crate::spec::TerminalSize;

/// The result of a system call that says -1 for "look at errno".
pub(crate) fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as the kernel takes it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

/// Wall-clock time.
pub(crate) fn now() -> Timestamp {
    let time = clock(libc::CLOCK_REALTIME);
    let nanoseconds = i32::try_from(time.tv_nsec).expect("the kernel keeps nanoseconds below a second");
    Timestamp::new(time.tv_sec, nanoseconds).unwrap_or(Timestamp::MAX)
}

/// Milliseconds of a clock that never jumps.
pub(crate) fn monotonic_ms() -> u64 {
    let time = clock(libc::CLOCK_MONOTONIC);
    let seconds = u64::try_from(time.tv_sec).expect("monotonic time starts at zero");
    seconds * 1000 + u64::try_from(time.tv_nsec).expect("the kernel keeps nanoseconds positive") / 1_000_000
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which lives until it returns; these clocks always exist.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}

/// read(2).
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buffer)?)
}

/// write(2). A broken pipe is an error, never a signal: both halves ignore SIGPIPE.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(fd, bytes)?)
}

pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// A close-on-exec pipe: the reading and the writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

pub(crate) fn set_terminal_size(fd: RawFd, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives until the call returns; a wrong descriptor is an error.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Space for the control message of a frame's descriptors, aligned as `cmsghdr` wants.
#[repr(C, align(8))]
struct Control([u8; 64]);

const _: () = assert!(64 >= 16 + FRAME_FDS_MAX * size_of::<RawFd>());

/// recvmsg(2): bytes into `buffer`, descriptors onto the end of `fds`. No more than one frame's worth of descriptors
/// comes with one call, because the sender sends each frame by itself.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zeroes is a valid empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: the message points at `buffer` and `control` with their true lengths; both outlive the call.
    let count = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: the kernel has filled `control` up to msg_controllen; the CMSG macros walk only within it, and the payload
    // of SCM_RIGHTS is as many descriptors as its length says, each now ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..payload / size_of::<RawFd>() {
                    fds.push_back(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    usize::try_from(count).map_err(io::Error::other)
}

/// sendmsg(2) with descriptors; returns how many bytes were taken. The descriptors go with the first of them.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    assert!(fds.len() <= FRAME_FDS_MAX, "no frame has more descriptors");
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which all zeroes is a valid empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let payload = u32::try_from(size_of_val(fds)).expect("a handful of descriptors");
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE, CMSG_LEN only compute; the header and payload fit into `control` (asserted above).
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(payload) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (index, fd) in fds.iter().enumerate() {
                data.add(index).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message points at `bytes` and `control` with their true lengths; the kernel only reads them.
    let count = check(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) })?;
    usize::try_from(count).map_err(io::Error::other)
}

/// The user at the other end of a unix socket.
pub(crate) fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// kill(2). `ESRCH`, nobody there, is not an error.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill has no memory arguments.
    match check(unsafe { libc::kill(pid, signal) }) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// mount(2).
pub(crate) fn mount(source: &Path, target: &Path, fstype: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let fstype = CString::new(fstype)?;
    let options = CString::new(options)?;
    // SAFETY: all five point at NUL-terminated strings that outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, options.as_ptr().cast()) })?;
    Ok(())
}

/// What a detached tree of mounts shall be like, as `mount_setattr(2)` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountAttributes(u64);

impl MountAttributes {
    pub const NONE: MountAttributes = MountAttributes(0);
    /// All of the tree refuses writes.
    pub const READ_ONLY: MountAttributes = MountAttributes(1);
    /// `MOUNT_ATTR_IDMAP`: the topmost mount shows ids through a user namespace.
    const MAPPED: MountAttributes = MountAttributes(0x0010_0000);
}

/// A detached copy of what is mounted at a path, with all below it.
pub(crate) fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    open_tree(libc::AT_FDCWD, &path, 0)
}

/// A detached copy of what an open file or directory is, with all below it.
pub(crate) fn clone_tree_at(fd: impl AsFd) -> io::Result<OwnedFd> {
    open_tree(fd.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

fn open_tree(fd: RawFd, path: &std::ffi::CStr, more: libc::c_int) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | (libc::AT_RECURSIVE | more).cast_unsigned();
    // SAFETY: the path is NUL-terminated and outlives the call; the descriptor returned is new and ours alone.
    unsafe {
        let tree = check(libc::syscall(libc::SYS_open_tree, fd, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(RawFd::try_from(tree).map_err(io::Error::other)?))
    }
}

/// Sets attributes on all of a detached tree; its topmost mount shows ids through `map`, a user namespace.
pub(crate) fn set_mount_attributes(tree: &OwnedFd, set: MountAttributes, map: Option<&OwnedFd>) -> io::Result<()> {
    #[repr(C)]
    struct Arguments {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let mut steps = Vec::new();
    if set != MountAttributes::NONE {
        steps.push((Arguments { set: set.0, clear: 0, propagation: 0, user_namespace: 0 }, libc::AT_RECURSIVE));
    }
    if let Some(map) = map {
        let user_namespace = u64::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
        steps.push((Arguments { set: MountAttributes::MAPPED.0, clear: 0, propagation: 0, user_namespace }, 0));
    }
    for (arguments, flags) in steps {
        // SAFETY: the structure is as long as is said and outlives the call; the path is empty and NUL-terminated.
        check(unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                c"".as_ptr(),
                flags | libc::AT_EMPTY_PATH,
                &raw const arguments,
                size_of::<Arguments>(),
            )
        })?;
    }
    Ok(())
}

/// Mounts a detached tree at a path, which is made: as a directory or as an empty file, whatever the tree is.
pub(crate) fn attach_tree(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    make_place(tree, target)?;
    move_tree(tree, target)
}

/// Makes what a tree can be attached to.
pub(crate) fn make_place(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    match rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode) {
        rustix::fs::FileType::Directory => std::fs::create_dir(target),
        _ => std::fs::write(target, b""),
    }
}

/// Attaches a detached tree to what is there.
pub(crate) fn move_tree(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: both paths are NUL-terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Unmounts lazily; not being a mount point, or not being there, is not an error.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    match check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Err(error),
        _ => Ok(()),
    }
}

/// Sends a signal, a real-time one as well, to a process that is held.
pub fn signal_held(process: std::os::fd::BorrowedFd, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    let held = std::os::fd::AsRawFd::as_raw_fd(&process);
    // SAFETY: the descriptor is open as long as it is borrowed, and without siginfo the kernel reads no memory of ours.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held, signal, no_info, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mount points at or below `root` in this process's mount namespace, deepest first.
pub fn mounts_below(root: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = mount_points("self")?;
    found.retain(|path| path.starts_with(root));
    found.sort();
    found.reverse();
    Ok(found)
}

/// Mount points in the mount namespace of a process (`self`, or a number), as it sees them.
pub(crate) fn mount_points(process: &str) -> io::Result<Vec<std::path::PathBuf>> {
    let table = std::fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
    let fields = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(fields.map(|field| std::path::PathBuf::from(unescape(field))).collect())
}

/// mountinfo writes blanks and backslashes as three octal digits.
pub(crate) fn unescape(field: &str) -> String {
    let mut text = field.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, plain);
    }
    text
}

/// The out-of-memory score that a process started by this one may have: without CAP_SYS_RESOURCE, which some machines
/// take even from root, none below our own. A container with a higher score than asked for is better than none.
pub(crate) fn allowed_oom_score(wanted: i32) -> i32 {
    const CAP_SYS_RESOURCE: u32 = 24;
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
    let own: i32 = own.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if effective >> CAP_SYS_RESOURCE & 1 == 1 { wanted } else { wanted.max(own) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_the_bytes_they_were_sent_with() {
        let (one, other) = UnixStream::pair().expect("a socket pair");
        let (reader, writer) = pipe().expect("a pipe");
        assert_eq!(send(&one, b"hello", &[writer.as_fd(), reader.as_fd()]).expect("send"), 5);
        let mut fds = VecDeque::new();
        let mut buffer = [0; 32];
        assert_eq!(receive(&other, &mut buffer, &mut fds).expect("receive"), 5);
        assert_eq!(fds.len(), 2);
        drop((reader, writer));
        assert_eq!(write(&fds[0], b"x").expect("the writer still works"), 1);
        assert_eq!(read(&fds[1], &mut buffer).expect("and so does the reader"), 1);
    }

    #[test]
    fn mount_points_with_blanks_are_found() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
