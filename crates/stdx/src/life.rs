//! Signs of life on a TCP connection whose reader may wait for ever: the other side's silence is noticed by the kernel.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};

/// A silent connection is asked for a sign of life after this long …
const IDLE: Duration = Duration::from_secs(10);
/// … and is over when none of so many questions, this far apart, is answered: a packet may be lost.
const INTERVAL: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 5;

/// From now on a connection on which nothing is said ends with an error when the other side's machine is not heard of for
/// 15 s.
///
/// Caveats     what was sent and is not acknowledged has the kernel's own patience: `TCP_USER_TIMEOUT` would also cut off
///             a reader who stops to think
pub fn expect_life(socket: &impl AsFd) -> io::Result<()> {
    set_socket_keepalive(socket, true)?;
    set_tcp_keepidle(socket, IDLE)?;
    set_tcp_keepintvl(socket, INTERVAL)?;
    set_tcp_keepcnt(socket, QUESTIONS)?;
    Ok(())
}
