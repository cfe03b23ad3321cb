//! What `load --check` found.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    bytes,
    list::{Column, Row, left},
    printable,
};
use crate::load::Check;

/// What was found about one interface.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct CheckRow(pub Check);

impl Row for CheckRow {
    const NOUN: &'static str = "check";
    const COLUMNS: &'static [Column] = &[left("IFACE"), left("MODE"), left("OK")];

    fn cells(&self) -> Vec<String> {
        let Self(check) = self;
        vec![
            check.interface.clone(),
            check.mode.into(),
            if check.ok { "yes" } else { "no" }.into(),
        ]
    }
}

/// Writes what was found, a paragraph for each interface.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_checks(checks: &[Check], out: &mut dyn Write) -> io::Result<()> {
    for check in checks {
        write_check(check, out)?;
    }
    Ok(())
}

fn write_check(check: &Check, out: &mut dyn Write) -> io::Result<()> {
    let number = |number: Option<u32>| number.map_or_else(|| "?".into(), |n| n.to_string());
    let verdict = if check.ok {
        "could be loaded"
    } else {
        "would be refused"
    };
    writeln!(out, "{}: {verdict}", printable(&check.interface))?;
    let mut line = |key: &str, value: &str| writeln!(out, "  {key:<12} {}", printable(value));
    line("mode", &format!("{} ({})", check.mode, check.mode_reason))?;
    line("driver", check.driver.as_deref().unwrap_or("unknown"))?;
    line("mtu", &check.mtu.to_string())?;
    let queues = format!(
        "{} rx, {} tx",
        number(check.rx_queues),
        number(check.tx_queues)
    );
    line("queues", &queues)?;
    let resets = match check.resets_link {
        Some(true) => "goes down for a moment when attaching in the driver",
        Some(false) => "stays up",
        None => "unknown whether it stays up",
    };
    line("link", resets)?;
    let memory = match check.memory_bytes {
        0 => "none besides the present tables".into(),
        count => format!("about {}", bytes(count)),
    };
    line("memory", &memory)?;
    let on_hook = match &check.program {
        Some(program) if check.loaded => format!("{program}, demux's own"),
        Some(program) => format!("{program}, which must be detached first"),
        None => "free".into(),
    };
    line("hook", &on_hook)?;
    line(
        "egress",
        &format!("{} ({})", check.egress, check.egress_reason),
    )?;
    let on_egress = match check.egress_programs.as_slice() {
        [] => "free".to_owned(),
        programs => programs.join(", "),
    };
    line("egress hook", &on_egress)?;
    for difference in &check.differences {
        line("conflict", difference)?;
    }
    for risk in &check.risks {
        line("risk of drop", risk)?;
    }
    for remedy in &check.remedies {
        line("what to do", remedy)?;
    }
    if check.risks.is_empty() {
        line("risk of drop", "none found")?;
    }
    Ok(())
}
