//! Loopback ports for the guests' SSH: a VM keeps its port as long as nobody else has it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// The host's ports, shared by all VMs.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    taken: Mutex<BTreeSet<u16>>,
}

impl Ports {
    /// The ports `first..=last`.
    pub fn new([first, last]: [u16; 2]) -> Self {
        Self { range: first..=last, taken: Mutex::default() }
    }

    /// Notes that a running VM has `port`.
    pub fn keep(&self, port: u16) {
        self.taken().insert(port);
    }

    /// A port for a VM that is to start: `former` if it can be had, else the first that can. `None`: all are taken.
    pub fn take(&self, former: Option<u16>) -> Option<u16> {
        let mut taken = self.taken();
        if let Some(port) = former {
            taken.remove(&port);
        }
        let former = former.filter(|port| self.range.contains(port));
        let free = |port: &u16| !taken.contains(port) && bindable(*port);
        let port = former.into_iter().chain(self.range.clone()).find(free)?;
        taken.insert(port);
        Some(port)
    }

    /// Gives `port` back.
    pub fn give_back(&self, port: u16) {
        self.taken().remove(&port);
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, BTreeSet<u16>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bindable(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that somebody listens on, and its two neighbours' range.
    fn busy() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("address").port();
        (listener, port)
    }

    #[test]
    fn a_port_that_somebody_else_listens_on_is_passed_over() {
        let (_listener, port) = busy();
        assert_eq!(Ports::new([port, port]).take(Some(port)), None);
    }

    #[test]
    fn a_vm_keeps_its_port_and_no_port_is_given_twice() {
        let (listener, port) = busy();
        drop(listener);
        let ports = Ports::new([port, port]);
        assert_eq!(ports.take(None), Some(port));
        assert_eq!(ports.take(None), None);
        assert_eq!(ports.take(Some(port)), Some(port));
        ports.give_back(port);
        assert_eq!(ports.take(None), Some(port));
    }

    #[test]
    fn a_former_port_outside_the_range_is_not_kept() {
        let (listener, port) = busy();
        drop(listener);
        assert_eq!(Ports::new([port, port]).take(Some(1)), Some(port));
    }
}
