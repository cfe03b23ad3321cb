//! Egress: where it is attached, what else is there, and what is left behind.

mod common;

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    process::{Command, Stdio},
    thread,
};

use common::{
    bpf::{attach_tcx, attach_xdp, egress_program, xdp_program},
    demux::Demux,
    egress::{add_clsact, add_filter, on_egress, qdisc},
    in_both_modes,
    netns::{Netns, Queues},
    privileges::PublicBinary,
    snapshot::Snapshot,
    wait::wait_for,
};
use demux_user::{
    attach::{Hook, egress},
    interface,
};

/// Both ways to attach.
const HOOKS: [Hook; 2] = [Hook::Tcx, Hook::Clsact];

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues::ONE);
    netns
}

/// The arguments that load an interface with a small table and this hook.
fn load(interface: &str, hook: Hook) -> String {
    let hook = hook.name();
    format!("load {interface} --max-connections 64 --egress {hook}")
}

fn ours(hook: Hook) -> [String; 1] {
    [format!("{} demux_egress", hook.name())]
}

const NOTHING: [String; 0] = [];

fn no_qdisc_of_ours_is_left(netns: &Netns, interface: &str) {
    assert_eq!(on_egress(netns, interface), NOTHING);
    assert_eq!(qdisc(netns, interface), None);
}

fn egress_is_attached_and_detached_with_ingress(mode: &str) {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    for hook in HOOKS {
        let row = demux.item(&format!("{} --mode {mode}", load("v0", hook)));
        assert_eq!(
            (&row["egress"], &row["mode"]),
            (&hook.name().into(), &mode.into())
        );
        assert_eq!(row["egress_note"], serde_json::Value::Null);
        assert_eq!(on_egress(&netns, "v0"), ours(hook));

        let status = demux.interface("v0").unwrap();
        let index = netns.index("v0");
        let programs = netns.enter(|| egress::programs(index).unwrap());
        assert_eq!(status["egress"], hook.name());
        assert_eq!(status["egress_attached"], true);
        assert_eq!(status["egress_program_id"], programs[0].program_id.unwrap());
        let text = demux.ok("status").stdout;
        assert!(text.contains(hook.name()), "{text}");
        assert!(!text.contains("warning"), "{text}");

        demux.ok("unload v0");
        no_qdisc_of_ours_is_left(&netns, "v0");
        demux.ok(&format!("load v0 v1 --egress {}", hook.name()));
        demux.ok("unload --all");
        no_qdisc_of_ours_is_left(&netns, "v0");
        no_qdisc_of_ours_is_left(&netns, "v1");
    }
}

in_both_modes! { egress_is_attached_and_detached_with_ingress }

#[test]
fn the_kernel_of_today_gets_a_link() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    assert_eq!(on_egress(&netns, "v0"), ours(Hook::Tcx));
    assert!(
        demux
            .directory()
            .join(format!("links/egress_{}", netns.index("v0")))
            .exists()
    );
}

#[test]
fn ingress_never_works_without_egress() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let index = netns.index("v0");
    let has_ingress = || interface::by_index(index).unwrap().unwrap().xdp.is_some();
    let has_egress = || !egress::programs(index).unwrap().is_empty();
    for _ in 0..5 {
        // What is looked at first is what comes last, so that no change in between can deceive.
        for (line, is_first) in [("load v0 --max-connections 64", true), ("unload v0", false)] {
            thread::scope(|scope| {
                let command = scope.spawn(|| demux.ok(line));
                netns.enter(|| {
                    while !command.is_finished() {
                        let (ingress, egress) = if is_first {
                            let ingress = has_ingress();
                            (ingress, has_egress())
                        } else {
                            let egress = has_egress();
                            (has_ingress(), egress)
                        };
                        assert!(egress || !ingress, "{line}");
                    }
                });
            });
        }
    }
}

#[test]
fn other_programs_on_the_hook_are_left_alone() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let programs = [egress_program("first"), egress_program("second")];
    let index = netns.index("v0");
    let _links = netns.enter(|| {
        programs
            .each_ref()
            .map(|program| attach_tcx(program.as_fd(), index))
    });
    add_clsact(&netns, "v0");
    add_filter(&netns, demux.bpffs(), "v0", "third", 7);
    let others = ["tcx first", "tcx second", "clsact third"];
    assert_eq!(on_egress(&netns, "v0"), others);
    let text = demux.run("load v0 --check").stdout;
    for word in ["egress       tcx", "first (id ", "third (id ", "pref 7"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }

    // In front of the others, because what they return ends the chain.
    demux.ok(&load("v0", Hook::Tcx));
    assert_eq!(
        on_egress(&netns, "v0"),
        ["tcx demux_egress", others[0], others[1], others[2]]
    );
    demux.ok("unload v0");
    assert_eq!(on_egress(&netns, "v0"), others);

    demux.ok(&load("v0", Hook::Clsact));
    assert_eq!(
        on_egress(&netns, "v0"),
        [others[0], others[1], "clsact demux_egress", others[2]]
    );
    demux.ok("unload --all");
    assert_eq!(on_egress(&netns, "v0"), others);
    assert_eq!(qdisc(&netns, "v0").as_deref(), Some("clsact"));
}

#[test]
fn a_qdisc_of_ours_that_somebody_else_has_come_to_use_is_left_to_them() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok(&load("v0", Hook::Clsact));
    add_filter(&netns, demux.bpffs(), "v0", "theirs", 1);
    demux.ok("unload v0");
    assert_eq!(on_egress(&netns, "v0"), ["clsact theirs"]);
    // The priority before theirs is the one that means all filters, and is not used.
    demux.ok("load v0 --egress clsact");
    assert_eq!(
        on_egress(&netns, "v0"),
        ["clsact theirs", "clsact demux_egress"]
    );
    demux.ok("unload --all");
    assert_eq!(on_egress(&netns, "v0"), ["clsact theirs"]);
}

#[test]
fn without_egress_ingress_is_loaded_and_says_what_is_missing() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let index = netns.index("v0");
    let programs: Vec<_> = (0..63)
        .map(|number| egress_program(&format!("p{number}")))
        .collect();
    let links: Vec<_> = netns.enter(|| {
        let attach = |program: &OwnedFd| attach_tcx(program.as_fd(), index);
        programs.iter().map(attach).collect()
    });
    // An ingress qdisc takes the place of the other.
    let tc = |line: &str| netns.enter(|| tc(line));
    tc("qdisc add dev v0 ingress");
    for (hook, reason) in [(Hook::Tcx, "63 programs"), (Hook::Clsact, "qdisc ingress")] {
        let check = demux
            .run(&format!("-j {} --check", load("v0", hook)))
            .json()["items"][0]
            .clone();
        assert_eq!(
            (&check["egress"], &check["ok"]),
            (&"none".into(), &true.into())
        );
        assert!(
            check["egress_reason"].as_str().unwrap().contains(reason),
            "{check}"
        );

        let run = demux.ok(&load("v0", hook));
        for words in [
            "attached in native mode",
            "warning: v0: egress",
            reason,
            "not counted",
            "states",
        ] {
            assert!(run.stderr.contains(words), "{words} is missing: {run}");
        }
        assert!(netns.interface("v0").xdp.is_some());
        let status = demux.interface("v0").unwrap();
        assert_eq!(
            (&status["egress"], &status["attached"]),
            (&"none".into(), &true.into())
        );
        assert_eq!(status["egress_attached"], false);
        assert!(
            status["egress_note"]
                .as_str()
                .unwrap()
                .contains("not counted"),
            "{status}"
        );
        // Loading once more changes nothing and says so once more.
        let again = demux.item("load v0");
        assert_eq!(
            (&again["already"], &again["egress"]),
            (&true.into(), &"none".into())
        );
        assert!(
            again["egress_note"].as_str().unwrap().contains("unload v0"),
            "{again}"
        );
        demux.ok("unload --all");
        assert_eq!(on_egress(&netns, "v0").len(), 63);
        assert_eq!(qdisc(&netns, "v0").as_deref(), Some("ingress"));
    }
    drop(links);
}

#[test]
fn egress_can_be_left_out_and_is_then_a_difference() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let run = demux.ok("load v0 --max-connections 64 --egress none");
    assert!(
        run.stderr.contains("egress is not attached (asked for)"),
        "{run}"
    );
    assert_eq!(on_egress(&netns, "v0"), NOTHING);
    demux.ok("load v0 --egress none");
    demux.ok("load v0 --egress auto");
    demux
        .refused("load v0 --egress tcx", 5, "options_differ")
        .says(&["egress of v0 is none, not tcx"]);
}

#[test]
fn an_instance_from_before_egress_goes_on_without_it() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v1 --max-connections 64 --egress none");
    fs::remove_file(demux.directory().join("progs/demux_egress")).unwrap();
    let run = demux.ok("load v0 v1");
    for words in [
        "v0: egress is not attached (the demux that made this instance had no such program)",
        "v1: egress is not attached: outgoing packets are not counted",
    ] {
        assert!(run.stderr.contains(words), "{words} is missing: {run}");
    }
    demux.ok("unload v0");
    demux.ok("unload --all");
}

#[test]
fn where_one_interface_refuses_egress_is_taken_off_all() {
    let netns = with_veth();
    let crowded = Queues { rx: 2, tx: 2 };
    netns.veth_with_queues("w0", Queues::ONE, &netns, "w1", crowded);
    netns.veth_with_queues("x0", Queues::ONE, &netns, "x1", Queues::ONE);
    let demux = Demux::new(&netns);
    let refused = || {
        for hook in HOOKS {
            let line = format!("load v0 w0 --mode native --egress {}", hook.name());
            demux.refused(&line, 6, "unsupported");
            no_qdisc_of_ours_is_left(&netns, "v0");
            no_qdisc_of_ours_is_left(&netns, "w0");
        }
    };
    refused();
    demux.ok("load x0 --max-connections 64");
    refused();
    assert_eq!(on_egress(&netns, "x0"), ours(Hook::Tcx));
}

#[test]
fn a_load_that_is_killed_before_ingress_leaves_no_egress_behind() {
    for hook in HOOKS {
        let (netns, elsewhere) = (with_veth(), Netns::new());
        let demux = Demux::new(&netns);
        let mut caught = 0;
        for number in 0..12 {
            kill_between(&demux, &load("v0", hook), "v0");
            if netns.interface("v0").xdp.is_none() && !on_egress(&netns, "v0").is_empty() {
                caught += 1;
            }
            match number % 3 {
                0 => demux.ok("clean"),
                // Also from where the interface cannot be seen.
                1 => demux.in_netns(&elsewhere).ok("clean"),
                _ => demux.ok("load v0 --max-connections 64"),
            };
            if demux.run("status").status == 0 {
                demux.ok("unload --all");
            }
            assert!(Snapshot::instances(demux.bpffs()).is_empty());
            no_qdisc_of_ours_is_left(&netns, "v0");
        }
        assert!(caught > 0, "no load was killed between its two halves");
    }
}

#[test]
fn a_load_into_an_instance_that_is_killed_before_ingress_can_be_repeated_and_undone() {
    for hook in HOOKS {
        let netns = with_veth();
        let demux = Demux::new(&netns);
        demux.ok("load v1 --max-connections 64");
        let line = format!("load v0 --egress {}", hook.name());
        for number in 0..6 {
            kill_between(&demux, &line, "v0");
            match number % 3 {
                0 => {
                    demux.ok(&line);
                    assert_eq!(demux.interface("v0").unwrap()["attached"], true);
                    assert_eq!(on_egress(&netns, "v0"), ours(hook));
                    demux.ok("unload v0");
                }
                1 => {
                    // The next command puts right what was half done, and then finds nothing to take off.
                    let run = demux.run("unload v0");
                    assert!(matches!(run.status, 0 | 3), "{run}");
                }
                _ => {
                    demux.ok("unload --all");
                    demux.ok("load v1 --max-connections 64");
                }
            }
            no_qdisc_of_ours_is_left(&netns, "v0");
        }
        assert_eq!(on_egress(&netns, "v1"), ours(Hook::Tcx));
    }
}

/// Runs a command and kills it as soon as egress is attached.
fn kill_between(demux: &Demux<'_>, line: &str, interface: &str) {
    let netns = demux.netns();
    let index = netns.index(interface);
    netns.enter(|| {
        let mut command = demux.command(line);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        while egress::programs(index).unwrap().is_empty() && child.try_wait().unwrap().is_none() {}
        let _ = child.kill();
        child.wait().unwrap();
    });
}

#[test]
fn removal_without_demux_is_what_status_says() {
    for hook in HOOKS {
        let netns = with_veth();
        let demux = Demux::new(&netns);
        demux.ok(&load("v0", hook));
        let text = demux.ok("status").stdout;
        let removal = text
            .lines()
            .find_map(|line| line.strip_prefix("removal"))
            .unwrap();
        let (_, by_hand) = removal.split_once("without demux: ").unwrap();
        for line in by_hand.split("; ") {
            match line.split_once(' ').unwrap() {
                ("rm", directory) => {
                    fs::remove_dir_all(directory.strip_prefix("-r ").unwrap()).unwrap();
                }
                ("tc", rest) => netns.enter(|| tc(rest)),
                _ => panic!("{line}"),
            }
        }
        wait_for("the programs to be detached", || {
            netns.interface("v0").xdp.is_none() && on_egress(&netns, "v0").is_empty()
        });
        demux.ok(&load("v0", hook));
        demux.ok("unload --all");
        assert_eq!(on_egress(&netns, "v0"), NOTHING);
    }
}

fn tc(line: &str) {
    let output = Command::new("tc")
        .args(line.split(' '))
        .output()
        .expect("the tc command");
    assert!(output.status.success(), "tc {line}: {output:?}");
}

#[test]
fn a_filter_whose_pins_were_removed_is_replaced_by_the_next_load() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok(&load("v0", Hook::Clsact));
    fs::remove_dir_all(demux.directory()).unwrap();
    wait_for("ingress to be detached", || {
        netns.interface("v0").xdp.is_none()
    });
    assert_eq!(on_egress(&netns, "v0"), ours(Hook::Clsact));
    demux.ok(&load("v0", Hook::Clsact));
    assert_eq!(on_egress(&netns, "v0"), ours(Hook::Clsact));
    demux.ok("unload --all");
    no_qdisc_of_ours_is_left(&netns, "v0");
}

#[test]
fn who_may_only_read_sees_where_egress_is_attached() {
    const NOBODY: u32 = 65_534;
    let public = PublicBinary::new();
    for hook in HOOKS {
        let netns = with_veth();
        let demux = Demux::new(&netns);
        demux.ok(&load("v0", hook));
        // The group of the reader, where the modes allow it.
        let directory = demux.directory();
        let mut shared = vec![demux.bpffs().to_owned(), demux.bpffs().join("demux")];
        shared.push(directory.clone());
        let entries = fs::read_dir(&directory).unwrap();
        shared.extend(entries.map(|entry| entry.unwrap().path()));
        for path in shared {
            std::os::unix::fs::chown(path, None, Some(NOBODY)).unwrap();
        }
        let run = demux.run_with("status -j", |command| public.run_as(command, NOBODY));
        let interface = &run.json()["items"][0]["interfaces"][0];
        assert_eq!(interface["egress"], hook.name(), "{run}");
        assert_eq!(interface["egress_attached"], true, "{run}");
    }
}

#[test]
fn egress_that_somebody_took_off_is_missed() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok(&load("v0", Hook::Clsact));
    netns.enter(|| tc("qdisc del dev v0 clsact"));
    let status = demux.interface("v0").unwrap();
    assert_eq!(
        (&status["egress"], &status["egress_attached"]),
        (&"clsact".into(), &false.into())
    );
    let text = demux.ok("status").stdout;
    for words in [
        "clsact, lost",
        "warning: egress of v0 is not attached any more",
        "demux unload v0",
    ] {
        assert!(text.contains(words), "{words} is missing: {text}");
    }
    demux.ok("unload v0");
    demux.ok("load v0 --egress clsact");
    assert_eq!(demux.interface("v0").unwrap()["egress_attached"], true);
}

#[test]
fn interfaces_that_change_their_name_or_vanish_take_egress_along() {
    for hook in HOOKS {
        let netns = with_veth();
        netns.veth("w0", &netns, "w1");
        let demux = Demux::new(&netns);
        demux.ok(&load("v0 w0", hook));
        netns.set_down("v0");
        netns.rename("v0", "uplink");
        assert_eq!(demux.interface("uplink").unwrap()["egress_attached"], true);
        demux.ok("unload uplink");
        no_qdisc_of_ours_is_left(&netns, "uplink");

        let index = netns.index("w0");
        netns.delete_link("w0");
        let gone = demux.interface(&format!("#{index}")).unwrap();
        assert_eq!(gone["egress_attached"], false, "{gone}");
        netns.veth("w0", &netns, "w1");
        demux.ok(&format!("load w0 --egress {}", hook.name()));
        assert_eq!(on_egress(&netns, "w0"), ours(hook));
        let status = demux.item("status");
        assert_eq!(
            status["interfaces"].as_array().unwrap().len(),
            1,
            "{status}"
        );
        let links = fs::read_dir(demux.directory().join("links"))
            .unwrap()
            .count();
        assert_eq!(links, 2);
    }
}

#[test]
fn an_interface_that_was_moved_away_and_back_says_whether_it_still_has_egress() {
    for hook in HOOKS {
        let (netns, elsewhere) = (with_veth(), Netns::new());
        let demux = Demux::new(&netns);
        demux.ok(&load("v0", hook));
        let index = netns.index("v0");
        netns.move_to("v0", &elsewhere);
        let gone = demux.interface(&format!("#{index}")).unwrap();
        assert_eq!(gone["egress_attached"], false, "{gone}");

        // It comes back under the same index, with its links and without its filters.
        elsewhere.move_to("v0", &netns);
        let is_attached = !on_egress(&netns, "v0").is_empty();
        let row = demux.item("load v0");
        assert_eq!(row["already"], true);
        assert_eq!(row["egress_note"].is_null(), is_attached, "{row}");
        let status = demux.interface("v0").unwrap();
        assert_eq!(status["egress_attached"], is_attached, "{status}");
        demux.ok("unload v0");
        demux.ok(&format!("load v0 --egress {}", hook.name()));
        assert_eq!(on_egress(&netns, "v0"), ours(hook));
        demux.ok("unload --all");
        no_qdisc_of_ours_is_left(&netns, "v0");
    }
}

#[test]
fn a_busy_ingress_leaves_egress_free() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let program = xdp_program("somebody_elses", 2);
    let index = netns.index("v0");
    let _link = netns.enter(|| attach_xdp(program.as_fd(), index, common::bpf::NATIVE));
    demux.refused("load v0", 5, "hook_busy");
    assert_eq!(on_egress(&netns, "v0"), NOTHING);
}
