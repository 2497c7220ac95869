//! Whose request it is, when trusted proxies stand between.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Peers whose word about their clients is believed.
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The peer, or where that is a trusted proxy, the right-most address of `X-Forwarded-For` that is not one (`Forwarded`, RFC 7239,
/// where there is no `X-Forwarded-For`). Each proxy adds to the right, so what stands left of an untrusted address is hearsay. At
/// something that is no address the walk ends with the last that was one. A proxy that writes only one of the two fields must drop
/// the other.
pub fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.contains(client) {
        return client;
    }
    let (field, of): (_, fn(&str) -> Option<IpAddr>) = if headers.contains_key(X_FORWARDED_FOR) {
        (X_FORWARDED_FOR, address)
    } else {
        (FORWARDED.as_str(), forwarded_for)
    };
    let lines: Vec<&str> = headers.get_all(field).iter().filter_map(|line| line.to_str().ok()).collect();
    for element in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(next) = of(element) else { break };
        client = next;
        if !trusted.contains(client) {
            break;
        }
    }
    client
}

/// `for=192.0.2.43`, `for="[2001:db8::1]:4711"` among other parameters.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| address(value)).flatten()
    })
}

/// An address, with or without port, brackets and quotes.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    parsed.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn client(peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        client_of(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        assert_eq!(client("192.0.2.1", &[("x-forwarded-for", "1.2.3.4")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "1.2.3.4")]), "1.2.3.4");
        assert_eq!(client("::ffff:10.0.0.1", &[("x-forwarded-for", "1.2.3.4")]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_right_most_untrusted_address_counts() {
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4:99, 10.0.0.2")]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "10.0.0.3")]), "6.6.6.6");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, junk, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.0.0.9")]), "10.0.0.9");
    }

    #[test]
    fn forwarded_is_read_where_it_is_alone() {
        assert_eq!(
            client("10.0.0.1", &[("forwarded", r#"for=6.6.6.6, For="[2001:db8::1]:4711";proto=https"#)]),
            "2001:db8::1"
        );
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.2.3.4")]), "1.2.3.4");
    }
}
