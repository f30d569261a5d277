//! Finds the address that a request comes from. Behind a proxy the connection is the proxy's, which
//! names the client in `X-Forwarded-For`. Any client can send that header, so only configured
//! proxies are trusted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::text_list::text_list;
use crate::http::server::ClientConnection;

/// The prefix of `::ffff:0:0/96`.
const IPV4_MAPPED_PREFIX: u8 = 96;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The section `proxy` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// The trusted proxies: addresses, and networks in CIDR notation.
    #[serde(deserialize_with = "networks")]
    pub trusted: Vec<IpNet>,
}

impl ProxyConfig {
    /// Returns the address that a request with these headers comes from.
    pub(super) fn client(&self, connection: &ClientConnection, headers: &HeaderMap) -> Arc<str> {
        let peer = &connection.peer;
        let client = self.behind(peer.address, headers);
        let is_peer = client == peer.address;
        if is_peer { Arc::clone(&peer.text) } else { client.to_string().into() }
    }

    /// Returns the nearest address that is not a trusted proxy's. Each proxy appends the address of
    /// its peer on the right; anything to the left of the returned address may be forged by the
    /// client.
    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        if !self.trusts(nearest) {
            return nearest;
        }
        let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
        for hop in hops {
            let Some(address) = address(hop.trim()) else { break };
            nearest = address;
            if !self.trusts(nearest) {
                break;
            }
        }
        nearest
    }

    /// Returns whether the client sent a request with these headers over TLS. `is_own` is true if
    /// the connection to this service is TLS.
    pub(super) fn is_https(
        &self,
        connection: &ClientConnection,
        headers: &HeaderMap,
        is_own: bool,
    ) -> bool {
        if !self.trusts(connection.peer.address) {
            return is_own;
        }
        // The last value is that of the nearest proxy.
        let said = headers.get_all(X_FORWARDED_PROTO).iter().next_back();
        let said = said.and_then(|said| said.to_str().ok()?.rsplit(',').next());
        said.map_or(is_own, |said| said.trim().eq_ignore_ascii_case("https"))
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// Parses an address. Some proxies add the port, and some put IPv6 addresses into brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_matches(['[', ']']).parse();
    let address = bare.or_else(|_| hop.parse().map(|hop: SocketAddr| hop.ip()));
    address.ok().map(|address| address.to_canonical())
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: String| {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(canonical).map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is neither an address nor a network: write it like 10.0.0.7 or 10.0.0.0/8"
            ))
        })
    };
    text_list(deserializer)?.into_iter().map(network).collect()
}

/// Returns a network of IPv4-mapped addresses as IPv4, because peers are compared as IPv4 also on
/// an IPv6 socket.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(IPV4_MAPPED_PREFIX);
    let address = mapped.addr().to_ipv4_mapped();
    let network =
        address.zip(prefix).and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    network.map_or(IpNet::V6(mapped), IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let trusted = serde_json::json!({ "trusted": trusted });
        let proxies: ProxyConfig = serde_json::from_value(trusted).unwrap();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().unwrap());
        }
        proxies.client(&ClientConnection::of_peer(peer), &headers).to_string()
    }

    #[test]
    fn without_a_trusted_proxy_the_header_is_ignored() {
        assert_eq!(client(&[], "10.0.0.1", &["198.51.100.7"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn the_client_has_the_nearest_address_that_is_no_proxys() {
        let proxies = ["10.0.0.0/8", "2001:db8::1"];
        let behind = |peer: &str, forwarded: &[&str]| client(&proxies, peer, forwarded);
        assert_eq!(behind("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(behind("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(behind("10.0.0.1", &["203.0.113.9", "198.51.100.7,10.0.0.2"]), "198.51.100.7");
        assert_eq!(behind("2001:db8::1", &["2001:db8::99"]), "2001:db8::99");
        assert_eq!(client(&["::ffff:10.0.0.0/104"], "10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(client(&["::ffff:10.0.0.1"], "10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(behind("::ffff:10.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
        // If all of them are proxies, the farthest one counts.
        assert_eq!(behind("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(behind("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_scheme_is_the_connections_unless_a_trusted_proxy_names_another() {
        let is_https = |peer: &str, said: Option<&str>, is_own: bool| {
            let trusted = serde_json::json!({ "trusted": ["10.0.0.0/8"] });
            let proxies: ProxyConfig = serde_json::from_value(trusted).unwrap();
            let mut headers = HeaderMap::new();
            headers.extend(said.map(|said| (X_FORWARDED_PROTO, said.parse().unwrap())));
            proxies.is_https(&ClientConnection::of_peer(peer), &headers, is_own)
        };
        assert!(is_https("10.0.0.1", Some("https"), false));
        assert!(is_https("10.0.0.1", Some("http, HTTPS"), false));
        assert!(!is_https("10.0.0.1", Some("http"), true));
        assert!(is_https("10.0.0.1", None, true));
        assert!(!is_https("192.0.2.1", Some("https"), false));
        assert!(is_https("192.0.2.1", Some("http"), true));
    }

    #[test]
    fn ports_are_left_out_and_what_is_no_address_ends_the_chain() {
        let behind = |forwarded: &str| client(&["10.0.0.0/8"], "10.0.0.1", &[forwarded]);
        assert_eq!(behind("198.51.100.7:4711"), "198.51.100.7");
        assert_eq!(behind("[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(behind("[2001:db8::7]"), "2001:db8::7");
        assert_eq!(behind("198.51.100.7, unknown, 10.0.0.2"), "10.0.0.2");
        assert_eq!(behind("\"><script>"), "10.0.0.1");
        assert_eq!(behind(""), "10.0.0.1");
    }
}
