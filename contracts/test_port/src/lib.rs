//! Ports for the servers of tests; a development dependency only.
//!
//! A server that is told its port beforehand cannot take the kernel's word for a free one: between that word and the
//! server's start the kernel may give the same port to any client on the machine. These lie below the range from which it
//! gives ([ip_local_port_range](https://docs.kernel.org/networking/ip-sysctl.html), 32768 and up), and each process begins
//! at another place.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Above the ports of the platforms that the tests of the whole stack start.
const FIRST: u16 = 23_000;
const COUNT: u16 = 9_000;
/// Far enough apart that two processes meet only after so many ports.
const PER_PROCESS: u32 = 89;

/// A port of loopback on which nobody listens, and that this process gives once.
///
/// # Panics
///
/// If all are taken.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(PER_PROCESS);
    (0..COUNT)
        .map(|_| start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % u32::from(COUNT))
        .filter_map(|offset| Some(FIRST + u16::try_from(offset).ok()?))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port of this machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_not_while_somebody_listens() {
        let first = free_port();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 1)).expect("the one after it");
        let more: Vec<u16> = (0..50).map(|_| free_port()).collect();
        assert!(!more.contains(&first) && !more.contains(&(first + 1)));
        assert!(more.iter().all(|port| (FIRST..FIRST + COUNT).contains(port)));
    }
}
