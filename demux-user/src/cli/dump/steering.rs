//! CPUs, sockets and fragments as fields.

use demux_common::{
    fragments::{Datagram, Owner},
    steering::{CpuList, XskSocket},
};

use crate::{bindings::pattern::to_ip, render::Record};

pub(super) fn cpu_list(binding: u32, list: &CpuList) -> Record {
    Record(vec![
        ("binding", binding.into()),
        ("cpus", list.as_slice().to_vec().into()),
    ])
}

pub(super) fn xsk_socket(slot: u32, socket: &XskSocket) -> Record {
    Record(vec![
        ("slot", slot.into()),
        ("cookie", socket.cookie.into()),
        ("fd", socket.fd.into()),
        ("zero_copy", (socket.zero_copy != 0).into()),
    ])
}

pub(super) fn fragments(datagram: &Datagram, owner: &Owner) -> Record {
    Record(vec![
        ("source", to_ip(&datagram.source).to_string().into()),
        (
            "destination",
            to_ip(&datagram.destination).to_string().into(),
        ),
        ("protocol", datagram.protocol.into()),
        ("id", datagram.id.into()),
        ("binding", owner.binding.into()),
        ("local_port", owner.local_port.into()),
        ("remote_port", owner.remote_port.into()),
        ("expires", owner.expires.into()),
    ])
}
