//! Egress, on the hook that this kernel has.

use demux_user::{
    attach::{
        EgressChoice, Hook, clsact,
        egress::{self, Other},
    },
    interface,
    kernel::Version,
};

use crate::{
    common::{
        bpffs::TemporaryBpfFs,
        egress::{add_clsact_here, add_filter_here},
    },
    live::Live,
    table::check::Subject as _,
};

#[test]
fn egress_comes_and_goes_on_the_hook_that_this_kernel_has() {
    let has_tcx = Version::running().unwrap() >= Version { major: 6, minor: 6 };
    let usual = if has_tcx { Hook::Tcx } else { Hook::Clsact };
    let bpffs = TemporaryBpfFs::new();
    Live::run(|live| {
        let paths = live.instance().paths();
        let device = interface::by_index(live.ifindex()).unwrap().unwrap();
        let names = || -> Vec<(Hook, String)> {
            let name = |program: Other| (program.hook, program.name);
            let programs = egress::programs(device.index).unwrap();
            programs.into_iter().map(name).collect()
        };
        let ours = |hook| (hook, "demux_egress".to_owned());
        let comes_and_goes = |choice, hook, others: &[(Hook, String)]| {
            assert_eq!(names(), others);
            let attached = egress::attach(paths, &device, choice);
            assert_eq!((attached.hook, attached.note), (Some(hook), None));
            let found = egress::find(paths, device.index).unwrap().unwrap();
            assert!(found.is_attached && found.program_id.is_some(), "{found:?}");
            assert_eq!(names(), [&[ours(hook)], others].concat());
            egress::detach(paths, device.index).unwrap();
            assert_eq!(names(), others);
        };
        for (choice, hook) in [
            (EgressChoice::Auto, usual),
            (EgressChoice::Only(Hook::Clsact), Hook::Clsact),
        ] {
            assert_eq!(egress::foretell(&device, choice).unwrap().0, Some(hook));
            comes_and_goes(choice, hook, &[]);
            assert_eq!(clsact::qdisc(device.index).unwrap(), None);
        }
        if !has_tcx {
            let attached = egress::attach(paths, &device, EgressChoice::Only(Hook::Tcx));
            assert_eq!(attached.hook, None);
            let note = attached.note.unwrap();
            assert!(note.contains("no tcx"), "{note}");
            assert_eq!(egress::find(paths, device.index).unwrap(), None);
        }

        add_clsact_here(&device.name);
        add_filter_here(bpffs.path(), &device.name, "theirs", 7);
        let theirs = [(Hook::Clsact, "theirs".to_owned())];
        comes_and_goes(EgressChoice::Auto, usual, &theirs);
        comes_and_goes(EgressChoice::Only(Hook::Clsact), Hook::Clsact, &theirs);
        assert_eq!(
            clsact::qdisc(device.index).unwrap().as_deref(),
            Some("clsact")
        );
    });
}
