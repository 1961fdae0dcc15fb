//! What a key demands of the kernel that runs us.
//!
//! Limits: none. Does not: change anything but, for a privileged process, what the kernel itself
//! does when it is asked for a congestion control that is a module: it loads it.

use super::Peers;
use socket2::{Domain, Socket, Type};
use std::io::ErrorKind;

/// The names of what the kernel has, and of what it lets everybody take.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Checks that sockets can have the congestion control that is configured: by giving it to one,
/// because the list of what there is has no modules that are not loaded yet.
pub(super) fn check_congestion_control(peers: &Peers) -> Result<(), String> {
    let name = &peers.congestion_control;
    if name.is_empty() {
        return Ok(());
    }
    // Where there are no sockets at all, what is bound later says so.
    let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, None) else {
        return Ok(());
    };
    let Err(error) = socket.set_tcp_congestion(name.as_bytes()) else {
        return Ok(());
    };
    Err(match error.kind() {
        ErrorKind::NotFound => format!(
            "this kernel has no congestion control \"{name}\"; it has: {}",
            list(AVAILABLE)
        ),
        ErrorKind::PermissionDenied => format!(
            "this kernel lets only privileged processes take the congestion control \"{name}\"; \
             everybody may take: {}",
            list(ALLOWED)
        ),
        _ => format!("the congestion control \"{name}\" cannot be taken: {error}"),
    })
}

fn list(path: &str) -> String {
    let names = std::fs::read_to_string(path).unwrap_or_default();
    let names: Vec<&str> = names.split_whitespace().collect();
    match names.is_empty() {
        true => format!("see {path}"),
        false => names.join(", "),
    }
}
