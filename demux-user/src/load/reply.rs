//! How a refusal leaves by an interface.
//!
//! In generic mode and in the drivers of cards XDP_TX sends a frame back by the interface on which
//! it came. A veth device in native mode is special: what XDP sends goes into a ring of its peer,
//! which is there only while the peer has an XDP program of its own in native mode, or GRO; and
//! without such a program nobody is woken for what XDP_TX has put there (`veth_xdp_flush`), while
//! XDP_REDIRECT always wakes (`veth_ndo_xdp_xmit`). So it is XDP_REDIRECT where the device says that
//! frames sent to it arrive, and nothing where it does not.
//!
//! The peer may change its mind at any time. Then refusals are lost, or the kernel is troubled for
//! nothing, until somebody asks again: see [`renew`]. `status` warns.

use demux_common::{
    binding::{Binding, Target},
    config::{Interface, Mode, Policy, Reply},
};

use crate::{
    Error, Result,
    interface::{self, Interface as Device, XdpMode},
    preflight,
};

/// How a refusal leaves by an interface that is attached in this mode.
///
/// # Errors
///
/// Where the kernel cannot be asked.
pub(crate) fn reply(device: &Device, mode: Mode) -> Result<Reply> {
    if mode == Mode::Generic || device.kind.as_deref() != Some("veth") {
        return Ok(Reply::Transmit);
    }
    let arrives = match preflight::takes_sent_frames(device.index) {
        Ok(Some(arrives)) => arrives,
        // Before Linux 6.3 only a peer in this namespace can be asked, and not for GRO.
        Ok(None) => {
            let all = interface::all()?;
            let peer = device.peer(&all);
            peer.is_some_and(|peer| peer.xdp.is_some_and(|xdp| xdp.mode == XdpMode::Native))
        }
        Err(source) => {
            return Err(Error::io(
                format!("ask the driver of {}", device.name),
                source,
            ));
        }
    };
    Ok(if arrives {
        Reply::Redirect
    } else {
        Reply::None
    })
}

/// Whether anything is to be refused: by a default, or by a binding.
pub(crate) fn is_in_use(interfaces: &[(u32, Interface)], bindings: &[(u16, Binding)]) -> bool {
    let by_default = |(_, entry): &(u32, Interface)| entry.default == Policy::Reject;
    let by_binding = |(_, binding): &(u16, Binding)| binding.target == Target::Reject;
    interfaces.iter().any(by_default) || bindings.iter().any(by_binding)
}

/// Brings how refusals leave up to date in the entries of interfaces.
///
/// # Errors
///
/// Where the kernel cannot be asked.
pub(crate) fn renew<'a>(entries: impl IntoIterator<Item = &'a mut Interface>) -> Result<()> {
    for entry in entries {
        if let Some(device) = interface::by_index(entry.ifindex)? {
            entry.reply = reply(&device, entry.mode)?;
        }
    }
    Ok(())
}
