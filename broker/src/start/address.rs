//! Where the broker listens and what it tells clients.

use std::net::{IpAddr, SocketAddr};

use common::net::{TcpListener, lookup_host};

use super::StartError;
use crate::server;

/// Binds `address`, `host:port`.
///
/// # Errors
/// The port is in use, or the address cannot be used; one sentence with the key to change.
pub(super) async fn bind(key: &'static str, address: &str) -> Result<TcpListener, StartError> {
    let refused = |reason: String| StartError::Listen { key, address: address.to_owned(), reason };
    let mut found = lookup_host(address)
        .await
        .map_err(|error| refused(format!("cannot be resolved ({error}); write host:port")))?;
    let address = found.next().ok_or_else(|| refused("has no address".to_owned()))?;
    server::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            refused("is in use by another process; stop it or choose another port".to_owned())
        }
        std::io::ErrorKind::PermissionDenied => {
            refused("needs a privilege; choose a port above 1023".to_owned())
        }
        _ => refused(format!("cannot be used ({error})")),
    })
}

/// Host and port for clients: what `advertise` says, else the listener's own.
pub(super) fn advertised(
    advertise: Option<&str>,
    listener: SocketAddr,
) -> Result<(String, u16), StartError> {
    let Some(text) = advertise else {
        return Ok((own_host(listener.ip()), listener.port()));
    };
    let wrong = || StartError::Listen {
        key: "advertise",
        address: text.to_owned(),
        reason: "is not host or host:port".to_owned(),
    };
    let (host, port) = split(text).ok_or_else(wrong)?;
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    // Port 0 means: the listener's.
    let port = port.filter(|port| *port != 0).unwrap_or(listener.port());
    Ok((host.to_owned(), port))
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare v6 address.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
    }
}

fn own_host(address: IpAddr) -> String {
    if address.is_unspecified() {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        return if name.is_empty() { "localhost".to_owned() } else { name.to_owned() };
    }
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_are_told() {
        let listener: SocketAddr = "127.0.0.1:9092".parse().expect("an address");
        let told = |text: Option<&str>| advertised(text, listener).ok();
        assert_eq!(told(None), Some(("127.0.0.1".to_owned(), 9092)));
        assert_eq!(told(Some("kafka")), Some(("kafka".to_owned(), 9092)));
        assert_eq!(told(Some("kafka:1")), Some(("kafka".to_owned(), 1)));
        assert_eq!(told(Some("[::1]:7")), Some(("::1".to_owned(), 7)));
        assert_eq!(told(Some("::1")), Some(("::1".to_owned(), 9092)));
        for bad in ["", ":9", "a:b", "a b", "[::1", "a:99999"] {
            assert_eq!(told(Some(bad)), None, "{bad}");
        }
    }
}
