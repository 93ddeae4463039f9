//! Where a request comes from: the address of the connection, or what a trusted proxy says. Never what a stranger says.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// This machine.
    Loopback,
    /// An address; of IPv6 its first 64 bits, since one machine has all addresses below them.
    Address(IpAddr),
    /// The server did not say. All such requests count as one caller's.
    Unknown,
}

impl Peer {
    /// From a request. `X-Forwarded-For` counts only where the connection comes from one of the `proxies`; then its last
    /// address is meant, the one that the proxy itself saw.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, proxies: &[IpAddr]) -> Self {
        let Some(ConnectInfo(address)) = extensions.get::<ConnectInfo<SocketAddr>>() else {
            return Self::Unknown;
        };
        let address = address.ip().to_canonical();
        if !proxies.is_empty() && proxies.contains(&address) {
            return forwarded(headers).map_or(Self::Unknown, Self::from_address);
        }
        Self::from_address(address)
    }

    fn from_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self::Address(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address => Self::Address(address),
        }
    }
}

/// Whether a proxy, trusted or not, has passed the request on: then "from this machine" says nothing about the caller.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, forwarded: Option<&str>, proxies: &[IpAddr]) -> Peer {
        let mut extensions = Extensions::new();
        let address: SocketAddr = address.parse().expect("an address");
        extensions.insert(ConnectInfo(address));
        let mut headers = HeaderMap::new();
        if let Some(text) = forwarded {
            headers.insert("x-forwarded-for", text.parse().expect("a header"));
        }
        Peer::of(&extensions, &headers, proxies)
    }

    fn address(text: &str) -> Peer {
        Peer::Address(text.parse().expect("an address"))
    }

    #[test]
    fn the_connection_says_who_it_is() {
        assert_eq!(peer("192.0.2.7:443", None, &[]), address("192.0.2.7"));
        assert_eq!(peer("[::ffff:192.0.2.7]:443", None, &[]), address("192.0.2.7"));
        assert_eq!(peer("[2001:db8:1:2:3:4:5:6]:443", None, &[]), address("2001:db8:1:2::"));
        assert_eq!(peer("127.0.0.2:1", None, &[]), Peer::Loopback);
        assert_eq!(peer("[::1]:1", None, &[]), Peer::Loopback);
        assert_eq!(Peer::of(&Extensions::new(), &HeaderMap::new(), &[]), Peer::Unknown);
    }

    #[test]
    fn a_stranger_cannot_name_another_address() {
        assert_eq!(peer("192.0.2.7:443", Some("127.0.0.1"), &[]), address("192.0.2.7"));
    }

    #[test]
    fn a_trusted_proxy_can_and_only_its_own_word_counts() {
        let proxies = ["192.0.2.7".parse().expect("an address")];
        assert_eq!(peer("192.0.2.7:1", Some("127.0.0.1, 198.51.100.9"), &proxies), address("198.51.100.9"));
        assert_eq!(peer("192.0.2.7:1", None, &proxies), Peer::Unknown);
        assert_eq!(peer("192.0.2.7:1", Some("nobody"), &proxies), Peer::Unknown);
        assert_eq!(peer("192.0.2.8:1", Some("198.51.100.9"), &proxies), address("192.0.2.8"));
    }
}
