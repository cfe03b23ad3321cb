//! Network namespaces on the running kernel.

mod common;

use std::thread;

use common::{
    netns::Netns,
    user::{NOBODY, as_user},
};
use demux_user::{
    interface,
    netns::{self, NetworkNamespace},
};

#[test]
fn namespaces_are_entered_by_name_and_by_path() {
    let (named, nameless) = (Netns::named(), Netns::new());
    named.veth("v0", &nameless, "v1");
    let here = NetworkNamespace::current().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let there = NetworkNamespace::enter(&named.selector()).unwrap();
            assert_ne!(
                (there.cookie(), there.inode()),
                (here.cookie(), here.inode())
            );
            assert_eq!(there.name(), Some(named.selector()));
            assert!(interface::by_name("v0").is_ok());
            let other = NetworkNamespace::enter(&nameless.selector()).unwrap();
            assert_eq!(other.name(), None);
            assert!(interface::by_name("v1").is_ok());
        });
    });
    assert_eq!(NetworkNamespace::current().unwrap().cookie(), here.cookie());
    as_user(NOBODY, || {
        let error = NetworkNamespace::enter(&named.selector()).unwrap_err();
        assert_eq!(
            (error.code(), error.exit_status()),
            ("permission_denied", 4)
        );
        assert!(
            error.to_string().ends_with(": CAP_SYS_ADMIN missing"),
            "{error}"
        );
    });
}

#[test]
fn a_namespace_counts_as_alive_until_nothing_holds_it() {
    let cookie = |network: &Netns| network.enter(|| NetworkNamespace::current().unwrap().cookie());
    let (held, named) = (Netns::new(), Netns::named());
    let (held_cookie, named_cookie) = (cookie(&held), cookie(&named));
    let alive = netns::all_cookies().unwrap();
    assert!(alive.contains(&held_cookie) && alive.contains(&named_cookie));
    drop(held);
    let alive = netns::all_cookies().unwrap();
    assert!(!alive.contains(&held_cookie) && alive.contains(&named_cookie));
}
