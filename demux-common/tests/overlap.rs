//! What may have one port, beside the table derived once more, and the flags as the kernel was seen to
//! judge them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use demux_common::{
    address::Address,
    binding::Binding,
    overlap::{Endpoint, may_share, overlaps},
};

fn endpoint(address: IpAddr, v6_only: bool, ifindex: u32) -> Endpoint {
    Endpoint {
        address: match address {
            IpAddr::V4(address) => Address::from_v4(address.octets()),
            IpAddr::V6(address) => Address::from_v6(address.octets()),
        },
        ifindex,
        v6_only,
    }
}

/// The table once more, from what each socket takes: the packets of which family, and to which
/// address (`None` for all).
fn takes((address, v6_only): (IpAddr, bool)) -> Vec<(u8, Option<IpAddr>)> {
    match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![(4, None)],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if v6_only => vec![(6, None)],
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![(4, None), (6, None)],
        exact => vec![(if exact.is_ipv4() { 4 } else { 6 }, Some(exact))],
    }
}

fn naive(a: (IpAddr, bool), b: (IpAddr, bool)) -> bool {
    takes(a).iter().any(|(family, address)| {
        takes(b).iter().any(|(other, other_address)| {
            family == other
                && match (address, other_address) {
                    (Some(address), Some(other)) => address == other,
                    _ => true,
                }
        })
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec![
        "0.0.0.0",
        "127.0.0.1",
        "127.0.0.2",
        "10.0.0.2",
        "::",
        "::1",
        "::2",
        "fd00::2",
        "::127.0.0.1",
        "0:0:0:1:0:ffff:7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.2",
        "::ffff:0.0.0.0",
    ])
    .prop_map(|text| text.parse().expect("an address"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn addresses_overlap_where_one_packet_could_be_for_both(
        a in (address(), any::<bool>()),
        b in (address(), any::<bool>()),
        devices in (0u32..3, 0u32..3),
    ) {
        let first = endpoint(a.0, a.1, devices.0);
        let second = endpoint(b.0, b.1, devices.1);
        prop_assert_eq!(overlaps(&first, &second), overlaps(&second, &first));
        let apart = devices.0 != 0 && devices.1 != 0 && devices.0 != devices.1;
        prop_assert_eq!(overlaps(&first, &second), !apart && naive(a, b));
    }
}

/// Rows are the first, columns the second: none, address, port, both.
#[test]
fn flags_are_those_that_the_kernel_was_seen_to_take() {
    let matrix = |listens, same_user| {
        [0, 1, 2, 3].map(|first| {
            [0, 1, 2, 3].map(|second| u8::from(may_share(first, second, listens, same_user)))
        })
    };
    assert_eq!(
        matrix(false, true),
        [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    );
    assert_eq!(
        matrix(true, true),
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    );
    assert_eq!(matrix(true, false), [[0; 4]; 4]);
    assert!(may_share(1, 1, false, false) && !may_share(2, 2, false, false));
    assert!(!may_share(
        Binding::UNTRACKED | Binding::V6_ONLY,
        Binding::UNTRACKED | Binding::V6_ONLY,
        false,
        true
    ));
}
