//! The option `listen`: an address, or a name that is resolved at the start.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
};

use serde::Deserialize;

/// An address or a host's name, with a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(String);

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_named = || {
            let (name, port) = text.rsplit_once(':')?;
            port.parse::<u16>().ok()?;
            let is_name = !name.is_empty()
                && !name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            is_name.then_some(())
        };
        if text.parse::<SocketAddr>().is_ok() || is_named().is_some() {
            return Ok(Self(text));
        }
        Err(format!(
            "is {text:?}, which is not an address with a port: write it like 127.0.0.1:8080, \
             0.0.0.0:8080, [::1]:8080 or localhost:8080"
        ))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ListenAddress {
    /// Returns the addresses of the name, IPv4 first. There is at least one.
    ///
    /// # Errors
    /// When the name can't be resolved.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<_> = self.0.to_socket_addrs()?.collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }

    /// Returns the host and port for calls from this machine: the loopback address if the service
    /// listens on all interfaces.
    pub fn reachable(&self) -> String {
        let Ok(address) = self.0.parse::<SocketAddr>() else { return self.0.clone() };
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("{host}:{}", address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_name_with_a_port_is_taken_and_nothing_else() {
        let parsed = |text: &str| ListenAddress::try_from(text.to_owned());
        for right in ["127.0.0.1:8080", "[::1]:0", "localhost:8080", "a-b.example.org:1"] {
            assert!(parsed(right).is_ok(), "{right}");
        }
        for wrong in
            ["8080", ":8080", "*:8080", "localhost", "localhost:http", "h:70000", "1.2.3:80", "::1"]
        {
            let error = parsed(wrong).unwrap_err();
            assert!(error.contains("localhost:8080"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_name_stands_for_all_of_its_addresses() {
        let listen = ListenAddress::try_from("localhost:8080".to_owned()).unwrap();
        let addresses = listen.resolve().unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        assert_eq!(listen.reachable(), "localhost:8080");
        let everywhere = ListenAddress::try_from("[::]:80".to_owned()).unwrap();
        assert_eq!(everywhere.reachable(), "[::1]:80");
    }
}
