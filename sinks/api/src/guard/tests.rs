//! The table of addresses, and what `allow_networks` opens.

use super::*;

fn judge(allowed: &[&str], address: &str) -> Result<(), AddressKind> {
    let guard = Guard::new(allowed.iter().map(|network| network.parse().unwrap()).collect());
    guard.judge(address.parse().unwrap()).map_err(|refused| refused.kind)
}

/// Each range at its first and last address, and the neighbours that are public again.
const REFUSED: &[(AddressKind, &[&str])] = &[
    (AddressKind::Unspecified, &["0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::ffff:0.0.0.0"]),
    (AddressKind::Loopback, &["127.0.0.1", "127.0.0.0", "127.255.255.255", "::1", "::ffff:127.0.0.1", "::127.0.0.1"]),
    (
        AddressKind::Private,
        &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1", "192.168.255.255"],
    ),
    (
        AddressKind::Private,
        &["fc00::", "fd00:ec2::254", "fdff:ffff::1", "fec0::1", "feff::1", "::ffff:10.0.0.1", "::192.168.1.1"],
    ),
    (
        AddressKind::LinkLocal,
        &["169.254.0.0", "169.254.169.254", "169.254.0.23", "fe80::", "fe80::1", "febf::1", "::ffff:169.254.169.254"],
    ),
    (AddressKind::SharedNat, &["100.64.0.0", "100.100.100.200", "100.127.255.255", "::ffff:100.64.0.1"]),
    (
        AddressKind::Documentation,
        &["192.0.2.1", "198.51.100.255", "203.0.113.0", "233.252.0.1", "2001:db8::1", "3fff::1", "3fff:fff::1"],
    ),
    (AddressKind::Benchmarking, &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
    (
        AddressKind::Protocol,
        &["192.0.0.1", "192.0.0.170", "192.88.99.1", "2001:1::1", "2001:10::1", "2001:20::1", "2001:1ff::1", "5f00::1"],
    ),
    (AddressKind::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "::ffff:224.0.0.1"]),
    (
        AddressKind::Reserved,
        &["240.0.0.0", "255.255.255.254", "255.255.255.255", "100::1", "200::1", "4000::1", "e000::1", "::1:0:0:1"],
    ),
    (AddressKind::CloudPlatform, &["168.63.129.16", "64:ff9b::a83f:8110"]),
    (AddressKind::Translation, &["64:ff9b:1::1", "64:ff9b:1:ffff::808:808", "64:ff9b:1::808:808"]),
    // NAT64, 6to4 and Teredo by what they carry; Teredo's client has its bits turned over, its server has not.
    (AddressKind::Private, &["64:ff9b::10.0.0.1", "64:ff9b::192.168.0.1", "2002:a00:1::1", "2002:c0a8:101::1"]),
    (
        AddressKind::Loopback,
        &["64:ff9b::127.0.0.1", "2002:7f00:1::", "2001:0:808:808::80ff:fffe", "2001:0:7f00:1::f7f7:f7f7"],
    ),
    (AddressKind::LinkLocal, &["64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "2001:0:808:808::5601:5601"]),
];

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "203.0.112.255",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00::1",
    "2001:db7::1",
    "2001:db9::1",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2001:0:808:808::f7f7:f7f7",
];

#[test]
fn what_is_not_public_is_refused_and_said_what_it_is() {
    for (kind, addresses) in REFUSED {
        for address in *addresses {
            assert_eq!(judge(&[], address), Err(*kind), "{address}");
        }
    }
    let count: usize = REFUSED.iter().map(|(_, addresses)| addresses.len()).sum();
    assert!(count + PUBLIC.len() >= 60, "{count}");
}

#[test]
fn public_addresses_pass() {
    for address in PUBLIC {
        assert_eq!(judge(&[], address), Ok(()), "{address}");
    }
}

#[test]
fn an_allowed_network_opens_itself_and_nothing_beside_it() {
    assert_eq!(judge(&["10.1.0.0/16"], "10.1.255.255"), Ok(()));
    assert_eq!(judge(&["10.1.0.0/16"], "10.2.0.0"), Err(AddressKind::Private));
    assert_eq!(judge(&["10.1.0.0/16", "fd00::/8"], "fd12::1"), Ok(()));
    assert_eq!(judge(&["fd00::/8"], "10.1.0.1"), Err(AddressKind::Private));
    assert_eq!(judge(&["127.0.0.0/8"], "::1"), Err(AddressKind::Loopback));
    assert_eq!(judge(&["0.0.0.0/0"], "::1"), Err(AddressKind::Loopback));
    assert_eq!(judge(&["::/0"], "::1"), Ok(()));
}

#[test]
fn a_form_that_carries_an_allowed_address_is_allowed() {
    for address in ["::ffff:10.1.0.1", "64:ff9b::10.1.0.1", "2002:a01:1::1", "::10.1.0.1"] {
        assert_eq!(judge(&["10.1.0.0/16"], address), Ok(()), "{address}");
        assert_eq!(judge(&["10.2.0.0/16"], address), Err(AddressKind::Private), "{address}");
    }
    assert_eq!(judge(&["64:ff9b:1::/48"], "64:ff9b:1::a00:1"), Ok(()));
    assert_eq!(judge(&["::ffff:0:0/96"], "::ffff:10.0.0.1"), Ok(()));
    // Teredo names two; one of them is not enough.
    assert_eq!(judge(&["10.0.0.0/8"], "2001:0:a00:1::80ff:fffe"), Err(AddressKind::Loopback));
}

#[test]
fn of_several_addresses_the_allowed_ones_are_used() {
    let guard = Guard::default();
    let addresses = |list: &[&str]| list.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect::<Vec<_>>();
    let selected = guard.select(addresses(&["10.0.0.1", "8.8.8.8", "::1", "1.1.1.1"]));
    assert_eq!(selected, Ok(addresses(&["8.8.8.8", "1.1.1.1"])));
    let refused = guard.select(addresses(&["10.0.0.1", "::1"])).unwrap_err();
    assert_eq!(refused.to_string(), "10.0.0.1 is a private address");
    assert_eq!(guard.select(addresses(&[])), Err(NoneAllowed::Empty));
}
